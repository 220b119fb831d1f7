"""The flow cache under pressure: counters stay exact, and nobody is pushed out by others."""

from __future__ import annotations

import ctypes
import itertools
import os
import time
from collections.abc import Iterable, Iterator

import pytest

from tests.bpf.bench import Bench
from vnet.openflow.flow import Flow, Instructions, Output, match
from vnet.switch import abi
from vnet.switch.datapath import Change
from vnet.switch.live import bpf
from vnet.switch.live.netns import inside

KEYS = 2 * abi.CACHE
EVICTIONS, WINDOW_S = 256, 2**27 / 1e9
"""VNET_EVICTIONS in cache.h, and how long a window is (maps.h)."""


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench(ports=3) as made:
        made.datapath.watch(frozenset())
        yield made


def frame(source: int, target: int = 0x020000000009) -> bytes:
    """Of a sender and a receiver; 60 bytes of an EtherType nobody knows."""
    return target.to_bytes(6, "big") + (0x020000000000 + source).to_bytes(6, "big") + b"\x88\xb5" + bytes(46)


def cached(bench: Bench, port: int) -> int:
    """Entries of a port in the cache of this CPU that were made under the version in force."""
    (cpu,) = os.sched_getaffinity(0)
    size = ctypes.sizeof(abi.Cached)
    found = 0
    for index in range(abi.CACHE):
        raw = bench.datapath._map["cache"].index(index) or b""
        one = abi.Cached.from_buffer_copy(raw, cpu * size)
        found += one.version == bench.datapath.version and one.key[0] >> 32 == port
    return found


def by_source(port: int, sources: range, **more: int) -> list[Flow]:
    return [
        Flow(0, 10, match(in_port=port, eth_src=0x020000000000 + source, **more), Instructions(goto=1))
        for source in sources
    ]


def bound(port: int) -> Flow:
    return Flow(0, 10, match(in_port=port), Instructions((Output(3),)))


READS_SOURCES = Flow(0, 1, match(eth_src=0x02FFFFFFFFFF))
"""Makes the cache tell senders apart."""


def send(bench: Bench, port: int, frames: Iterable[bytes]) -> None:
    """Have the program decide them; like `EbpfDatapath.run`, but without entering the namespace each time."""
    datapath = bench.datapath
    context = bpf.SkBuff(ifindex=datapath._ports.ifindexes[port])
    with inside(bench.netns):
        for one in frames:
            bpf.run(datapath._pinned.program, one, context)


def test_counters_are_exact_although_entries_are_displaced(bench: Bench) -> None:
    """Twice as many senders as a CPU has entries, twice."""
    wide = bound(1)
    bench.load([wide, READS_SOURCES])
    for _ in range(2):
        send(bench, 1, map(frame, range(KEYS)))
    counted = bench.datapath.flow_counters()[wide.key]
    assert (counted.packets, counted.bytes) == (2 * KEYS, 2 * KEYS * 60)
    assert 0 < cached(bench, 1) <= abi.CACHE


def test_counters_are_exact_although_there_are_more_lists_of_rules_than_numbers_for_them(
    bench: Bench,
) -> None:
    """Each sender meets a rule in table 0 and each receiver one in table 1: 260 times 260 lists."""
    count = 260
    assert count * count > abi.PATHS
    first = by_source(1, range(count))
    second = [
        Flow(1, 10, match(eth_dst=0x020000000000 + target), Instructions((Output(2),)))
        for target in range(count)
    ]
    bench.load([*first, *second])
    pairs = itertools.product(range(count), repeat=2)
    send(bench, 1, (frame(source, 0x020000000000 + target) for source, target in pairs))
    counted = bench.datapath.flow_counters()
    assert {counted[flow.key].packets for flow in (*first, *second)} == {count}
    bench.datapath.commit(Change(put=(Flow(0, 1, match(in_port=3)),)))
    send(bench, 1, (frame(source, 0x020000000000) for source in range(count)))
    counted = bench.datapath.flow_counters()
    assert {counted[flow.key].packets for flow in first} == {count + 1}
    assert counted[second[0].key].packets == 2 * count


def test_a_port_that_sends_from_ever_new_addresses_displaces_few_entries_of_others(bench: Bench) -> None:
    victim = range(12_000)
    bench.load([bound(1), bound(2), READS_SOURCES])
    send(bench, 2, map(frame, victim))
    before = cached(bench, 2)
    began = time.monotonic()
    send(bench, 1, map(frame, range(KEYS)))
    windows = (time.monotonic() - began) / WINDOW_S + 2
    after = cached(bench, 2)
    assert before > 0.8 * len(victim)
    assert before - after <= EVICTIONS * windows
    assert EVICTIONS * windows < 0.5 * KEYS, "without a budget it would have been all of them"
    assert after > 0
