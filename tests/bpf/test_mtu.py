"""What is longer than the MTU of the port that it would leave by: dropped, and told of by who sent it on.

Super packets count by what they will be cut into: the kernel that cuts them asks for no MTU.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPerror6, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from tests.bpf.bench import Bench, Decision, sh
from tests.generators import Builder
from vnet.base.drop import DropReason
from vnet.policy.compile import compile
from vnet.switch.live import bpf
from vnet.switch.live.netns import inside
from vnet.topology.inventory import Nic
from vnet.topology.routing import gateway_mac
from vnet.topology.values import format_mac

JUMBO, SMALL = 3000, 1500
"""BPF_PROG_TEST_RUN takes no packet of more than a page."""
GATEWAY = format_mac(gateway_mac("test"))
TOPOLOGY, INVENTORY = (
    Builder()
    .network("wide", 10, "10.0.1.0/24", "fd00:1::/64")
    .network("narrow", 20, "10.0.2.0/24", "fd00:2::/64")
    .router("gw", "wide", "narrow")
    .vm("a", "wide")
    .vm("b", "narrow")
    .vm("c", "wide")
    .policy("open", "any", ingress=["allow any"])
    .build()
)
A, B, C = INVENTORY.nics
HEADERS = {4: 14 + 20, 6: 14 + 40}
OWN_GATEWAY = {4: "10.0.2.1", 6: "fd00:2::1"}
OPTIONS = [("NOP", None), ("NOP", None), ("Timestamp", (1, 2))]
"""Twelve bytes, as Linux sends in every segment."""


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench(ports=3) as made:
        for nic in (A, C):
            sh(f"ip -n {made.netns} link set p{nic.port} mtu {JUMBO}")
        made.load(compile(TOPOLOGY, INVENTORY).flows)
        made.datapath.ports()
        yield made


def address(nic: Nic, family: int) -> str:
    return next(str(each.ip) for each in nic.addresses if each.version == family)


def frame(to: Nic, family: int, above: Packet, payload: int, sender: Nic = A) -> bytes:
    ends = {"src": address(sender, family), "dst": address(to, family)}
    ip = IP(**ends, flags="DF") if family == 4 else IPv6(**ends)
    near = to.network == sender.network
    link = Ether(src=format_mac(sender.mac), dst=format_mac(to.mac) if near else GATEWAY)
    return bytes(link / ip / above / Raw(bytes(payload)))


def decide(bench: Bench, sent: bytes, gso_size: int = 0) -> Decision:
    bench.watch()
    with inside(bench.netns):
        context = bpf.SkBuff(ifindex=bench.datapath._ports.ifindexes[A.port], gso_size=gso_size)
        _, _, after, _ = bpf.run(bench.datapath._pinned.program, sent, context)
    return bench.told(after.cb[1])


def is_told(decision: Decision, family: int) -> None:
    """The sender, by the gateway of the network that it was going to."""
    assert decision.drop is DropReason.MTU
    ((port, answer),) = decision.frames
    assert port == A.port
    told = Ether(answer)
    assert (told.src, told.dst) == (GATEWAY, format_mac(A.mac))
    if family == 4:
        assert (told[IP].src, told[ICMP].type, told[ICMP].code) == (OWN_GATEWAY[4], 3, 4)
        assert (told[ICMP].nexthopmtu, told[IPerror].dst) == (SMALL, address(B, 4))
    else:
        assert (told[IPv6].src, told[ICMPv6PacketTooBig].mtu) == (OWN_GATEWAY[6], SMALL)
        assert told[IPerror6].dst == address(B, 6)


@pytest.mark.parametrize("family", [4, 6])
def test_a_datagram_passes_that_just_fits_and_no_longer_one(bench: Bench, family: int) -> None:
    fits = SMALL + 14 - HEADERS[family] - 8
    for _ in range(3):  # the first is decided by the tables, the others by what was remembered
        decision = decide(bench, frame(B, family, UDP(sport=7, dport=7), fits))
        assert [port for port, _ in decision.frames] == [B.port]
        is_told(decide(bench, frame(B, family, UDP(sport=7, dport=7), fits + 1)), family)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("above", ["TCP", "TCP with options", "UDP"])
def test_a_super_packet_is_judged_by_its_segments(bench: Bench, family: int, above: str) -> None:
    kinds = {
        "TCP": (TCP(sport=7, dport=7, flags="S"), 20),
        "TCP with options": (TCP(sport=8, dport=7, flags="S", options=OPTIONS), 32),
        "UDP": (UDP(sport=9, dport=7), 8),
    }
    header, length = kinds[above]
    fits = SMALL + 14 - HEADERS[family] - length
    sent = frame(B, family, header, 3000)
    for _ in range(3):
        assert [port for port, _ in decide(bench, sent, fits).frames] == [B.port]
        is_told(decide(bench, sent, fits + 1), family)


@pytest.mark.parametrize("family", [4, 6])
def test_a_jumbo_frame_passes_where_its_network_has_them(bench: Bench, family: int) -> None:
    fits = JUMBO + 14 - HEADERS[family] - 8
    sent = frame(C, family, UDP(sport=7, dport=7), fits)
    assert [port for port, _ in decide(bench, sent).frames] == [C.port]
    for gso_size in (0, fits + 1):
        longer = decide(bench, frame(C, family, UDP(sport=7, dport=7), fits + 1), gso_size)
        assert (longer.drop, longer.frames) == (DropReason.MTU, ())


def test_what_is_too_long_is_counted_at_both_ports(bench: Bench) -> None:
    before = bench.datapath.port_counters()
    decide(bench, frame(C, 4, UDP(sport=7, dport=7), 3200), 3100)
    after = bench.datapath.port_counters()
    assert after[C.port].tx_dropped == before[C.port].tx_dropped + 1
    assert after[A.port].rx_dropped == before[A.port].rx_dropped + 1
