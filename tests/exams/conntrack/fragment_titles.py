"""Titles about fragments through the connection tracker."""

from __future__ import annotations

from collections.abc import Iterable

from scapy.layers.inet6 import RouterAlert
from scapy.packet import Packet

from tests.exams.conntrack.frames import MAC_1, fragments, hop_by_hop, moved_back
from tests.exams.conntrack.hosts import Host
from tests.exams.conntrack.switches import Lab

V4_FLOWS = (
    "priority=1,actions=drop",
    "priority=10,arp,actions=normal",
    "priority=100,in_port=1,icmp,actions=ct(commit,zone=9),2",
    "priority=100,in_port=2,ct_state=-trk,icmp,actions=ct(table=0,zone=9)",
    "priority=100,in_port=2,ct_state=+trk+est-new,icmp,actions=1",
)
V6_FLOWS = (
    "priority=1,actions=drop",
    "priority=10,in_port=1,ipv6,actions=ct(commit,zone=9),2",
    "priority=10,in_port=2,ct_state=-trk,ipv6,actions=ct(table=0,zone=9)",
    "priority=10,in_port=2,ct_state=+trk+est-new,ipv6,actions=1",
    "priority=100,icmp6,icmp_type=135,actions=normal",
    "priority=100,icmp6,icmp_type=136,actions=normal",
)
V4_LINE = "udp 10.1.1.1>10.1.1.2 10.1.1.2>10.1.1.1"
V6_LINE = "udp fc00::1>fc00::2 fc00::2>fc00::1"


def _pair(lab: Lab, one: str, two: str) -> tuple[Host, Host]:
    first, second = lab.hosts(2)
    first.configure(one)
    second.configure(two)
    return first, second


def _ping_fragmented(host: Host, *addresses: str) -> None:
    for address in addresses:
        for size in (1600, 3200):
            assert host.ping(address, size).all_answered, f"{size} bytes to {address}"


def conntrack_ipv4_fragmentation(lab: Lab) -> None:
    """conntrack - IPv4 fragmentation"""
    one, _ = _pair(lab, "10.1.1.1/24", "10.1.1.2/24")
    lab.flows(*V4_FLOWS)
    _ping_fragmented(one, "10.1.1.2")
    assert lab.shown(zone=9) == ["icmp 10.1.1.1>10.1.1.2 10.1.1.2>10.1.1.1 zone=9"]


def conntrack_ipv6_fragmentation(lab: Lab) -> None:
    """conntrack - IPv6 fragmentation"""
    one, _ = _pair(lab, "fc00::1/96", "fc00::2/96")
    lab.flows(*V6_FLOWS)
    _ping_fragmented(one, "fc00::2")
    assert lab.shown(zone=9) == ["icmpv6 fc00::1>fc00::2 fc00::2>fc00::1 zone=9"]


def conntrack_ipv4_fragmentation_with_ct_orig_match(lab: Lab) -> None:
    """conntrack - IPv4 fragmentation with ct orig match"""
    one, _ = _pair(lab, "10.1.1.1/24", "10.1.1.2/24")
    mine = "priority=100,in_port=1,ip"
    lab.flows(
        "priority=1,actions=drop",
        "priority=10,arp,actions=normal",
        "priority=100,ip,ct_state=-trk,actions=ct(table=0)",
        "priority=100,in_port=2,icmp,ct_state=+rpl,actions=1",
        f"{mine},ct_nw_proto=17,ct_tp_src=1,ct_tp_dst=2,ct_state=+new+trk,actions=ct(commit)",
        f"{mine},ct_nw_proto=1,ct_tp_src=8,ct_tp_dst=0,ct_state=+new+trk,actions=ct(commit),2",
    )
    one.send(*fragments())
    lab.await_counted("in_port=1,ip,ct_nw_proto=17,ct_tp_src=1,ct_tp_dst=2,ct_state=+new+trk", 2)
    assert one.ping("10.1.1.2", 1600, count=1).all_answered
    assert lab.shown() == ["icmp 10.1.1.1>10.1.1.2 10.1.1.2>10.1.1.1", V4_LINE]


def conntrack_ipv6_fragmentation_with_ct_orig_match(lab: Lab) -> None:
    """conntrack - IPv6 fragmentation with ct orig match"""
    one, _ = _pair(lab, "fc00::1/96", "fc00::2/96")
    mine = "priority=10,in_port=1,ipv6"
    lab.flows(
        "priority=1,actions=drop",
        "priority=10,ipv6,ct_state=-trk,actions=ct(table=0)",
        "priority=10,in_port=2,ipv6,ct_nw_proto=58,ct_tp_src=128,ct_state=+trk+est+rpl,actions=1",
        f"{mine},ct_nw_proto=17,ct_tp_src=1,ct_tp_dst=2,ct_state=+new+trk,actions=ct(commit)",
        f"{mine},ct_nw_proto=58,ct_tp_src=128,ct_tp_dst=0,ct_state=+new+trk,actions=ct(commit),2",
        "priority=100,icmp6,icmp_type=135,actions=normal",
        "priority=100,icmp6,icmp_type=136,actions=normal",
    )
    one.send(*fragments("fc00::1", "fc00::2"))
    lab.await_counted("in_port=1,ipv6,ct_nw_proto=17,ct_tp_src=1,ct_tp_dst=2,ct_state=+new+trk", 2)
    assert one.ping("fc00::2", 1600, count=1).all_answered
    assert lab.shown() == ["icmpv6 fc00::1>fc00::2 fc00::2>fc00::1", V6_LINE]


def conntrack_ipv4_fragmentation_expiry(lab: Lab) -> None:
    """conntrack - IPv4 fragmentation expiry"""
    one, _ = _pair(lab, "10.1.1.1/24", "10.1.1.2/24")
    # The later fragment never comes to the tracker, so the first waits there until it expires.
    lab.flows(
        "priority=1,actions=drop",
        "priority=10,arp,actions=normal",
        "priority=100,in_port=1,icmp,ip_frag=no,actions=ct(commit,zone=9),2",
        "priority=100,in_port=1,icmp,ip_frag=first,actions=ct(commit,zone=9),2",
        *V4_FLOWS[3:],
    )
    assert one.ping("10.1.1.2", 1600, expect=False).none_answered
    assert lab.shown() == []
    assert one.ping("10.1.1.2").all_answered


def conntrack_ipv6_fragmentation_expiry(lab: Lab) -> None:
    """conntrack - IPv6 fragmentation expiry"""
    one, _ = _pair(lab, "fc00::1/96", "fc00::2/96")
    lab.flows(
        "priority=1,actions=drop",
        "priority=10,in_port=1,ipv6,ip_frag=first,actions=ct(commit,zone=9),2",
        "priority=10,in_port=1,ipv6,ip_frag=no,actions=ct(commit,zone=9),2",
        *V6_FLOWS[2:],
    )
    assert one.ping("fc00::2").all_answered
    lab.flush()
    assert one.ping("fc00::2", 1600, expect=False).none_answered
    assert lab.shown() == []


def conntrack_ipv4_fragmentation_plus_vlan(lab: Lab) -> None:
    """conntrack - IPv4 fragmentation + vlan"""
    one, two = _pair(lab, "10.1.1.1/24", "10.1.1.2/24")
    one.vlan(100, "10.2.2.1/24")
    two.vlan(100, "10.2.2.2/24")
    lab.flows(*V4_FLOWS)
    _ping_fragmented(one, "10.2.2.2")
    assert lab.shown(zone=9) == ["icmp 10.2.2.1>10.2.2.2 10.2.2.2>10.2.2.1 zone=9"]


def conntrack_ipv6_fragmentation_plus_vlan(lab: Lab) -> None:
    """conntrack - IPv6 fragmentation + vlan"""
    one, two = _pair(lab, "fc00::1/96", "fc00::2/96")
    one.vlan(100, "fc00:1::3/96")
    two.vlan(100, "fc00:1::4/96")
    lab.flows(*V6_FLOWS)
    _ping_fragmented(one, "fc00:1::4")
    assert lab.shown(zone=9) == ["icmpv6 fc00:1::3>fc00:1::4 fc00:1::4>fc00:1::3 zone=9"]


def conntrack_ipv4_fragmentation_plus_cvlan(lab: Lab) -> None:
    """conntrack - IPv4 fragmentation + cvlan"""
    one, two = _pair(lab, "10.1.1.1/24", "10.1.1.2/24")
    for host, outer, inner in ((one, "10.255.2.1/24", "10.2.2.1/24"), (two, "10.255.2.2/24", "10.2.2.2/24")):
        host.vlan(0, outer, service=4094)
        host.vlan(100, inner, service=4094)
    lab.flows(*V4_FLOWS)
    _ping_fragmented(one, "10.2.2.2", "10.255.2.2")
    assert len(lab.shown(zone=9)) == 2


def conntrack_ipv6_fragmentation_plus_cvlan(lab: Lab) -> None:
    """conntrack - IPv6 fragmentation + cvlan"""
    one, two = _pair(lab, "fc00::1/96", "fc00::2/96")
    for host, outer, inner in (
        (one, "fc00:ffff::3/96", "fc00:1::3/96"),
        (two, "fc00:ffff::4/96", "fc00:1::4/96"),
    ):
        host.vlan(0, outer, service=4094)
        host.vlan(100, inner, service=4094)
    lab.flows(*V6_FLOWS)
    _ping_fragmented(one, "fc00:1::4", "fc00:ffff::4")
    assert len(lab.shown(zone=9)) == 2


def _commit(lab: Lab, frames: Iterable[bytes]) -> list[str]:
    """Send frames through a commit in zone 1: what connections there are when all have been through."""
    one = lab.hosts(1)[0]
    lab.flows(
        f"priority=10,in_port=1,dl_src={MAC_1},ip,actions=ct(commit,zone=1)",
        f"priority=10,in_port=1,dl_src={MAC_1},ipv6,actions=ct(commit,zone=1)",
    )
    sent = list(frames)
    one.send(*sent)
    family = "ip" if sent[0][12:14] == b"\x08\x00" else "ipv6"
    lab.await_counted(f"in_port=1,dl_src={MAC_1},{family}", len(sent))
    return lab.shown(zone=1)


def _swapped(frames: list[bytes]) -> list[bytes]:
    return frames[::-1]


def _overlapping(frames: list[bytes]) -> list[bytes]:
    return [frames[0], moved_back(frames[1])]


def _v4() -> list[bytes]:
    return fragments()


def _v6(extensions: Packet | None = None) -> list[bytes]:
    return fragments("fc00::1", "fc00::2", extensions=extensions)


def conntrack_ipv4_fragmentation_incomplete_reassembled_packet(lab: Lab) -> None:
    """conntrack - IPv4 fragmentation incomplete reassembled packet"""
    assert _commit(lab, _v4()[:1]) == []


def conntrack_ipv4_fragmentation_with_fragments_specified(lab: Lab) -> None:
    """conntrack - IPv4 fragmentation with fragments specified"""
    assert _commit(lab, _v4()) == [f"{V4_LINE} zone=1"]


def conntrack_ipv4_fragmentation_out_of_order(lab: Lab) -> None:
    """conntrack - IPv4 fragmentation out of order"""
    assert _commit(lab, _swapped(_v4())) == [f"{V4_LINE} zone=1"]


def conntrack_ipv4_fragmentation_overlapping_fragments_by_1_octet(lab: Lab) -> None:
    """conntrack - IPv4 fragmentation overlapping fragments by 1 octet"""
    assert _commit(lab, _overlapping(_v4())) == []


def conntrack_ipv4_fragmentation_overlapping_fragments_by_1_octet_out_of_order(lab: Lab) -> None:
    """conntrack - IPv4 fragmentation overlapping fragments by 1 octet out of order"""
    assert _commit(lab, _swapped(_overlapping(_v4()))) == []


def conntrack_ipv6_fragmentation_incomplete_reassembled_packet(lab: Lab) -> None:
    """conntrack - IPv6 fragmentation incomplete reassembled packet"""
    assert _commit(lab, _v6()[:1]) == []


def conntrack_ipv6_fragmentation_with_fragments_specified(lab: Lab) -> None:
    """conntrack - IPv6 fragmentation with fragments specified"""
    assert _commit(lab, _v6()) == [f"{V6_LINE} zone=1"]


def conntrack_ipv6_fragmentation_out_of_order(lab: Lab) -> None:
    """conntrack - IPv6 fragmentation out of order"""
    assert _commit(lab, _swapped(_v6())) == [f"{V6_LINE} zone=1"]


def conntrack_ipv6_fragmentation_multiple_extension_headers(lab: Lab) -> None:
    """conntrack - IPv6 fragmentation, multiple extension headers"""
    assert _commit(lab, _v6(hop_by_hop())) == [f"{V6_LINE} zone=1"]


def conntrack_ipv6_fragmentation_multiple_extension_headers_plus_out_of_order(lab: Lab) -> None:
    """conntrack - IPv6 fragmentation, multiple extension headers + out of order"""
    assert _commit(lab, _swapped(_v6(hop_by_hop()))) == [f"{V6_LINE} zone=1"]


def conntrack_ipv6_fragmentation_multiple_extension_headers_2(lab: Lab) -> None:
    """conntrack - IPv6 fragmentation, multiple extension headers 2"""
    assert _commit(lab, _v6(hop_by_hop(RouterAlert(value=1)))) == [f"{V6_LINE} zone=1"]


def conntrack_ipv6_fragmentation_multiple_extension_headers_2_plus_out_of_order(lab: Lab) -> None:
    """conntrack - IPv6 fragmentation, multiple extension headers 2 + out of order"""
    assert _commit(lab, _swapped(_v6(hop_by_hop(RouterAlert(value=1))))) == [f"{V6_LINE} zone=1"]


def conntrack_ipv4_fragmentation_plus_nat(lab: Lab) -> None:
    """conntrack - IPv4 Fragmentation + NAT"""
    one, two = _pair(lab, "10.2.1.1/24", "10.2.1.2/24")
    two.ip("addr add 10.1.1.2/32 dev lo", "route add 10.1.1.0/24 via 10.2.1.1")
    one.ip("route add 10.1.1.0/24 via 10.2.1.2")
    lab.flows(
        "table=0,arp,actions=normal",
        "table=0,ct_state=-trk,ip,in_port=1,actions=ct(table=1,nat)",
        "table=0,ct_state=-trk,ip,in_port=2,actions=ct(table=1,nat)",
        "table=1,ct_state=+trk+new,ip,in_port=1,actions=ct(commit,nat(src=10.1.1.1)),2",
        "table=1,ct_state=+trk+est,ip,in_port=1,actions=2",
        "table=1,ct_state=+trk+est,ip,in_port=2,actions=1",
    )
    assert one.ping("10.1.1.2", 4500, count=1).all_answered
    assert lab.shown() == ["icmp 10.2.1.1>10.1.1.2 10.1.1.2>10.1.1.1"]
