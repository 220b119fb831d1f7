"""A commit is over when no packet is left that began before it: with a program that takes its time."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bpf.bench import sh
from vnet.switch.live import bpf, quiescence
from vnet.switch.live.netns import inside
from vnet.switch.live.quiescence import Quiescence

FRAME = bytes(6) + bytes([2, 0, 0, 0, 0, 1]) + b"\x88\xb5" + bytes(50)
UNTOUCHED, BEGUN, DONE = (number.to_bytes(4, "little") for number in range(3))
SLOW = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} state SEC(".maps");

static long again(__u32 i, __u64 *sum)
{
	*sum += bpf_ktime_get_ns();
	return 0;
}

SEC("tc")
int slow(struct __sk_buff *skb)
{
	__u32 zero = 0, *now = bpf_map_lookup_elem(&state, &zero);
	__u64 sum = 0;

	if (!now || *now)
		return 2;
	*(volatile __u32 *)now = 1;
	bpf_loop(1 << 22, again, &sum, 0); /* a tenth of a second */
	*(volatile __u32 *)now = 2 + !sum;
	return 2;
}
"""


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[bpf.Object]:
    """The program, loaded."""
    source = tmp_path / "slow.bpf.c"
    source.write_text(SLOW)
    include = f"-I/usr/include/{os.uname().machine}-linux-gnu"
    flags = ["-O2", "-g", "-target", "bpf", "-mcpu=v3", include]
    subprocess.run(["clang", *flags, "-c", source.name, "-o", "slow.o"], cwd=tmp_path, check=True)
    program = bpf.Object(tmp_path / "slow.o")
    program.load()
    yield program
    program.close()


@pytest.fixture
def wire(slow: bpf.Object) -> Iterator[socket.socket]:
    """What is sent here comes to the program at the other end."""
    name = f"vnt-slow-{os.getpid()}"
    sh(f"ip netns add {name}")
    try:
        sh(f"ip -n {name} link add near type veth peer name far")
        sh(f"ip -n {name} link set near up")
        sh(f"ip -n {name} link set far up")
        with inside(name):
            link = bpf.attach_tcx(slow.program_fd("slow"), socket.if_nametoindex("far"))
            opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            opened.bind(("near", 0))
        with opened:
            yield opened
        os.close(link or 0)
    finally:
        sh(f"ip netns del {name}")


@pytest.mark.parametrize("way", ["on each processor", "the kernel's"])
def test_wait_ends_after_the_packets_that_had_begun(
    slow: bpf.Object, wire: socket.socket, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way == "the kernel's":
        monkeypatch.setattr(quiescence, "_is_realtime", lambda: True)
    state, waiting = bpf.Map(slow.map_fd("state")), Quiescence()

    def send() -> None:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # the program runs where its sender does
        wire.send(FRAME)

    for _ in range(20):  # on a busy machine the packet may be done before we look
        state.set(0, UNTOUCHED)
        sender = threading.Thread(target=send)
        sender.start()
        deadline = time.monotonic() + 5
        while (before := state.index(0)) == UNTOUCHED and time.monotonic() < deadline:
            pass
        waiting.wait()
        after = state.index(0)
        sender.join()
        if before == BEGUN:
            break
    waiting.close()
    assert (before, after) == (BEGUN, DONE)


def test_wait_leaves_the_thread_as_it_was() -> None:
    def scheduling() -> tuple[object, ...]:
        return os.sched_getaffinity(0), os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)

    before, waiting = scheduling(), Quiescence()
    waiting.wait()
    waiting.close()
    assert scheduling() == before


@pytest.mark.parametrize(
    "obstacle", ["a processor that went offline", "a processor of somebody else", "realtime"]
)
def test_kernel_is_asked_where_running_everywhere_says_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, obstacle: str
) -> None:
    asked = list[object]()
    if obstacle == "realtime":
        monkeypatch.setattr(quiescence, "REALTIME", tmp_path / "realtime")
        (tmp_path / "realtime").write_text("1\n")
    elif obstacle == "a processor of somebody else":
        monkeypatch.setattr(quiescence, "ONLINE", tmp_path / "online")
        (tmp_path / "online").write_text("0-1,4095\n")
    else:
        answers = iter([frozenset({0, 1}), frozenset({0})])
        monkeypatch.setattr(quiescence, "_online", lambda: next(answers))
    monkeypatch.setattr(bpf.GracePeriod, "wait", lambda grace: asked.append(grace))
    waiting = Quiescence()
    waiting.wait()
    waiting.close()
    assert len(asked) == 1
