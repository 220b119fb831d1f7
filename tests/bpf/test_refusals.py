"""A port whose packets are refused all the time gets no more of the switch's time than others."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from tests.bpf.bench import Bench
from vnet.base.drop import DropReason
from vnet.openflow import cookie
from vnet.openflow.flow import Flow, Instructions, Output, match
from vnet.switch import abi
from vnet.switch.abi import Point

T = TypeVar("T")
QUOTA = 512
WINDOW_S = 2**27 / 1e9
"""VNET_WINDOW_SHIFT in maps.h."""
CLOCK_MONOTONIC_COARSE = 6
"""Of linux/time.h: the clock that bpf_ktime_get_coarse_ns tells."""

KNOWN, SCANNED = 0x0900, 0x0A00
FORWARD = Flow(0, 10, match(eth_type=KNOWN), Instructions((Output(2),)))
REFUSE = Flow(0, 1, match(eth_type=SCANNED))
LOOKS_AT_SENDERS = Flow(0, 2, match(eth_src=0x02FFFFFFFFFF), Instructions((Output(2),)))


def frame(eth_type: int, sender: int = 1) -> bytes:
    return bytes.fromhex("020000000009") + sender.to_bytes(6, "big") + eth_type.to_bytes(2, "big") + bytes(46)


@pytest.fixture
def bench() -> Iterator[Bench]:
    with Bench(ports=3) as made:
        made.datapath.watch(frozenset())
        made.load([FORWARD, LOOKS_AT_SENDERS])
        yield made


def missed(bench: Bench) -> int:
    counter = bench.datapath.table_counters()[0]
    return counter.lookups - counter.matched


def flood(bench: Bench, port: int, repeat: int = 5 * QUOTA) -> int:
    """Let a port send what no table knows; the reason why the last one was dropped."""
    return int(bench.datapath.run(port, frame(SCANNED), repeat=repeat)[2].cb[1])


def sends(bench: Bench, port: int, sent: bytes) -> DropReason | None:
    """Why it is lost, if it is."""
    return bench.decide_next(port, sent).drop


def in_one_window(act: Callable[[], T]) -> T:
    """What comes of it when nothing interrupts it for so long that another window begins."""
    for _ in range(20):
        begun = _window()
        while _window() == begun:
            time.sleep(0.001)
        came = act()
        if _window() == begun + 1:
            return came
    raise AssertionError(f"it always took longer than {WINDOW_S} s")


def _window() -> int:
    return time.clock_gettime_ns(CLOCK_MONOTONIC_COARSE) >> 27


def test_after_so_many_refusals_a_port_is_not_looked_at_for_the_rest_of_the_window(bench: Bench) -> None:
    def act() -> tuple[int, object, int]:
        before = missed(bench)
        return flood(bench, 1), sends(bench, 1, frame(KNOWN)), missed(bench) - before

    assert in_one_window(act) == (DropReason.REFUSAL_QUOTA, DropReason.REFUSAL_QUOTA, QUOTA)
    assert in_one_window(lambda: sends(bench, 1, frame(KNOWN))) is None, "the next window begins anew"


def test_what_the_cache_knows_goes_on_meanwhile_and_so_do_the_others(bench: Bench) -> None:
    def act() -> tuple[object, ...]:
        flood(bench, 1)
        return (
            sends(bench, 1, frame(KNOWN, 5)),
            sends(bench, 1, frame(KNOWN, 6)),
            sends(bench, 3, frame(KNOWN, 7)),
        )

    assert sends(bench, 1, frame(KNOWN, 5)) is None
    assert in_one_window(act) == (None, DropReason.REFUSAL_QUOTA, None)


def test_refusals_that_the_cache_knows_do_not_count(bench: Bench) -> None:
    def act() -> tuple[int, object]:
        return flood(bench, 1), sends(bench, 1, frame(KNOWN, 8))

    bench.load([FORWARD, LOOKS_AT_SENDERS, REFUSE])
    assert in_one_window(act) == (DropReason.RULE, None)


def test_no_noise_hides_what_a_rule_wants_logged(bench: Bench) -> None:
    """Reports of a port's drops are bounded; those for a log have a bound of their own."""
    logged, noise = (
        cookie.make("logged", DropReason.POLICY, log=True),
        cookie.make("noise", DropReason.POLICY),
    )
    bench.load(
        [
            Flow(0, 2, match(eth_type=KNOWN), cookie=logged),
            Flow(0, 1, match(eth_type=SCANNED), cookie=noise),
        ]
    )

    def act() -> Counter[int]:
        bench.datapath.read_events()
        for eth_type, packets in ((SCANNED, 1000), (KNOWN, 50)):
            bench.datapath.run(1, frame(eth_type), repeat=packets)
        return Counter(event.cookie for event in bench.datapath.read_events() if event.point is Point.DROP)

    assert in_one_window(act) == {logged: 50, noise: 128}


def test_a_port_may_be_free_of_it(bench: Bench) -> None:
    """One behind which many hosts are would let each of them hold up the others."""
    entry = abi.Port.from_buffer_copy(bench.datapath._map["ports"].index(1) or b"")
    assert entry.refusal_quota == QUOTA
    entry.refusal_quota = 0
    bench.datapath._map["ports"].set(1, bytes(entry))
    assert flood(bench, 1) == DropReason.TABLE_MISS
    assert missed(bench) == 5 * QUOTA
