"""What a gateway answers and sends on: the loaded program makes the bytes of the interpreter, each time."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6NDOptUnknown,
    IPv6,
    IPv6ExtHdrDestOpt,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from tests.bpf.bench import Bench
from tests.bpf.test_cache import cached
from tests.generators import Builder
from vnet.base.drop import DropReason
from vnet.openflow.table import PortState, SlowSwitch
from vnet.policy.compile import compile
from vnet.policy.endpoint import link_local
from vnet.topology.inventory import Nic
from vnet.topology.routing import gateway_mac
from vnet.topology.values import format_mac

GATEWAY = format_mac(gateway_mac("test"))
LOCAL = str(link_local(gateway_mac("test")))
TOPOLOGY, INVENTORY = (
    Builder()
    .network("front", 10, "10.0.1.0/24", "fd00:1::/64")
    .network("back", 20, "10.0.2.0/24", "fd00:2::/64")
    .router("gw", "front", "back")
    .vm("a", "front")
    .vm("b", "back")
    .policy("open", "any", ingress=["allow any"])
    .build()
)
A, B = INVENTORY.nics
SENT = Ether(src=format_mac(A.mac), dst=GATEWAY)
FOUR, SIX = (str(address.ip) for address in A.addresses)
B4, B6 = (str(address.ip) for address in B.addresses)
OWN_LOCAL = str(link_local(A.mac))
MULTICAST = Ether(src=format_mac(A.mac), dst="33:33:ff:00:00:01")


def solicits(target: str, source: str = SIX) -> Packet:
    return MULTICAST / IPv6(src=source, dst="ff02::1:ff00:1", hlim=255) / ICMPv6ND_NS(tgt=target)


OWN_MAC = ICMPv6NDOptSrcLLAddr(lladdr=format_mac(A.mac))
ANSWERED = {
    "who has": Ether(src=format_mac(A.mac), dst="ff:ff:ff:ff:ff:ff")
    / ARP(op=1, hwsrc=format_mac(A.mac), psrc=FOUR, pdst="10.0.1.1"),
    "solicitation": solicits("fd00:1::1") / OWN_MAC,
    "solicitation without the sender's MAC": solicits("fd00:1::1"),
    "solicitation with two options": solicits("fd00:1::1")
    / ICMPv6NDOptUnknown(type=14, len=1, data=b"nonce1")
    / OWN_MAC,
    "solicitation of the link-local address": solicits(LOCAL, OWN_LOCAL) / OWN_MAC,
    "solicitation behind an extension": MULTICAST
    / IPv6(src=SIX, dst="ff02::1:ff00:1", hlim=255)
    / IPv6ExtHdrDestOpt()
    / ICMPv6ND_NS(tgt="fd00:1::1")
    / OWN_MAC,
    "echo": SENT / IP(src=FOUR, dst="10.0.1.1", ttl=1) / ICMP(id=3, seq=4) / Raw(b"abc"),
    "echo to the other gateway": SENT / IP(src=FOUR, dst="10.0.2.1") / ICMP(id=3),
    "echo over IPv6": SENT / IPv6(src=SIX, dst="fd00:1::1") / ICMPv6EchoRequest(id=3, data=b"abcd"),
    "echo to the link-local address": SENT / IPv6(src=OWN_LOCAL, dst=LOCAL) / ICMPv6EchoRequest(id=3),
}
REFUSED = {
    "no hops": (SENT / IP(src=FOUR, dst=B4, ttl=1) / UDP(dport=9), DropReason.TTL),
    "no hops over IPv6": (SENT / IPv6(src=SIX, dst=B6, hlim=1) / UDP(dport=9), DropReason.TTL),
    "no route": (SENT / IP(src=FOUR, dst="192.0.2.1") / UDP(), DropReason.NO_ROUTE),
    "no route over IPv6": (SENT / IPv6(src=SIX, dst="2001:db8::1") / UDP(), DropReason.NO_ROUTE),
    "back": (SENT / IP(src=FOUR, dst="10.0.1.77") / UDP(), DropReason.NO_ROUTE),
    "nobody": (SENT / IP(src=FOUR, dst="10.0.2.77") / UDP(), DropReason.NO_DST),
    "nobody over IPv6": (SENT / IPv6(src=SIX, dst="fd00:2::77") / UDP(), DropReason.NO_DST),
    "closed": (SENT / IP(src=FOUR, dst="10.0.1.1") / UDP(dport=53), DropReason.NO_DST),
    "from a link-local address": (SENT / IPv6(src=OWN_LOCAL, dst=B6) / UDP(), DropReason.NO_ROUTE),
}


@pytest.fixture(scope="module")
def routed() -> Iterator[Bench]:
    with Bench(ports=4) as made:
        made.load(compile(TOPOLOGY, INVENTORY).flows)
        yield made


def slow() -> SlowSwitch:
    return SlowSwitch(compile(TOPOLOGY, INVENTORY).flows, {number: PortState() for number in range(1, 5)})


@pytest.mark.parametrize("name", ANSWERED)
def test_a_gateway_answers_with_the_bytes_of_the_interpreter(routed: Bench, name: str) -> None:
    frame = bytes(ANSWERED[name])
    outcome = slow().receive(A.port, frame, 0.0)
    ((port, told),) = outcome.outputs
    assert (port, outcome.drop) == (A.port, None)
    for _ in range(3):
        assert routed.decide(A.port, frame).frames == ((A.port, told),)
    answer = Ether(told)
    assert (answer.src, answer.dst) == (GATEWAY, format_mac(A.mac))
    assert bytes(Ether(told)) == told


@pytest.mark.parametrize("name", [name for name in ANSWERED if name.startswith("solicitation")])
def test_an_advertisement_is_sound(name: str) -> None:
    ((_, told),) = slow().receive(A.port, bytes(ANSWERED[name]), 0.0).outputs
    asked, answer = ANSWERED[name], Ether(told)
    assert (answer[IPv6].hlim, answer[IPv6].dst) == (255, asked[IPv6].src)
    said = answer[ICMPv6ND_NA]
    assert (said.R, said.S, said.O) == (1, 1, 1)
    assert ip_address(said.tgt) == ip_address(answer[IPv6].src) == ip_address(asked[ICMPv6ND_NS].tgt)
    assert answer[ICMPv6NDOptDstLLAddr].lladdr == GATEWAY
    fresh = answer.copy()
    del fresh[ICMPv6ND_NA].cksum
    assert bytes(fresh) == told


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_gateway_does_not_send_on_it_tells_of(routed: Bench, name: str) -> None:
    packet, reason = REFUSED[name]
    frame = bytes(packet)
    outcome = slow().receive(A.port, frame, 0.0)
    assert outcome.drop is reason and len(outcome.outputs) == 1, outcome
    for _ in range(3):
        decision = routed.decide(A.port, frame)
        assert (decision.frames, decision.drop) == (outcome.outputs, reason)


@pytest.mark.parametrize(
    "packet",
    [SENT / IP(src=FOUR, dst=B4, ttl=9) / UDP(dport=9), SENT / IPv6(src=SIX, dst=B6, hlim=9) / UDP(dport=9)],
    ids=["IPv4", "IPv6"],
)
def test_a_packet_goes_on_with_other_macs_and_a_hop_less(routed: Bench, packet: Packet) -> None:
    frame = bytes(packet)
    ((port, sent),) = slow().receive(A.port, frame, 0.0).outputs
    assert port == B.port
    for _ in range(3):
        assert routed.decide(A.port, frame).frames == ((B.port, sent),)
    got = Ether(sent)
    assert (got.src, got.dst) == (GATEWAY, format_mac(B.mac))
    assert (got[IP].ttl if IP in got else got[IPv6].hlim) == 8


def test_a_remembered_way_is_not_taken_by_a_packet_with_no_hops_left(routed: Bench) -> None:
    for ttl in (9, 9, 9):
        assert routed.decide(A.port, bytes(SENT / IP(src=FOUR, dst=B4, ttl=ttl) / UDP(dport=9))).drop is None
    last = routed.decide(A.port, bytes(SENT / IP(src=FOUR, dst=B4, ttl=1) / UDP(dport=9)))
    assert last.drop is DropReason.TTL


def test_the_ways_of_a_routed_connection_are_remembered(routed: Bench) -> None:
    routed.load(compile(TOPOLOGY, INVENTORY).flows)

    def send(nic: Nic, source: str, target: str, flags: str, ports: tuple[int, int]) -> None:
        ether = Ether(src=format_mac(nic.mac), dst=GATEWAY)
        layer = IP if "." in source else IPv6
        tcp = TCP(sport=ports[0], dport=ports[1], flags=flags, seq=1, ack=1)
        assert routed.decide(nic.port, bytes(ether / layer(src=source, dst=target) / tcp)).drop is None

    for source, target in ((FOUR, B4), (SIX, B6)):
        send(A, source, target, "S", (4000, 80))
        send(B, target, source, "SA", (80, 4000))
        for _ in range(2):
            send(A, source, target, "A", (4000, 80))
            send(B, target, source, "A", (80, 4000))
    assert (cached(routed, A.port), cached(routed, B.port)) == (2, 2)
