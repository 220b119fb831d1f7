"""What a port may send to all, to groups and to nobody in a second, whatever stands behind that."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether

from tests.bpf.bench import Bench
from vnet.base.drop import DropReason
from vnet.base.limits import Limits
from vnet.openflow import cookie
from vnet.openflow.flow import Flow, Instructions, Output, match
from vnet.openflow.message import Port

LIMIT = 200
LIMITS = Limits(broadcast_pps=LIMIT, multicast_pps=LIMIT, unknown_unicast_pps=LIMIT)
SOURCE, NOBODY = "02:00:00:00:00:01", "02:00:00:00:00:99"
ALL, GROUP, NODES = "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:fb", "33:33:00:00:00:01"
FORWARD = Flow(0, 10, match(), Instructions((Output(2),)))
DROP = Flow(0, 10, match(), cookie=cookie.make("nobody", DropReason.NO_DST))
TYPE = 0x0900


def frame(to: str) -> bytes:
    return bytes(Ether(src=SOURCE, dst=to, type=TYPE)) + bytes(46)


@pytest.fixture
def bench() -> Iterator[Bench]:
    with Bench(ports=3) as made:
        made.datapath.watch(frozenset())
        made.datapath.limit(1, LIMITS)
        made.load([FORWARD])
        yield made


def lost(bench: Bench) -> dict[int, int]:
    return {reason: packets for reason, packets in bench.datapath.drop_counters().items() if packets}


def send(bench: Bench, sent: bytes, count: int, port: int = 1) -> tuple[dict[int, int], float]:
    """How many are lost of so many frames, by reason, and the seconds it took to send them."""
    before, began = lost(bench), time.monotonic()
    bench.datapath.run(port, sent, repeat=count)
    after, took_s = lost(bench), time.monotonic() - began
    return dict(Counter(after) - Counter(before)), took_s


def stormed(bench: Bench, sent: bytes, count: int = 5 * LIMIT) -> None:
    """All but a second's worth, and what is added while it is sent, is lost."""
    gone, took_s = send(bench, sent, count)
    assert gone.keys() == {DropReason.STORM}
    passed = count - gone[DropReason.STORM]
    assert LIMIT <= passed <= LIMIT + (took_s + 0.01) * LIMIT, (passed, took_s)


@pytest.mark.parametrize("to", [ALL, GROUP, NODES])
def test_no_more_than_a_second_s_frames_for_many_pass_at_once(bench: Bench, to: str) -> None:
    stormed(bench, frame(to))


def test_each_kind_and_each_port_has_a_limit_of_its_own(bench: Bench) -> None:
    stormed(bench, frame(ALL))
    stormed(bench, frame(GROUP))
    bench.datapath.limit(3, LIMITS)
    assert send(bench, frame(ALL), LIMIT, port=3)[0] == {}


def test_what_is_for_one_passes_amid_a_storm(bench: Bench) -> None:
    stormed(bench, frame(ALL))
    assert send(bench, frame(NOBODY), 5 * LIMIT)[0] == {}


def test_time_pays_for_more(bench: Bench) -> None:
    began_s = time.monotonic()
    stormed(bench, frame(ALL))
    time.sleep(0.25)
    gone, _ = send(bench, frame(ALL), LIMIT)
    passed = LIMIT - gone[DropReason.STORM]
    assert LIMIT * 0.2 <= passed <= (time.monotonic() - began_s) * LIMIT


def test_a_limit_changes_amid_a_storm(bench: Bench) -> None:
    stormed(bench, frame(ALL))
    bench.datapath.limit(1, Limits(broadcast_pps=1_000_000))
    time.sleep(0.3)
    assert send(bench, frame(ALL), 10 * LIMIT)[0] == {}
    assert bench.datapath.limits()[1] == Limits(broadcast_pps=1_000_000)


def test_a_port_that_nobody_limits_may_send_any_number(bench: Bench) -> None:
    assert send(bench, frame(ALL), 50 * LIMIT, port=2)[0] == {DropReason.SAME_PORT: 50 * LIMIT}
    assert send(bench, frame(ALL), 50 * LIMIT, port=3)[0] == {}


UNDER = Ether(src=SOURCE, dst=ALL)
UDP4 = IP(src="10.0.0.1", dst="10.0.0.255") / UDP(sport=1, dport=2)
HIDDEN = {
    "ARP": UNDER / ARP(op=1, psrc="10.0.0.1", pdst="10.0.0.2"),
    "a tag": UNDER / Dot1Q(vlan=5) / UDP4,
    "two tags": UNDER / Dot1AD(vlan=5) / Dot1Q(vlan=6) / UDP4,
    "a first fragment": UNDER / IP(src="10.0.0.1", dst="10.0.0.255", flags="MF") / UDP() / bytes(64),
    "a later fragment": UNDER / IP(src="10.0.0.1", dst="10.0.0.255", frag=20) / bytes(64),
    "extension headers": UNDER
    / IPv6(src="fd00::1", dst="ff02::1")
    / IPv6ExtHdrDestOpt()
    / IPv6ExtHdrFragment()
    / UDP(sport=1, dport=2),
    "an address of one host": UNDER / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2),
}


@pytest.mark.parametrize("what", HIDDEN)
def test_nothing_behind_the_destination_hides_a_storm(bench: Bench, what: str) -> None:
    sent = bytes(HIDDEN[what])
    gone, took_s = send(bench, sent.ljust(60, b"\0"), 5 * LIMIT)
    assert gone[DropReason.STORM] >= 4 * LIMIT - (took_s + 0.01) * LIMIT


def test_a_storm_that_cannot_be_read_is_one(bench: Bench) -> None:
    broken = bytes(UNDER / IP(src="10.0.0.1", dst="10.0.0.255", ihl=3) / bytes(40))
    gone, _ = send(bench, broken, 5 * LIMIT)
    assert gone.keys() == {DropReason.MALFORMED, DropReason.STORM}


def test_refused_frames_of_a_storm_use_no_refusals(bench: Bench) -> None:
    """Nor the cache: what is dropped as a storm is not looked at."""
    before = bench.datapath.table_counters()[0].lookups
    stormed(bench, frame(ALL), 20 * LIMIT)
    assert bench.datapath.table_counters()[0].lookups - before < 2 * LIMIT


def test_what_nobody_gets_is_bounded_too(bench: Bench) -> None:
    bench.load([DROP])
    gone, took_s = send(bench, frame(NOBODY), 5 * LIMIT)
    assert gone.keys() == {DropReason.NO_DST, DropReason.STORM}
    assert LIMIT <= gone[DropReason.NO_DST] <= LIMIT + (took_s + 0.01) * LIMIT


def test_a_learning_switch_looks_for_one_whom_it_does_not_know_so_often(bench: Bench) -> None:
    bench.load([Flow(0, 10, match(), Instructions((Output(Port.NORMAL),)))])
    gone, took_s = send(bench, frame(NOBODY), 3 * LIMIT)
    assert gone.keys() == {DropReason.STORM}
    assert gone[DropReason.STORM] >= 2 * LIMIT - (took_s + 0.01) * LIMIT
    bench.datapath.run(3, bytes(Ether(src=NOBODY, dst=SOURCE, type=TYPE)) + bytes(46))
    assert send(bench, frame(NOBODY), 3 * LIMIT)[0] == {}, "now it does"


def test_the_drop_tells_its_reason_and_the_port(bench: Bench) -> None:
    for _ in range(20):  # on a busy machine a packet's share comes back before the next is sent
        bench.datapath.watch(frozenset())
        bench.datapath.run(1, frame(ALL), repeat=5 * LIMIT)
        bench.datapath.read_events()
        bench.watch()
        if told := bench.decide_next(1, frame(ALL)).drop:
            break
    assert told is DropReason.STORM
