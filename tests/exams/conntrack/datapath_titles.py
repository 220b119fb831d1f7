"""Titles about forwarding: VLANs, IPv6, later fragments, MPLS, IGMP, changed flows."""

from __future__ import annotations

import os

from scapy.layers.inet import IP, UDP, IPOption_Router_Alert, fragment
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IPv6, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import Ether

from tests.exams.conntrack.frames import echo, ether, ip_of, is_sound
from tests.exams.conntrack.hosts import ANSWER_S, Host, until
from tests.exams.conntrack.switches import Lab

IGMP_REPORT = bytes.fromhex("2200f9020000000104000000e00000fb")
"""A membership report for 224.0.0.251 (RFC 3376)."""
SIZES = (56, 1600, 3200)
V6_CHAIN = ("fc00:1::1/96", "fc00:1::2/96")


def _pair(lab: Lab, one: str, two: str) -> tuple[Host, Host]:
    first, second = lab.hosts(2)
    first.configure(one)
    second.configure(two)
    return first, second


def _ping_sizes(host: Host, address: str) -> None:
    for size in SIZES:
        assert host.ping(address, size).all_answered, f"{size} bytes to {address}"


def datapath_ping_between_two_ports(lab: Lab) -> None:
    """datapath - ping between two ports"""
    one, _ = _pair(lab, "10.1.1.1/24", "10.1.1.2/24")
    lab.flows("actions=normal")
    _ping_sizes(one, "10.1.1.2")


def datapath_http_between_two_ports(lab: Lab) -> None:
    """datapath - http between two ports"""
    one, two = _pair(lab, "10.1.1.1/24", "10.1.1.2/24")
    lab.flows("actions=normal")
    two.serve_http()
    assert one.get_http("10.1.1.2")


def _tag(one: Host, two: Host, addresses: tuple[str, str]) -> None:
    for host, address in zip((one, two), addresses, strict=True):
        host.vlan(100, address)


def _tag_twice(one: Host, two: Host, service: tuple[str, str], customer: tuple[str, str]) -> None:
    for host, outer, inner in zip((one, two), service, customer, strict=True):
        host.vlan(0, outer, service=4094)
        host.vlan(100, inner, service=4094)


def datapath_ping_between_two_ports_on_vlan(lab: Lab) -> None:
    """datapath - ping between two ports on vlan"""
    one, two = _pair(lab, "10.1.1.1/24", "10.1.1.2/24")
    _tag(one, two, ("10.2.2.1/24", "10.2.2.2/24"))
    lab.flows("actions=normal")
    _ping_sizes(one, "10.2.2.2")


def datapath_ping_between_two_ports_on_cvlan(lab: Lab) -> None:
    """datapath - ping between two ports on cvlan"""
    one, two = _pair(lab, "10.1.1.1/24", "10.1.1.2/24")
    _tag_twice(one, two, ("10.255.2.1/24", "10.255.2.2/24"), ("10.2.2.1/24", "10.2.2.2/24"))
    lab.flows("actions=normal")
    _ping_sizes(one, "10.2.2.2")


def datapath_ping6_between_two_ports(lab: Lab) -> None:
    """datapath - ping6 between two ports"""
    one, _ = _pair(lab, "fc00::1/96", "fc00::2/96")
    lab.flows("actions=normal")
    _ping_sizes(one, "fc00::2")


def datapath_ping6_between_two_ports_on_vlan(lab: Lab) -> None:
    """datapath - ping6 between two ports on vlan"""
    one, two = _pair(lab, "fc00::1/96", "fc00::2/96")
    _tag(one, two, V6_CHAIN)
    lab.flows("actions=normal")
    _ping_sizes(one, "fc00:1::2")


def datapath_ping6_between_two_ports_on_cvlan(lab: Lab) -> None:
    """datapath - ping6 between two ports on cvlan"""
    one, two = _pair(lab, "fc00::1/96", "fc00::2/96")
    _tag_twice(one, two, ("fc00:ffff::1/96", "fc00:ffff::2/96"), V6_CHAIN)
    lab.flows("actions=normal")
    _ping_sizes(one, "fc00:1::2")


def datapath_ping6_between_two_ports_ipv6_later_fragments(lab: Lab) -> None:
    """datapath - ping6 between two ports IPv6 later fragments"""
    one, _ = _pair(lab, "fc00::1/96", "fc00::2/96")
    # Open vSwitch's public test reads its datapath's flows for this: a later fragment is protocol 44.
    lab.flows(
        "priority=1,actions=normal",
        "priority=2,tcp6,actions=drop",
        "priority=3,ipv6,nw_proto=44,in_port=1,actions=normal",
    )
    _ping_sizes(one, "fc00::2")
    lab.await_counted("ipv6,nw_proto=44,in_port=1", 3 * 1 + 3 * 2)


def datapath_ping6_between_two_ports_with_header_modify(lab: Lab) -> None:
    """datapath - ping6 between two ports with header modify"""
    one, two = _pair(lab, "fc00::1/96", "fc00::2/96")
    one.ip(f"neigh replace fc00::3 lladdr {two.mac} dev eth0")
    lab.flows("priority=1,actions=normal")
    assert one.ping("fc00::2", count=1).all_answered
    lab.flows(
        "priority=100,in_port=1,ipv6,ipv6_src=fc00::1,ipv6_dst=fc00::3,actions=set_field:fc00::2->ipv6_dst,2",
        "priority=100,in_port=2,ipv6,ipv6_src=fc00::2,ipv6_dst=fc00::1,actions=set_field:fc00::3->ipv6_src,1",
    )
    _ping_sizes(one, "fc00::3")


def _mpls_chain(lab: Lab, push: str, pop: str) -> None:
    one = lab.hosts(1)[0]
    far, _ = lab.chain()
    one.configure("10.1.1.1/24")
    far.configure("10.1.1.2/24")
    for bridge in (0, 1):
        lab.flows(
            f"table=0,priority=100,ip,actions={push},goto_table:1",
            f"table=0,priority=100,mpls,actions={pop},goto_table:1",
            "table=0,priority=10,actions=goto_table:1",
            "table=1,actions=normal",
            bridge=bridge,
        )
    _labels_were_used(lab, one, far)


def _labels_were_used(lab: Lab, one: Host, far: Host) -> None:
    assert one.ping("10.1.1.2").all_answered
    assert far.ping("10.1.1.1").all_answered
    for bridge in (0, 1):
        assert lab.counted("table=0,mpls", bridge) >= 6, "packets crossed with a label"


def datapath_mpls_actions(lab: Lab) -> None:
    """datapath - mpls actions"""
    _mpls_chain(lab, "push_mpls:0x8847,set_field:4->mpls_label", "pop_mpls:0x0800")


def datapath_multiple_mpls_label_pop(lab: Lab) -> None:
    """datapath - multiple mpls label pop"""
    one = lab.hosts(1)[0]
    far, _ = lab.chain()
    one.configure("10.1.1.1/24")
    far.configure("10.1.1.2/24")
    labels = "".join(f"push_mpls:0x8847,set_field:{label}->mpls_label," for label in (4, 5, 6))
    for bridge in (0, 1):
        lab.flows(
            f"table=0,priority=100,ip,actions={labels}resubmit(,3)",
            "table=0,priority=100,mpls,mpls_label=6,actions=pop_mpls:0x8847,resubmit(,1)",
            "table=1,priority=100,mpls,mpls_label=5,actions=pop_mpls:0x8847,resubmit(,2)",
            "table=2,priority=100,mpls,mpls_label=4,actions=pop_mpls:0x0800,resubmit(,3)",
            "table=0,priority=10,actions=resubmit(,3)",
            "table=3,actions=normal",
            bridge=bridge,
        )
    _labels_were_used(lab, one, far)


def datapath_simulated_flow_action_update(lab: Lab) -> None:
    """datapath - simulated flow action update"""
    one, two, three = lab.hosts(3)
    one.configure("10.1.1.1/24")
    two.configure("10.1.1.2/24")
    with three.capture() as copies:
        lab.flows("in_port=1,actions=2,3", "in_port=2,actions=1,3")
        assert one.ping("10.1.1.2").all_answered
        until(lambda: copies.count(_is_ping) == 6, "a copy of each of six packets")
        lab.change("in_port=1,actions=2")
        lab.change("in_port=2,actions=1")
        assert one.ping("10.1.1.2").all_answered
        lab.change("in_port=1,actions=2,3")
        lab.change("in_port=2,actions=1,3")
        assert one.ping("10.1.1.2").all_answered
        until(lambda: copies.count(_is_ping) >= 12, "a copy of each of six more packets")
        assert copies.count(_is_ping) == 12, "none while the flows made no copies"


def _is_ping(frame: bytes) -> bool:
    return set(ip_of(frame)) == {"10.1.1.1", "10.1.1.2"}


def datapath_netdev_offload_software_fallback(lab: Lab) -> None:
    """datapath - netdev offload software fallback"""
    one, two = _pair(lab, "10.1.1.1/24", "10.1.1.2/24")
    two.checksum_in_software()  # only one side; on Open vSwitch both are so already
    lab.flows("actions=normal")
    assert one.ping("10.1.1.2", 3200).all_answered
    assert two.ping("10.1.1.1", 3200).all_answered
    data = os.urandom(60000)
    for client, server, address in ((one, two, "10.1.1.2"), (two, one, "10.1.1.1")):
        sink = server.serve_tcp_sink(1234)
        assert client.say_tcp(address, 1234, data)
        until(lambda sink=sink: bytes(sink.received) == data, "the data, whole")  # type: ignore[misc]


def datapath_neighbor_discovery_with_loose_match(lab: Lab) -> None:
    """datapath - Neighbor Discovery with loose match"""
    one, two = lab.hosts(2)
    lab.flows(
        "table=0,priority=95,icmp6,icmp_type=136,nd_target=2001::1:0:9,actions=goto_table:10",
        "table=0,priority=95,icmp6,icmp_type=136,nd_target=2001::1:0:392,actions=goto_table:10",
        "table=0,priority=65,actions=goto_table:20",
        "table=10,actions=normal",
        "table=20,priority=1,ipv6,ipv6_src=fe80::1,actions=drop",
        "table=20,priority=0,actions=drop",  # what the hosts' kernels say of their own accord
    )

    def advertisement(target: str) -> bytes:
        return bytes(
            ether(one.mac, two.mac)
            / IPv6(src="fe80::1", dst="fe80::2", hlim=255)
            / ICMPv6ND_NA(tgt=target)
            / ICMPv6NDOptDstLLAddr(lladdr=one.mac)
        )

    with two.capture() as arrived:
        for target, wanted in (("3000::1", 0), ("2001::1:0:392", 1), ("2001::1:0:392", 2), ("3000::1", 2)):
            one.send(advertisement(target))
            if target == "3000::1":
                lab.await_counted("table=20,ipv6,ipv6_src=fe80::1", 1 if wanted == 0 else 2)
            until(lambda wanted=wanted: arrived.count(_is_neighbour) == wanted, "advertisements")  # type: ignore[misc]


def _is_neighbour(frame: bytes) -> bool:
    return ip_of(frame) == ("fe80::1", "fe80::2")


def datapath_mod_nw_src_set_field_on_ip_fragments(lab: Lab) -> None:
    """datapath - mod_nw_src/set_field on IP fragments"""
    one, two = lab.hosts(2)
    lab.flows(
        "in_port=1,ip,nw_src=10.1.1.1,actions=set_field:11.1.1.1->nw_src,2",
        "in_port=1,ipv6,ipv6_src=fc00::1,actions=set_field:fc00::100->ipv6_src,2",
    )
    body = UDP(sport=3012, dport=2180) / bytes(range(40))
    # As the sender would have made them with the new address: bytes must come out the same.
    sent = [
        bytes(ether() / part) for part in fragment(IP(src="10.1.1.1", dst="10.1.1.2", id=1) / body, 24)
    ] + [bytes(ether() / part) for part in _fragments6("fc00::1", body)]
    wanted = [
        bytes(ether() / part) for part in fragment(IP(src="11.1.1.1", dst="10.1.1.2", id=1) / body, 24)
    ] + [bytes(ether() / part) for part in _fragments6("fc00::100", body)]
    with two.capture() as arrived:
        for _ in range(5):
            one.send(*sent)
        until(lambda: arrived.count() == 5 * len(wanted), "all fragments")
        assert sorted(set(arrived.frames)) == sorted(wanted)


def _fragments6(source: str, body: UDP) -> list[IPv6]:
    whole = IPv6(bytes(IPv6(src=source, dst="fc00::2") / IPv6ExtHdrFragment(id=7) / body))
    return list(fragment6(whole, 80))


def igmp_flood_under_normal_action(lab: Lab) -> None:
    """IGMP - flood under normal action"""
    one, two, three = lab.hosts(3)
    lab.flows("actions=normal")
    report = bytes(_igmp("01:00:5e:01:01:03", one))
    with two.capture() as at_two, three.capture() as at_three:
        one.send(report)
        for arrived in (at_two, at_three):
            assert arrived.wait(lambda frame: frame == report)


def _igmp(destination: str, host: Host) -> Ether:
    header = IP(
        src="211.73.73.101", dst="235.74.224.0", ttl=64, tos=0xC0, proto=2, options=[IPOption_Router_Alert()]
    )
    return ether(host.mac, destination) / header / IGMP_REPORT


def igmp_forward_with_icmp(lab: Lab) -> None:
    """IGMP - forward with ICMP"""
    one, two = lab.hosts(2)
    lab.flows(
        "table=0,arp,actions=normal",
        "table=0,ip,in_port=1,actions=ct(table=1,zone=64000)",
        "table=0,in_port=2,actions=1",
        "table=1,priority=20,ip,ct_state=+trk+inv,actions=drop",
        "table=1,priority=20,ip,in_port=1,icmp,ct_state=+trk+new,actions=2",
        "table=1,priority=10,in_port=1,ip,ct_state=+trk+new,actions=controller",
        "table=1,priority=20,in_port=1,ip,ct_state=+trk+est,actions=2",
    )
    with lab.controller() as controller, two.capture() as arrived:
        one.send(bytes(_igmp(two.mac, one)))
        ping = echo()
        one.send(ping)
        assert arrived.wait(lambda frame: frame == ping, ANSWER_S)
        (packet,) = controller.wait(1)
        assert "nw_proto=2" in packet or "igmp" in packet.lower(), packet
        assert is_sound(ping)


def _customer_chain(lab: Lab, ethertype: str) -> None:
    left, right = lab.chain()
    for host, plain, tagged in (
        (left, "10.1.1.1/24", "10.2.2.1/24"),
        (right, "10.1.1.2/24", "10.2.2.2/24"),
    ):
        host.configure(plain)
        host.ip(f"link set {host.vlan(100, tagged)} mtu 1492")
    lab.flows(
        "priority=1,actions=drop",
        f"priority=100,in_port=11,actions=push_vlan:{ethertype},mod_vlan_vid:4094,12",
        f"priority=100,in_port=12,actions=push_vlan:{ethertype},mod_vlan_vid:4094,11",
    )
    for bridge in (1, 2):
        lab.flows(
            "priority=1,actions=normal",
            "priority=100,in_port=1,vlan_tci=0x1000/0x1000,actions=pop_vlan,normal",
            bridge=bridge,
        )
    for size in (56, 1600):
        assert left.ping("10.2.2.2", size).all_answered, size
    assert lab.counted("in_port=11") >= 3 + 3 * 2
    assert lab.counted("in_port=1", bridge=2) >= 3 + 3 * 2, "the outer tag was there and was taken off"


def vlan_802_1ad_push_pop_outer_802_1ad(lab: Lab) -> None:
    """802.1ad - push/pop outer 802.1ad"""
    _customer_chain(lab, "0x88a8")


def vlan_802_1ad_push_pop_outer_802_1q(lab: Lab) -> None:
    """802.1ad - push/pop outer 802.1q"""
    _customer_chain(lab, "0x8100")


def vlan_802_1ad_double_vlan_match(lab: Lab) -> None:
    """802.1ad - double vlan match"""
    one, two = _pair(lab, "10.1.1.1/24", "10.1.1.2/24")
    _tag_twice(one, two, ("10.255.2.1/24", "10.255.2.2/24"), ("10.2.2.1/24", "10.2.2.2/24"))
    lab.flows(
        "table=0,priority=1,actions=drop",
        "table=0,priority=100,dl_vlan=4094,actions=pop_vlan,goto_table:1",
        "table=1,priority=100,dl_vlan=100,actions=push_vlan:0x88a8,mod_vlan_vid:4094,normal",
    )
    for size in (56, 1600):
        assert one.ping("10.2.2.2", size).all_answered, size
    assert lab.counted("table=1,dl_vlan=100") > 0, "both tags were seen"
