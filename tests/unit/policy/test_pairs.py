"""Addresses that a profile allows a NIC besides its own: who may use them, and who gets what is for them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from ipaddress import IPv4Address

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet as Frame

from vnet.base.drop import DropReason
from vnet.openflow.flow import Flow
from vnet.openflow.table import PortState, SlowSwitch
from vnet.policy.compile import Compiler, compile
from vnet.policy.explain import explain, peer_named
from vnet.policy.guard import mac_text
from vnet.policy.pipeline import Stage
from vnet.policy.semantics import Packet, decide
from vnet.topology.inventory import expand
from vnet.topology.load import load_text
from vnet.topology.selectors import ANY_SERVICE

VIP, SHARED, NESTED = "10.0.0.100", "00:00:5e:00:01:07", "02:00:00:00:00:20"
LAB = """\
name: pairs
networks: {lan: {vlan: 10, subnets: [10.0.0.0/24, "fd00::/64"]}}
profiles:
  balancer:
    allowed_address_pairs:
      - {address: 10.0.0.100}
      - {address: "fd00::100"}
      - {address: 10.0.0.101, mac: "00:00:5e:00:01:07"}
      - {address: 10.0.0.0/30}
  node: {allowed_address_pairs: [{address: 10.0.0.120, mac: "02:00:00:00:00:20"}]}
vms:
  a: {interfaces: {eth0: {network: lan, profile: balancer}}}
  b: {interfaces: {eth0: {network: lan, profile: balancer}}}
  node: {interfaces: {eth0: {network: lan, profile: node}}}
  client: {networks: [lan]}
policies: [{name: open, applied_to: any, ingress: [{from: any}]}]
"""
TOPOLOGY = load_text(LAB, "pairs.vnet.yaml", {})
INVENTORY = expand(TOPOLOGY, {})
NICS = {nic.vm: nic for nic in INVENTORY.nics}


@cache
def flows() -> tuple[Flow, ...]:
    return compile(TOPOLOGY, INVENTORY).flows


def mac(vm: str) -> str:
    return mac_text(NICS[vm].mac)


def own(vm: str, version: int = 4) -> str:
    return next(str(each.ip) for each in NICS[vm].addresses if each.version == version)


def sends(vm: str, frame: Frame) -> tuple[set[str], DropReason | None]:
    """Who gets a frame, and why nobody does."""
    switch = SlowSwitch(flows(), {nic.port: PortState() for nic in INVENTORY.nics})
    outcome = switch.receive(NICS[vm].port, bytes(frame), 0.0)
    vms = {nic.port: vm for vm, nic in NICS.items()}
    return {vms[port] for port, _ in outcome.outputs}, outcome.drop


def asks(vm: str, address: str, source: str = "", by: str = "") -> Frame:
    sender = by or mac(vm)
    arp = ARP(op=1, hwsrc=sender, psrc=source or own(vm), pdst=address)
    return Ether(src=sender, dst="ff:ff:ff:ff:ff:ff") / arp


def says(vm: str, source: str, target: str, to: str, by: str = "") -> Frame:
    return Ether(src=by or mac(vm), dst=to) / IP(src=source, dst=target) / UDP(sport=40000, dport=53)


def test_a_request_for_a_shared_address_goes_to_all_who_may_have_it() -> None:
    assert sends("client", asks("client", VIP)) == ({"a", "b"}, None)
    assert sends("a", asks("a", VIP)) == ({"b"}, None), "who asks for it itself has it not"


def test_whoever_has_it_answers_and_announces_it() -> None:
    for vm in ("a", "b"):
        answer = Ether(src=mac(vm), dst=mac("client")) / ARP(
            op=2, hwsrc=mac(vm), psrc=VIP, hwdst=mac("client"), pdst=own("client")
        )
        assert sends(vm, answer) == ({"client"}, None)
        everybody = set(NICS) - {vm}
        assert sends(vm, asks(vm, VIP, VIP)) == (everybody, None)


def test_nobody_else_may() -> None:
    assert sends("client", asks("client", VIP, VIP)) == (set(), DropReason.SPOOF_ARP)
    assert sends("node", says("node", VIP, own("client"), mac("client"))) == (set(), DropReason.SPOOF_IP)
    solicitation = IPv6(src="fd00::100", dst="ff02::1:ff00:100") / ICMPv6ND_NS(tgt="fd00::100")
    frame = Ether(src=mac("client"), dst="33:33:ff:00:01:00") / solicitation
    assert sends("client", frame) == (set(), DropReason.SPOOF_ND)


def test_a_packet_for_it_goes_where_its_mac_says() -> None:
    for vm in ("a", "b"):
        assert sends("client", says("client", own("client"), VIP, mac(vm))) == ({vm}, None)
    assert sends("client", says("client", own("client"), VIP, mac("node"))) == (set(), DropReason.NO_DST)


def test_what_is_sent_from_it_is_judged_as_its_sender_s() -> None:
    assert sends("a", says("a", VIP, own("client"), mac("client"))) == ({"client"}, None)


def test_an_ipv6_address_is_asked_for_and_advertised() -> None:
    ask = IPv6(src=own("client", 6), dst="ff02::1:ff00:100") / ICMPv6ND_NS(tgt="fd00::100")
    ask /= ICMPv6NDOptSrcLLAddr(lladdr=mac("client"))
    assert sends("client", Ether(src=mac("client"), dst="33:33:ff:00:01:00") / ask) == ({"a", "b"}, None)
    for source in ("fd00::100", own("b", 6)):
        told = IPv6(src=source, dst="ff02::1") / ICMPv6ND_NA(tgt="fd00::100", R=0, S=0, O=1)
        told /= ICMPv6NDOptDstLLAddr(lladdr=mac("b"))
        frame = Ether(src=mac("b"), dst="33:33:00:00:00:01") / told
        assert sends("b", frame) == ({"a", "node", "client"}, None)
    lie = IPv6(src="fd00::100", dst="ff02::1") / ICMPv6ND_NA(tgt=own("client", 6), R=0)
    assert sends("b", Ether(src=mac("b"), dst="33:33:00:00:00:01") / lie) == (set(), DropReason.SPOOF_ND)


def test_the_mac_of_a_pair_goes_with_its_address_only() -> None:
    target = own("client"), mac("client")
    assert sends("node", says("node", "10.0.0.120", *target, by=NESTED)) == ({"client"}, None)
    assert sends("node", says("node", "10.0.0.120", *target)) == (set(), DropReason.SPOOF_IP)
    assert sends("node", says("node", own("node"), *target, by=NESTED)) == (set(), DropReason.SPOOF_IP)
    assert sends("client", says("client", own("client"), *target, by=NESTED)) == (set(), DropReason.SPOOF_MAC)
    lldp = Ether(src=NESTED, dst=mac("client"), type=0x88CC) / bytes(46)
    assert sends("node", lldp) == (set(), DropReason.ETHERTYPE)


def test_the_only_one_with_a_mac_is_reached_by_it() -> None:
    assert sends("client", says("client", own("client"), "10.0.0.120", NESTED)) == ({"node"}, None)
    assert sends("client", asks("client", "10.0.0.120")) == ({"node"}, None)
    answer = ARP(op=2, hwsrc=mac("client"), psrc=own("client"), hwdst=NESTED, pdst="10.0.0.120")
    assert sends("client", Ether(src=mac("client"), dst=NESTED) / answer) == ({"node"}, None)


def test_a_mac_that_several_may_use_is_sent_from_and_leads_nowhere() -> None:
    target = own("client"), mac("client")
    assert sends("a", says("a", "10.0.0.101", *target, by=SHARED)) == ({"client"}, None)
    assert sends("client", says("client", own("client"), "10.0.0.101", SHARED)) == (set(), DropReason.NO_DST)
    packet = Packet(
        "client.eth0", NICS["client"].addresses[0].ip, "a.eth0", IPv4Address("10.0.0.101"), 17, 40000, 53
    )
    assert decide(TOPOLOGY, INVENTORY, packet).reason is DropReason.NO_DST


def test_addresses_of_the_subnet_itself_are_in_no_range() -> None:
    network = says("a", "10.0.0.0", own("client"), mac("client"))
    assert sends("a", network) == (set(), DropReason.SPOOF_IP)
    assert sends("a", says("a", "10.0.0.1", own("client"), mac("client"))) == ({"client"}, None)


def test_no_nic_is_given_an_address_that_others_are_allowed() -> None:
    given = {str(each.ip) for nic in INVENTORY.nics for each in nic.addresses if each.version == 4}
    assert given == {"10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.7"}, "10.0.0.0/30 is allowed to a and b"


def test_a_guard_names_no_more_than_some_of_many_addresses() -> None:
    told = {origin.text for origin in compile(TOPOLOGY, INVENTORY).provenance.values()}
    assert f"node.eth0 may send only from its MAC {mac('node')} or {NESTED}" in told
    assert any(
        text.startswith(f"node.eth0 may send only from {own('node')}, ")
        and f"10.0.0.120 (MAC {NESTED})" in text
        for text in told
    )
    many = LAB.replace("10.0.0.0/30", "10.0.0.64/27")
    topology = load_text(many, "pairs.vnet.yaml", {})
    told = {origin.text for origin in compile(topology, expand(topology, {})).provenance.values()}
    assert any(text.startswith("a.eth0 may send only from") and " and 30 more" in text for text in told)


def test_explain_speaks_of_them_where_a_cidr_names_them() -> None:
    def told(target: str) -> set[str]:
        source, to = (peer_named(TOPOLOGY, INVENTORY, each) for each in ("client", target))
        return {str(each.packet.target) for each in explain(TOPOLOGY, INVENTORY, source, to, ANY_SERVICE)}

    assert told("a") == {str(each.ip) for each in NICS["a"].addresses}
    assert told("10.0.0.100/32") == {VIP}


def test_who_is_left_alone_with_a_shared_mac_is_reached_by_it_after_a_change_too() -> None:
    alone = replace(INVENTORY, vms=tuple(vm for vm in INVENTORY.vms if vm.name != "b"))
    compiler = Compiler(TOPOLOGY, INVENTORY)
    for inventory, reached in ((alone, True), (INVENTORY, False), (alone, True)):
        compiler.update(TOPOLOGY, inventory)
        flows = compiler.compiled.flows
        assert flows == compile(TOPOLOGY, inventory).flows
        destinations = (flow.match.get("eth_dst") for flow in flows if flow.table == Stage.DESTINATION)
        assert (int(SHARED.replace(":", ""), 16) in {to[0] for to in destinations if to}) is reached
