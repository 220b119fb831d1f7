// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* One byte there and one back over TCP: `rr serve PORT`, `rr ask ADDRESS PORT COUNT`.
 *
 * `ask` prints the 50th and the 99th percentile in nanoseconds. A server ends with its client.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static long long now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	long long x = *(const long long *)a, y = *(const long long *)b;

	return (x > y) - (x < y);
}

static int serve(struct sockaddr_in *at)
{
	int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0), peer;
	char byte;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (void *)at, sizeof(*at)) || listen(fd, 1))
		return 1;
	puts("ready");
	fflush(stdout);
	peer = accept(fd, NULL, NULL);
	setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	while (read(peer, &byte, 1) == 1)
		if (write(peer, &byte, 1) != 1)
			break;
	return 0;
}

static int ask(struct sockaddr_in *at, int count)
{
	int one = 1, i, fd = socket(AF_INET, SOCK_STREAM, 0);
	long long *took = malloc(count * sizeof(*took));
	char byte = 0;

	if (!took || connect(fd, (void *)at, sizeof(*at)))
		return 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	for (i = 0; i < count; i++) {
		long long begun = now_ns();

		if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1)
			return 1;
		took[i] = now_ns() - begun;
	}
	qsort(took, count, sizeof(*took), compare);
	printf("%lld %lld\n", took[count / 2], took[count - 1 - count / 100]);
	return 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_in at = { .sin_family = AF_INET };

	if (argc == 3 && !strcmp(argv[1], "serve")) {
		at.sin_port = htons(atoi(argv[2]));
		return serve(&at);
	}
	if (argc == 5 && !strcmp(argv[1], "ask") && inet_pton(AF_INET, argv[2], &at.sin_addr) == 1) {
		at.sin_port = htons(atoi(argv[3]));
		return ask(&at, atoi(argv[4]));
	}
	return 2;
}
