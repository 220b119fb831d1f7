"""A network on a cable, in flows that the slow switch runs: what passes to and from who is beyond it."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet as Layers

from tests.generators import Builder
from vnet.base.drop import DropReason
from vnet.openflow.table import Outcome, PortState, SlowSwitch
from vnet.policy.compile import compile
from vnet.topology.routing import gateway_mac

ROUTER, ALL = "02:00:00:00:99:01", "ff:ff:ff:ff:ff:ff"
"""The MAC of a router beyond the cable."""
PC, FAR, PC6 = "10.10.10.200", "203.0.113.7", "fd00:10::200"


def lan(isolated: bool = False) -> Builder:
    return (
        Builder()
        .network("lan", 10, "10.10.10.0/24", "fd00:10::/64", isolated=isolated)
        .network("back", 20, "10.10.20.0/24")
        .vm("a", "lan")
        .vm("b", "lan")
        .vm("c", "back")
    )


class Lab:
    """Two VMs on a cable, and one that is on another one only if the cable is a trunk."""

    def __init__(self, builder: Builder, trunk: bool) -> None:
        builder.cable("wire", "lan", *(["back"] if trunk else []), trunk=trunk)
        self.trunk = trunk
        self.topology, self.inventory = builder.build()
        (self.cable,) = self.inventory.uplinks
        self.nics = {nic.vm: nic for nic in self.inventory.nics}
        ports = (*(nic.port for nic in self.inventory.nics), self.cable.port)
        flows = compile(self.topology, self.inventory).flows
        self.switch = SlowSwitch(flows, {port: PortState() for port in ports})
        self.now_s = 0.0

    def send(self, port: int, frame: Layers) -> Outcome:
        self.now_s += 0.1
        outcome = self.switch.receive(port, bytes(frame), self.now_s)
        assert not outcome.ambiguous
        return outcome

    def out(self, vm: str, *layers: Layers, to: str = ROUTER) -> Outcome:
        nic = self.nics[vm]
        return self.send(nic.port, joined(Ether(src=text(nic.mac), dst=to), *layers))

    def come(self, *layers: Layers, to: str | None = None, source: str = ROUTER, tag: int = 10) -> Outcome:
        """From beyond the cable, to a unless it says otherwise."""
        ether = Ether(src=source, dst=to or text(self.nics["a"].mac))
        tags = [Dot1Q(vlan=tag)] if self.trunk else []
        return self.send(self.cable.port, joined(ether, *tags, *layers))

    def ports(self, outcome: Outcome) -> set[str]:
        """Whom it reached, and that it was tagged as it ought to be."""
        names = {nic.port: name for name, nic in self.nics.items()} | {self.cable.port: "cable"}
        for port, frame in outcome.outputs:
            assert (frame[12:14] == b"\x81\x00") is (self.trunk and port == self.cable.port)
        return {names[port] for port, _ in outcome.outputs}

    def address(self, vm: str, version: int = 4) -> str:
        return next(str(each.ip) for each in self.nics[vm].addresses if each.version == version)


def joined(first: Layers, *layers: Layers) -> Layers:
    frame = first
    for layer in layers:
        frame = frame / layer
    return frame


def text(mac: int) -> str:
    return mac.to_bytes(6, "big").hex(":")


both = pytest.mark.parametrize("trunk", [False, True], ids=["access", "trunk"])


@both
def test_who_is_no_nic_of_the_network_is_on_the_cable_and_answers(trunk: bool) -> None:
    lab = Lab(lan(), trunk)
    a = lab.address("a")
    for target in (PC, FAR, "10.10.10.9"):
        assert lab.ports(lab.out("a", IP(src=a, dst=target), TCP(sport=4000, dport=80))) == {"cable"}
        answer = IP(src=target, dst=a), TCP(sport=80, dport=4000, flags="SA", ack=1)
        assert lab.ports(lab.come(*answer)) == {"a"}


@both
def test_policies_judge_who_comes_by_the_cable(trunk: bool) -> None:
    rules = ["deny 10.10.10.128/25 443/tcp", "allow internet 443/tcp", "allow 2001:db8::/32 80/tcp"]
    lab = Lab(lan().policy("public", "vm:a", ingress=rules), trunk)
    a, a6 = lab.address("a"), lab.address("a", 6)
    assert lab.ports(lab.come(IP(src="10.10.10.100", dst=a), TCP(dport=443))) == {"a"}
    assert lab.come(IP(src=PC, dst=a), TCP(dport=443)).drop is DropReason.POLICY
    assert lab.come(IP(src=FAR, dst=a), TCP(dport=80)).drop is DropReason.POLICY
    assert lab.ports(lab.come(IPv6(src="2001:db8::1", dst=a6), TCP(dport=80))) == {"a"}
    assert lab.come(IPv6(src=PC6, dst=a6), TCP(dport=80)).drop is DropReason.POLICY


@both
def test_nobody_beyond_uses_what_is_the_fabrics_own(trunk: bool) -> None:
    lab = Lab(lan().policy("open", "any", ingress=["allow any"]), trunk)
    a, b, mac = lab.address("a"), lab.address("b"), text(lab.nics["b"].mac)
    tcp = TCP(dport=80)
    assert lab.come(IP(src=PC, dst=a), tcp, source=mac).drop is DropReason.SPOOF_MAC
    for source in (b, "127.0.0.1", "224.0.0.1", "0.0.0.0"):
        assert lab.come(IP(src=source, dst=a), tcp).drop is DropReason.SPOOF_IP, source
    assert lab.come(IPv6(src=lab.address("b", 6), dst=lab.address("a", 6)), tcp).drop is DropReason.SPOOF_IP
    for said in (ARP(op=2, hwsrc=ROUTER, psrc=b, pdst=a), ARP(op=1, hwsrc=mac, psrc=PC, pdst=a)):
        assert lab.come(said).drop is DropReason.SPOOF_ARP
    link, target = ICMPv6NDOptDstLLAddr(lladdr=ROUTER), lab.address("b", 6)
    claims = IPv6(src=PC6, dst="ff02::1"), ICMPv6ND_NA(tgt=target), link
    assert lab.come(*claims, to="33:33:00:00:00:01").drop is DropReason.SPOOF_ND
    asks = IPv6(src=PC6, dst="ff02::1"), ICMPv6ND_NS(tgt=PC6), ICMPv6NDOptSrcLLAddr(lladdr=mac)
    assert lab.come(*asks, to="33:33:00:00:00:01").drop is DropReason.SPOOF_ND
    advertised = IPv6(src="fe80::1", dst="ff02::1"), ICMPv6ND_RA()
    assert lab.come(*advertised, to="33:33:00:00:00:01").drop is DropReason.ROGUE_RA
    assert lab.come(IP(src=PC, dst=a), UDP(sport=67, dport=1000)).drop is DropReason.ROGUE_DHCP


def test_an_address_of_another_network_comes_by_the_cable_of_that_network_only() -> None:
    lab = Lab(lan().policy("open", "any", ingress=["allow any"]), trunk=True)
    a, c = lab.address("a"), lab.address("c")
    assert lab.come(IP(src="10.10.20.200", dst=a), TCP(dport=80)).drop is DropReason.SPOOF_IP
    there = IP(src="10.10.20.200", dst=c), TCP(dport=80)
    assert lab.ports(lab.come(*there, to=text(lab.nics["c"].mac), tag=20)) == {"c"}
    assert lab.come(*there, to=text(lab.nics["c"].mac)).drop is DropReason.SPOOF_IP
    assert lab.come(*there, tag=30).drop is DropReason.VLAN_NOT_ALLOWED


def test_an_access_cable_has_no_tags() -> None:
    lab = Lab(lan().policy("open", "any", ingress=["allow any"]), trunk=False)
    a = IP(src=PC, dst=lab.address("a"))
    assert lab.come(Dot1Q(vlan=10), a, TCP(dport=80)).drop is DropReason.VLAN_NOT_ALLOWED


@both
def test_what_comes_by_the_cable_never_goes_back_and_what_is_not_outside_does_not_leave(trunk: bool) -> None:
    lab = Lab(lan().policy("open", "any", ingress=["allow any"]), trunk)
    for to, target in ((ROUTER, FAR), (ROUTER, PC), (text(lab.nics["a"].mac), PC)):
        assert lab.come(IP(src="10.10.10.201", dst=target), TCP(dport=80), to=to).outputs == ()
    a, b, mac = lab.address("a"), lab.address("b"), text(lab.nics["b"].mac)
    for to, target in ((ROUTER, b), (mac, PC), (ROUTER, "10.10.20.11"), (ROUTER, "127.0.0.1")):
        outcome = lab.out("a", IP(src=a, dst=target), TCP(dport=80), to=to)
        assert outcome.drop is DropReason.NO_DST, (to, target)
    many = lab.out("a", IP(src=a, dst="224.0.0.251"), UDP(dport=5353), to="01:00:5e:00:00:fb")
    assert many.drop is DropReason.MULTICAST


@both
def test_arp_finds_who_is_on_either_side(trunk: bool) -> None:
    lab = Lab(lan(), trunk)
    a, mac = lab.address("a"), text(lab.nics["a"].mac)
    asks = ARP(op=1, hwsrc=mac, psrc=a, pdst=PC)
    assert lab.ports(lab.out("a", asks, to=ALL)) == {"cable"}
    answer = ARP(op=2, hwsrc=ROUTER, psrc=PC, hwdst=mac, pdst=a)
    assert lab.ports(lab.come(answer)) == {"a"}
    assert lab.ports(lab.come(ARP(op=1, hwsrc=ROUTER, psrc=PC, pdst=a), to=ALL)) == {"a"}
    assert lab.ports(lab.out("a", ARP(op=2, hwsrc=mac, psrc=a, hwdst=ROUTER, pdst=PC))) == {"cable"}
    assert lab.ports(lab.out("a", ARP(op=1, hwsrc=mac, psrc=a, pdst=lab.address("b")), to=ALL)) == {"b"}


@both
def test_neighbour_discovery_finds_who_is_on_either_side(trunk: bool) -> None:
    lab = Lab(lan(), trunk)
    a, mac = lab.address("a", 6), text(lab.nics["a"].mac)
    own, theirs = ICMPv6NDOptSrcLLAddr(lladdr=mac), ICMPv6NDOptDstLLAddr(lladdr=ROUTER)
    asks = IPv6(src=a, dst="ff02::1:ff00:200"), ICMPv6ND_NS(tgt=PC6), own
    assert lab.ports(lab.out("a", *asks, to="33:33:ff:00:02:00")) == {"cable"}
    assert lab.ports(lab.come(IPv6(src=PC6, dst=a), ICMPv6ND_NA(tgt=PC6), theirs)) == {"a"}
    asked = IPv6(src=PC6, dst="ff02::1:ff00:b"), ICMPv6ND_NS(tgt=a), ICMPv6NDOptSrcLLAddr(lladdr=ROUTER)
    assert lab.ports(lab.come(*asked, to="33:33:ff:00:00:0b")) == {"a"}
    answer = IPv6(src=a, dst=PC6), ICMPv6ND_NA(tgt=a), ICMPv6NDOptDstLLAddr(lladdr=mac)
    assert lab.ports(lab.out("a", *answer)) == {"cable"}


@both
def test_probes_and_announcements_reach_both_sides(trunk: bool) -> None:
    lab = Lab(lan(), trunk)
    a, mac = lab.address("a"), text(lab.nics["a"].mac)
    assert lab.ports(lab.out("a", ARP(op=1, hwsrc=mac, psrc="0.0.0.0", pdst=a), to=ALL)) == {"cable"}
    assert lab.ports(lab.out("a", ARP(op=1, hwsrc=mac, psrc=a, pdst=a), to=ALL)) == {"b", "cable"}
    for operation in (1, 2):
        told = ARP(op=operation, hwsrc=ROUTER, psrc=PC, pdst=PC)
        assert lab.ports(lab.come(told, to=ALL)) == {"a", "b"}
    moved = IPv6(src=PC6, dst="ff02::1"), ICMPv6ND_NA(tgt=PC6, S=0), ICMPv6NDOptDstLLAddr(lladdr=ROUTER)
    assert lab.ports(lab.come(*moved, to="33:33:00:00:00:01")) == {"a", "b"}
    double = IPv6(src="::", dst="ff02::1:ff00:b"), ICMPv6ND_NS(tgt=lab.address("a", 6))
    assert lab.ports(lab.out("a", *double, to="33:33:ff:00:00:0b")) == {"cable"}


@both
def test_on_an_isolated_network_the_cable_is_reached_by_all(trunk: bool) -> None:
    lab = Lab(lan(isolated=True).policy("open", "any", ingress=["allow any"]), trunk)
    a, b, mac = lab.address("a"), lab.address("b"), text(lab.nics["a"].mac)
    assert lab.ports(lab.out("a", IP(src=a, dst=PC), TCP(dport=80))) == {"cable"}
    assert lab.ports(lab.come(IP(src=PC, dst=a), TCP(dport=81))) == {"a"}
    assert lab.out("a", IP(src=a, dst=b), TCP(dport=80), to=text(lab.nics["b"].mac)).outputs == ()
    assert lab.ports(lab.out("a", ARP(op=1, hwsrc=mac, psrc=a, pdst=a), to=ALL)) == {"cable"}


@both
def test_the_gateway_of_the_network_is_for_its_own_nics(trunk: bool) -> None:
    builder = lan().router("gw", "lan", "back").policy("open", "any", ingress=["allow any"])
    lab = Lab(builder, trunk)
    gateway = text(gateway_mac("test"))
    through = lab.come(IP(src=PC, dst=lab.address("c")), TCP(dport=80), to=gateway)
    assert through.drop is DropReason.NO_ROUTE
    asks = ARP(op=1, hwsrc=ROUTER, psrc=PC, pdst="10.10.10.1")
    assert lab.come(asks, to=ALL).drop is DropReason.NO_ROUTE
    assert (
        lab.come(IP(src=PC, dst=lab.address("a")), TCP(dport=80), source=gateway).drop is DropReason.SPOOF_MAC
    )
    a, c = lab.address("a"), lab.address("c")
    assert lab.ports(lab.out("a", IP(src=a, dst=c), TCP(dport=80), to=gateway)) == {"c"}
    assert lab.ports(lab.out("a", IP(src=a, dst=PC), TCP(dport=80))) == {"cable"}
