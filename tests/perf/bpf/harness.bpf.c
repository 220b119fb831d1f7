// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* The measuring end of the bench: where frames come from and where they are counted. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* What came to the sinks since the bench last wrote zeros here. */
struct meter {
	__u64 packets;
	__u64 first_ns;
	__u64 last_ns;
};

enum vary {
	VARY_BOTH, /* 1024 source ports for each destination port */
	VARY_SOURCE,
	VARY_TARGET,
};

/* flows: how many there are to take turns, 1 = every frame as it was given. */
struct feed {
	__u32 flows;
	__u32 next;
	__u32 target; /* where `redirect` sends to */
	__u32 vary;   /* enum vary */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct meter);
} meters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct feed);
} feeds SEC(".maps");

SEC("tc")
int sink(struct __sk_buff *skb)
{
	__u64 now = bpf_ktime_get_ns();
	__u32 zero = 0;
	struct meter *meter = bpf_map_lookup_elem(&meters, &zero);

	/* a bridge has its own things to say, all of them multicast */
	if (meter && skb->pkt_type != 2 /* PACKET_MULTICAST */) {
		if (!meter->packets)
			meter->first_ns = now;
		meter->packets++;
		meter->last_ns = now;
	}
	return TC_ACT_SHOT;
}

/* The least a switch at tc can do. */
SEC("tc")
int redirect(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct feed *feed = bpf_map_lookup_elem(&feeds, &zero);

	return feed ? bpf_redirect(feed->target, 0) : TC_ACT_SHOT;
}

/* Frames go on into the device they are said to have come in by. */
SEC("xdp")
int feed(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = data + sizeof(*eth);
	struct udphdr *l4 = (void *)(ip + 1);
	__u32 zero = 0, number;
	struct feed *feed = bpf_map_lookup_elem(&feeds, &zero);

	if (!feed || feed->flows < 2 || (void *)(l4 + 1) > end)
		return XDP_PASS;
	number = feed->next;
	feed->next = number + 1 < feed->flows ? number + 1 : 0;
	/* the checksum of layer 4 is not mended: nobody looks at it */
	if (feed->vary == VARY_BOTH) {
		l4->source = bpf_htons(1024 + (number & 1023));
		l4->dest = bpf_htons(1024 + (number >> 10));
	} else if (feed->vary == VARY_SOURCE) {
		l4->source = bpf_htons(1024 + number);
	} else {
		l4->dest = bpf_htons(1024 + number);
	}
	return XDP_PASS;
}
