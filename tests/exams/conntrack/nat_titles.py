"""Titles about address translation."""

from __future__ import annotations

from itertools import count

from tests.exams.conntrack import sctp
from tests.exams.conntrack.frames import echo, ether, ip_of, is_sound, tcp, udp, unreachable
from tests.exams.conntrack.hosts import Host, until
from tests.exams.conntrack.switches import Lab

MAC = "80:88:88:88:88:88"
_source_port = count(41001)


def _answer_arp(addresses: str, mac: str) -> str:
    """A flow that answers for addresses nobody has, by turning the question into its answer."""
    return (
        f"table=0,priority=200,arp,arp_op=1,arp_tpa={addresses},actions="
        f"move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],set_field:{mac}->eth_src,set_field:2->arp_op,"
        f"move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[],set_field:{mac}->arp_sha,"
        "move:NXM_OF_ARP_TPA[]->NXM_NX_REG2[],move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[],"
        "move:NXM_NX_REG2[]->NXM_OF_ARP_SPA[],in_port"
    )


ARP = ("priority=10,arp,actions=normal", "priority=0,actions=drop")


def _pair(lab: Lab, mac_one: str | None = MAC, mac_two: str | None = None) -> tuple[Host, Host]:
    one, two = lab.hosts(2)
    one.configure("10.1.1.1/24", mac=mac_one)
    two.configure("10.1.1.2/24", mac=mac_two)
    return one, two


def _pair6(lab: Lab) -> tuple[Host, Host]:
    """The hosts know each other's MACs, also for fc00::240."""
    one, two = lab.hosts(2)
    one.configure("fc00::1/96", mac="80:88:88:88:88:77")
    two.configure("fc00::2/96", mac=MAC)
    for address in ("fc00::2", "fc00::3", "fc00::240"):
        one.neighbour(address, two.mac)
    for address in ("fc00::1", "fc00::240", "fc00::241"):
        two.neighbour(address, one.mac)
    return one, two


def _is_translated(lab: Lab, protocol: str, zone: str = " zone=1", ports: range | None = None) -> None:
    """All connections are from host 1 to host 2 and appear to be from 10.1.1.240…254."""
    found = lab.connections("10.1.1.2")
    assert found
    for connection in found:
        seen = connection.reply[1]
        assert seen in {f"10.1.1.{n}" for n in range(240, 255)}
        assert str(connection).startswith(f"{protocol} 10.1.1.1>10.1.1.2 10.1.1.2>{seen}{zone}")
        assert ports is None or connection.reply[3] in ports


def conntrack_simple_snat(lab: Lab) -> None:
    """conntrack - simple SNAT"""
    one, two = _pair(lab)
    lab.flows(
        *ARP,
        _answer_arp("10.1.1.240/28", MAC),
        "in_port=1,ip,actions=ct(commit,zone=1,nat(src=10.1.1.240-10.1.1.254)),2",
        "in_port=2,ct_state=-trk,ip,actions=ct(table=0,zone=1,nat)",
        "in_port=2,ct_state=+trk,ct_zone=1,ip,actions=1",
    )
    two.serve_http()
    assert one.get_http("10.1.1.2")
    _is_translated(lab, "tcp")


def conntrack_snat_with_ct_mark_change_on_reply(lab: Lab) -> None:
    """conntrack - SNAT with ct_mark change on reply"""
    one, two = _pair(lab, "e6:66:c1:11:11:11", "e6:66:c1:22:22:22")
    one.neighbour("10.1.1.2", two.mac)
    two.neighbour("10.1.1.240", one.mac)
    lab.flows(
        "priority=0,actions=drop",
        "in_port=1,ip,actions=ct(commit,zone=1,nat(src=10.1.1.240)),2",
        "in_port=2,ct_state=-trk,ip,actions=ct(table=0,zone=1,nat)",
        "in_port=2,ct_state=+trk,ct_zone=1,ip,actions=ct(table=1,commit,zone=1,exec(set_field:1->ct_mark)),1",
        "table=1,in_port=2,ct_mark=1,ct_state=+rpl,ct_zone=1,ip,actions=1",
    )
    assert one.ping("10.1.1.2", count=1).all_answered
    assert lab.shown() == ["icmp 10.1.1.1>10.1.1.2 10.1.1.2>10.1.1.240 zone=1 mark=1"]


def conntrack_snat_with_port_range(lab: Lab) -> None:
    """conntrack - SNAT with port range"""
    one, two = _pair(lab)
    lab.flows(
        *ARP,
        _answer_arp("10.1.1.240/28", MAC),
        "in_port=1,tcp,actions=ct(commit,zone=1,nat(src=10.1.1.240-10.1.1.254:34567-34568,random)),2",
        "in_port=2,ct_state=-trk,tcp,tp_dst=34567,actions=ct(table=0,zone=1,nat)",
        "in_port=2,ct_state=-trk,tcp,tp_dst=34568,actions=ct(table=0,zone=1,nat)",
        "in_port=2,ct_state=+trk,ct_zone=1,tcp,actions=1",
    )
    two.serve_http()
    assert one.get_http("10.1.1.2")
    _is_translated(lab, "tcp", ports=range(34567, 34569))


def conntrack_snat_with_port_range_using_icmp(lab: Lab) -> None:
    """conntrack - SNAT with port range using ICMP"""
    one, _ = _pair(lab)
    lab.flows(
        *ARP,
        _answer_arp("10.1.1.240/28", MAC),
        "in_port=1,ip,actions=ct(commit,zone=1,nat(src=10.1.1.240-10.1.1.254:20000)),2",
        "in_port=2,ct_state=-trk,ip,actions=ct(table=0,zone=1,nat)",
        "in_port=2,ct_state=+trk,ct_zone=1,actions=1",
    )
    assert one.ping("10.1.1.2", count=1).all_answered
    _is_translated(lab, "icmp")


def conntrack_snat_with_port_range_with_exhaustion(lab: Lab) -> None:
    """conntrack - SNAT with port range with exhaustion"""
    one, two = _pair(lab, MAC, "80:89:89:89:89:89")
    lab.flows(
        *ARP,
        _answer_arp("10.1.1.240/28", MAC),
        "in_port=1,tcp,actions=ct(commit,zone=1,nat(src=10.1.1.240:34568)),2",
        "in_port=2,ct_state=-trk,tcp,tp_dst=34568,actions=ct(table=0,zone=1,nat)",
        "in_port=2,ct_state=+trk,ct_zone=1,tcp,actions=1",
    )
    two.serve_http()
    # To another MAC than the server's, which so does not answer.
    one.send(tcp("S", source_port=123, destination_port=80, link=ether(one.mac, "80:89:89:89:89:00")))
    wanted = ["tcp 10.1.1.1>10.1.1.2 10.1.1.2>10.1.1.240 zone=1 123>80 80>34568"]
    until(lambda: lab.exactly("10.1.1.2") == wanted, "the connection that takes the only port")
    assert not one.get_http("10.1.1.2", expect=False)
    assert lab.exactly("10.1.1.2") == wanted


def conntrack_more_complex_snat(lab: Lab) -> None:
    """conntrack - more complex SNAT"""
    one, two = _pair(lab)
    lab.flows(
        *ARP,
        _answer_arp("10.1.1.240/28", MAC),
        "priority=100,ip,actions=ct(table=1,zone=1,nat)",
        "table=1,priority=100,in_port=1,ip,ct_state=+trk+new-est,"
        "actions=ct(commit,zone=1,nat(src=10.1.1.240-10.1.1.254)),2",
        "table=1,priority=100,in_port=1,ip,ct_state=+trk-new+est,actions=2",
        "table=1,priority=100,in_port=2,ip,ct_state=+trk-new+est,actions=1",
        "table=1,priority=0,actions=drop",
    )
    two.serve_http()
    assert one.get_http("10.1.1.2")
    _is_translated(lab, "tcp")


def conntrack_all_zero_ip_snat(lab: Lab) -> None:
    """conntrack - all-zero IP SNAT"""
    one, two = _pair(lab, None)
    one.ip("route add 172.1.1.0/24 via 10.1.1.2")
    two.serve_http()
    lab.flows(
        "table=0,priority=30,ct_state=-trk,ip,actions=ct(table=0)",
        "table=0,priority=20,ct_state=-rpl,ip,nw_dst=10.1.1.0/24,"
        "actions=ct(commit,nat(src=0.0.0.0),table=10)",
        "table=0,priority=20,ct_state=+rpl,ip,nw_dst=10.1.1.0/24,actions=resubmit(,10)",
        "table=0,priority=20,ip,nw_dst=172.1.1.2,actions=ct(commit,nat(dst=10.1.1.2),table=10)",
        "table=0,priority=10,arp,actions=normal",
        "table=0,priority=1,actions=drop",
        "table=10,priority=20,ct_state=+rpl,ip,nw_dst=10.1.1.0/24,actions=ct(table=20,nat)",
        "table=10,priority=10,ip,nw_dst=10.1.1.0/24,actions=resubmit(,20)",
        "table=20,priority=10,ip,nw_dst=10.1.1.1,actions=1",
        "table=20,priority=10,ip,nw_dst=10.1.1.2,actions=2",
    )
    same = "tcp 10.1.1.1>10.1.1.2 10.1.1.2>10.1.1.1"
    # Not translated while the reply is unique …
    assert one.get_http("10.1.1.2", source_port=30000)
    assert lab.exactly("10.1.1.1") == [f"{same} 30000>80 80>30000"]
    # … but with another port when another connection looks the same from the server.
    assert one.get_http("172.1.1.2", source_port=30001)
    assert one.get_http("10.1.1.2", source_port=30001)
    found = [c for c in lab.connections("10.1.1.1") if c.orig[2] == 30001]
    virtual, direct = sorted(found, key=lambda c: c.orig[1] == "10.1.1.2")
    assert virtual.exactly == "tcp 10.1.1.1>172.1.1.2 10.1.1.2>10.1.1.1 30001>80 80>30001"
    assert str(direct) == same
    assert direct.reply[3] != 30001


def _reach_both(lab: Lab, one: Host, two: Host) -> None:
    two.serve_http()
    assert one.get_http("10.1.1.64")
    assert lab.shown("10.1.1.64") == ["tcp 10.1.1.1>10.1.1.64 10.1.1.2>10.1.1.1 zone=1"]
    assert one.get_http("10.1.1.2")
    assert "tcp 10.1.1.1>10.1.1.2 10.1.1.2>10.1.1.1 zone=1" in lab.shown("10.1.1.2")


def conntrack_simple_dnat(lab: Lab) -> None:
    """conntrack - simple DNAT"""
    one, two = _pair(lab, None, MAC)
    lab.flows(
        *ARP,
        _answer_arp("10.1.1.64", MAC),
        "priority=100,in_port=1,ip,nw_dst=10.1.1.64,actions=ct(zone=1,nat(dst=10.1.1.2),commit),2",
        "priority=10,in_port=1,ip,actions=ct(commit,zone=1),2",
        "priority=100,in_port=2,ct_state=-trk,ip,actions=ct(table=0,nat,zone=1)",
        "priority=100,in_port=2,ct_state=+trk+est,ct_zone=1,ip,actions=1",
    )
    _reach_both(lab, one, two)


def conntrack_more_complex_dnat(lab: Lab) -> None:
    """conntrack - more complex DNAT"""
    one, two = _pair(lab, None, MAC)
    lab.flows(
        *ARP,
        _answer_arp("10.1.1.64", MAC),
        "priority=100,ip,actions=ct(table=1,zone=1,nat)",
        "table=1,priority=100,in_port=1,ct_state=+new,ip,nw_dst=10.1.1.64,"
        "actions=ct(zone=1,nat(dst=10.1.1.2),commit),2",
        "table=1,priority=10,in_port=1,ct_state=+new,ip,actions=ct(commit,zone=1),2",
        "table=1,priority=100,in_port=1,ct_state=+est,ct_zone=1,actions=2",
        "table=1,priority=100,in_port=2,ct_state=+est,ct_zone=1,actions=1",
        "table=1,priority=0,actions=drop",
    )
    _reach_both(lab, one, two)


def conntrack_dnat_with_additional_snat(lab: Lab) -> None:
    """conntrack - DNAT with additional SNAT"""
    one, two = _pair(lab, None)
    one.ip("route add 172.1.1.0/24 via 10.1.1.2")
    two.serve_http()
    lab.flows(
        "table=0,priority=30,in_port=1,ip,nw_dst=172.1.1.2,actions=ct(commit,nat(dst=10.1.1.2:80),table=1)",
        "table=0,priority=20,in_port=2,ip,actions=ct(nat),1",
        "table=0,priority=10,arp,actions=normal",
        "table=0,priority=1,actions=drop",
        # Of this second one everything but the translation must happen.
        "table=1,ip,actions=ct(commit,nat(src=10.1.1.240),"
        "exec(set_field:0xac->ct_mark,set_field:0xac->ct_label),table=2)",
        "table=2,in_port=1,ip,ct_mark=0xac,ct_label=0xac,actions=2",
    )
    assert one.get_http("172.1.1.2", 8080)
    assert lab.shown("10.1.1.240") == []
    assert lab.shown("10.1.1.1") == ["tcp 10.1.1.1>172.1.1.2 10.1.1.2>10.1.1.1 mark=172 label=0xac"]


def conntrack_icmp_related_with_nat(lab: Lab) -> None:
    """conntrack - ICMP related with NAT"""
    one, _ = _pair(lab)
    lab.flows(
        *ARP,
        _answer_arp("10.1.1.240/28", MAC),
        "in_port=1,udp,actions=ct(commit,nat(src=10.1.1.240-10.1.1.254),exec(set_field:1->ct_mark)),2",
        "in_port=2,icmp,ct_state=-trk,actions=ct(table=0,nat)",
        "in_port=2,icmp,nw_dst=10.1.1.1,ct_state=+trk+rel,ct_mark=1,actions=1",
    )
    with one.capture() as arrived:
        assert one.is_refused_udp("10.1.1.2", 10000)
        error = arrived.wait(_is_icmp)
        assert is_sound(error)
        assert b"\x0a\x01\x01\x01\x0a\x01\x01\x02" in error, "the quoted packet is as it was sent"
    lab.await_counted("in_port=2,icmp,nw_dst=10.1.1.1,ct_state=+trk+rel,ct_mark=1", 1)
    _is_translated(lab, "udp", zone=" mark=1")


def _is_icmp(frame: bytes) -> bool:
    return frame[12:14] == b"\x08\x00" and frame[23] == 1


def conntrack_icmp_related_with_snat(lab: Lab) -> None:
    """conntrack - ICMP related with SNAT"""
    one, _ = _pair(lab)
    lab.flows(
        *ARP,
        _answer_arp("10.1.1.240/28", MAC),
        "ct_state=-trk,ip,actions=ct(table=0)",
        "ct_state=+trk,ip,in_port=1,actions=ct(commit,nat(src=10.1.1.254)),2",
        "ct_state=+rel+trk,icmp,in_port=2,nw_dst=10.1.1.254,actions=ct(commit,table=1,nat)",
        "table=1,in_port=2,ct_state=+rel+trk,icmp,nw_src=10.1.1.2,nw_dst=10.1.1.1,actions=1",
        "table=1,in_port=2,ct_state=+rel+trk,icmp,nw_dst=10.1.1.254,actions=goto_table:2",
        "table=1,priority=0,actions=drop",
        "table=2,priority=0,actions=drop",
    )
    with one.capture() as arrived:
        for number in (1, 2):
            assert one.is_refused_udp("10.1.1.2", 10000)
            lab.await_counted(
                "table=1,in_port=2,ct_state=+rel+trk,icmp,nw_src=10.1.1.2,nw_dst=10.1.1.1", number
            )
            assert lab.shown("10.1.1.2") == ["udp 10.1.1.1>10.1.1.2 10.1.1.2>10.1.1.254"]
            if number == 1:
                lab.flush()  # the same must happen for a connection made anew
        until(lambda: arrived.count(_is_icmp) == 2, "two errors")
        assert all(is_sound(frame) for frame in arrived.frames if _is_icmp(frame))
    assert lab.counted("table=1,in_port=2,ct_state=+rel+trk,icmp,nw_dst=10.1.1.254") == 0


def conntrack_icmp_related_nat_with_single_port(lab: Lab) -> None:
    """conntrack - ICMP related NAT with single port"""
    one, two = lab.hosts(2)
    _related_with_port(lab, one, two, ("10.1.1.1", "10.1.1.2", "10.1.1.240"), "ip", "udp", "10.1.1.2")


def conntrack_icmpv6_related_nat_with_single_port(lab: Lab) -> None:
    """conntrack - ICMPv6 related NAT with single port"""
    one, two = lab.hosts(2)
    _related_with_port(lab, one, two, ("fc00::1", "fc00::2", "fc00::240"), "ipv6", "udp6", "[fc00::2]")


def _related_with_port(
    lab: Lab, one: Host, two: Host, addresses: tuple[str, str, str], family: str, protocol: str, target: str
) -> None:
    client, server, virtual = addresses
    error = "icmp6" if family == "ipv6" else "icmp"
    lab.flows(
        f"table=0,{family},ct_state=-trk,actions=ct(table=0,nat)",
        f"table=0,in_port=1,ct_state=+trk+new,{protocol},actions=ct(commit,nat(dst={target}:8080)),2",
        f"table=0,in_port=2,ct_state=+trk+rel+rpl,{error},actions=1",
    )
    data = b"dest_unreach\n"
    with one.capture() as at_one, two.capture() as at_two:
        request = udp(client, virtual, 1234, 80, data)
        one.send(request)
        there = at_two.wait(lambda frame: ip_of(frame) == (client, server))
        assert there == udp(client, server, 1234, 8080, data)
        two.send(unreachable(server, client, there))
        back = at_one.wait(lambda frame: ip_of(frame) == (virtual, client))
    assert back == unreachable(virtual, client, request)
    assert lab.exactly(client) == [f"udp {client}>{virtual} {server}>{client} 1234>80 8080>1234"]


def conntrack_ipv6_icmp6_related_with_snat(lab: Lab) -> None:
    """conntrack - IPv6 ICMP6 Related with SNAT"""
    one, _ = _pair6(lab)
    lab.flows(
        "priority=100,in_port=1,ipv6,actions=ct(nat(src=fc00::240),commit),2",
        "priority=100,in_port=2,ct_state=-trk,ipv6,actions=ct(table=0,nat)",
        "priority=100,in_port=2,ct_state=+trk+est,ipv6,actions=1",
        "priority=100,in_port=2,ct_state=+trk+rel,ipv6,actions=1",
    )
    assert one.ping("fc00::2", count=1).all_answered
    lab.flush()
    with one.capture() as arrived:
        assert one.is_refused_udp("fc00::2", 1)
        error = arrived.wait(lambda frame: ip_of(frame) == ("fc00::2", "fc00::1"))
        assert is_sound(error)
    assert lab.shown() == ["udp fc00::1>fc00::2 fc00::2>fc00::240"]


def conntrack_ipv6_http_with_snat(lab: Lab) -> None:
    """conntrack - IPv6 HTTP with SNAT"""
    one, two = _pair6(lab)
    lab.flows(
        "priority=1,actions=drop",
        "priority=10,icmp6,actions=normal",
        "priority=100,in_port=1,ipv6,actions=ct(commit,nat(src=fc00::240-fc00::241)),2",
        "priority=100,in_port=2,ct_state=-trk,ipv6,actions=ct(nat,table=0)",
        "priority=100,in_port=2,ct_state=+trk+est,ipv6,actions=1",
    )
    assert one.ping("fc00::2", count=1).all_answered
    two.serve_http(six=True)
    assert one.get_http("fc00::2")
    (connection,) = [found for found in lab.connections("fc00::2") if found.protocol == "tcp"]
    assert connection.reply[1] in ("fc00::240", "fc00::241")
    one.serve_http(six=True)
    assert not two.get_http("fc00::1", expect=False)


def conntrack_ipv6_http_with_dnat(lab: Lab) -> None:
    """conntrack - IPv6 HTTP with DNAT"""
    one, two = _pair6(lab)
    lab.flows(
        "priority=100,in_port=1,ipv6,ipv6_dst=fc00::240,actions=ct(zone=1,nat(dst=fc00::2),commit),2",
        "priority=100,in_port=2,ct_state=-trk,ipv6,actions=ct(table=0,nat,zone=1)",
        "priority=100,in_port=2,ct_state=+trk+est,ct_zone=1,ipv6,actions=1",
    )
    assert one.ping("fc00::240").all_answered
    two.serve_http(six=True)
    assert one.get_http("fc00::240")
    assert lab.shown("fc00::1") == [
        f"{protocol} fc00::1>fc00::240 fc00::2>fc00::1 zone=1" for protocol in ("icmpv6", "tcp")
    ]


def conntrack_snat_with_icmp_id(lab: Lab) -> None:
    """conntrack - SNAT with icmp_id"""
    one = lab.hosts(1)[0]
    lab.flows(
        "table=0,ct_state=-trk,ip,in_port=1,actions=ct(table=1,nat)",
        "table=0,ct_state=-trk,ip,in_port=2,actions=ct(table=1,nat)",
        "table=1,ct_state=+trk+new,ip,in_port=1,actions=ct(commit,nat(src=10.0.0.201)),2",
        "table=1,ct_state=+trk+est,ip,in_port=1,actions=2",
        "table=1,ct_state=+trk+est,ip,in_port=2,actions=1",
    )
    # Three clients with the same identifier: seen from the server they must differ.
    for client in ("10.0.0.1", "10.0.0.3", "10.0.0.4"):
        one.send(echo(client, "10.0.0.2", 500))
    lab.await_counted("table=1,ct_state=+trk+new,ip,in_port=1", 3)
    found = lab.connections("10.0.0.2")
    assert sorted(str(connection) for connection in found) == [
        f"icmp {client}>10.0.0.2 10.0.0.2>10.0.0.201" for client in ("10.0.0.1", "10.0.0.3", "10.0.0.4")
    ]
    assert {connection.orig[2] for connection in found} == {500}
    assert len({connection.reply[2] for connection in found}) == 3


def conntrack_sctp_snat_with_port_range(lab: Lab) -> None:
    """conntrack - SCTP SNAT with port range"""
    one, two = lab.hosts(2)
    lab.flows(
        "table=0,priority=100,in_port=1,sctp,actions=ct(commit,zone=1,nat(src=10.1.1.240:34567)),2",
        "table=0,priority=100,in_port=2,ct_state=-trk,sctp,tp_dst=34567,actions=ct(table=1,zone=1,nat)",
        "table=0,priority=0,actions=drop",
        "table=1,priority=100,in_port=2,ct_state=+trk+rpl,ct_zone=1,sctp,actions=1",
        "table=1,priority=0,actions=drop",
    )
    there = [(sctp.INIT, 0), (sctp.COOKIE_ECHO, 7), (sctp.DATA, 7), (sctp.ABORT, 7)]
    back = [(sctp.INIT_ACK, 8), (sctp.COOKIE_ACK, 8), (sctp.SACK, 8)]
    with one.capture() as at_one, two.capture() as at_two:
        for step, (chunk, tag) in enumerate(there):
            one.send(sctp.sctp("10.1.1.1", "10.1.1.2", 54969, 12345, chunk, tag))
            wanted = sctp.sctp("10.1.1.240", "10.1.1.2", 34567, 12345, chunk, tag)
            at_two.wait(lambda frame, wanted=wanted: frame == wanted)  # type: ignore[misc]
            if step < len(back):
                chunk, tag = back[step]
                two.send(sctp.sctp("10.1.1.2", "10.1.1.240", 12345, 34567, chunk, tag))
                wanted = sctp.sctp("10.1.1.2", "10.1.1.1", 12345, 54969, chunk, tag)
                at_one.wait(lambda frame, wanted=wanted: frame == wanted)  # type: ignore[misc]
    assert lab.exactly() == ["sctp 10.1.1.1>10.1.1.2 10.1.1.2>10.1.1.240 zone=1 54969>12345 12345>34567"]


def _balanced(lab: Lab, clients: int) -> list[Host]:
    hosts = lab.hosts(5 if clients == 2 else 4)
    for host in hosts:
        host.configure(f"10.1.1.{host.number}/24", mac=f"80:88:88:88:88:{host.number}{host.number}")
    buckets = ",".join(
        f"bucket=weight:100,actions=ct(nat(dst=10.1.1.{number}),commit,table=4)" for number in (2, 3, 4)
    )
    lab.groups(f"group_id=234,type=select,{buckets}")
    lab.flows(
        _answer_arp("10.1.1.64", MAC),
        "table=0,priority=10,arp,actions=normal",
        "table=0,priority=0,actions=drop",
        "table=0,priority=100,ip,nw_dst=10.1.1.64,actions=group:234",
        "table=0,priority=90,ip,actions=ct(table=4,nat)",
        *(
            f"table=4,ip,nw_dst=10.1.1.{host.number},actions=set_field:{host.mac}->eth_dst,{host.number}"
            for host in hosts
        ),
        "table=4,priority=0,actions=drop",
    )
    for server in hosts[1:4]:
        server.serve_http()
    return hosts


def conntrack_dnat_load_balancing(lab: Lab) -> None:
    """conntrack - DNAT load balancing"""
    client = _balanced(lab, 1)[0]
    for number in range(50):
        assert client.get_http("10.1.1.64"), f"request {number}"
    assert lab.shown("10.1.1.64") == [
        f"tcp 10.1.1.1>10.1.1.64 10.1.1.{server}>10.1.1.1" for server in (2, 3, 4)
    ]


def conntrack_dnat_load_balancing_with_nc(lab: Lab) -> None:
    """conntrack - DNAT load balancing with NC"""
    hosts = _balanced(lab, 2)
    # Clients that use the same source ports at the same time are told apart.
    for _ in range(9):
        port = next(_source_port)
        for client in (hosts[0], hosts[4]):
            assert client.get_http("10.1.1.64", source_port=port), f"{client.number} from port {port}"


def _with_gateway(lab: Lab) -> tuple[Host, Host]:
    one, two = lab.hosts(2)
    one.configure("10.1.1.1/24", mac="f0:00:00:01:01:01")
    two.configure("10.1.1.2/24", mac="f0:00:00:01:01:02")
    one.neighbour("10.1.1.2", two.mac)
    two.neighbour("10.1.1.1", one.mac)
    for host in (one, two):
        host.neighbour("10.1.1.254", "f0:00:00:01:01:fe")
        host.ip("route add default via 10.1.1.254")
    return one, two


def _have_ended(lab: Lab, client: str) -> bool:
    """Whether there is a connection of a client and its end was seen in both directions."""
    found = [c for c in lab.connections() if c.orig[:2] == (client, "10.1.1.1")]
    return bool(found) and all(c.state in ("TIME_WAIT", "CLOSING", "CLOSED", "CLOSE") for c in found)


def conntrack_floating_ip(lab: Lab) -> None:
    """conntrack - floating IP"""
    one, two = _with_gateway(lab)
    one.serve_tcp_sink(1234)
    lab.flows(
        "table=0,priority=10,ip,actions=ct(table=1)",
        "table=0,priority=1,actions=drop",
        "table=1,priority=20,ip,ct_state=+trk+est,nw_dst=10.254.254.0/24,actions=goto_table:10",
        "table=1,priority=20,ip,ct_state=+trk+new,nw_dst=10.254.254.0/24,actions=ct(commit,table=10)",
        "table=1,priority=10,ip,ct_state=+trk+est,actions=goto_table:20",
        "table=1,priority=10,ip,ct_state=+trk+new,actions=ct(commit,table=20)",
        "table=1,priority=1,ip,ct_state=+trk+inv,actions=drop",
        "table=10,ip,nw_dst=10.254.254.1,actions=set_field:10.1.1.1->nw_dst,goto_table:11",
        "table=10,ip,nw_dst=10.254.254.2,actions=set_field:10.1.1.2->nw_dst,goto_table:11",
        "table=11,ip,nw_src=10.1.1.1,actions=set_field:10.254.254.1->nw_src,goto_table:12",
        "table=11,ip,nw_src=10.1.1.2,actions=set_field:10.254.254.2->nw_src,goto_table:12",
        # The addresses have been changed: another connection, to be looked up afresh.
        "table=12,priority=10,ip,actions=ct_clear,ct(table=13)",
        "table=12,priority=1,actions=drop",
        "table=13,ip,ct_state=+trk+est,actions=goto_table:20",
        "table=13,ip,ct_state=+trk+new,actions=ct(commit,table=20)",
        "table=13,ip,ct_state=+trk+inv,actions=drop",
        "table=20,ip,nw_src=10.1.1.1,actions=set_field:f0:00:00:01:01:01->eth_src,goto_table:21",
        "table=20,ip,nw_src=10.1.1.2,actions=set_field:f0:00:00:01:01:02->eth_src,goto_table:21",
        "table=20,ip,nw_src=10.254.254.0/24,actions=set_field:f0:00:00:01:01:fe->eth_src,goto_table:21",
        "table=21,ip,nw_dst=10.1.1.1,actions=set_field:f0:00:00:01:01:01->eth_dst,1",
        "table=21,ip,nw_dst=10.1.1.2,actions=set_field:f0:00:00:01:01:02->eth_dst,2",
    )
    assert two.say_tcp("10.1.1.1", 1234, b"foobar\n")
    until(lambda: _have_ended(lab, "10.1.1.2"), "the end of the direct connection")
    assert two.say_tcp("10.254.254.1", 1234, b"foobar\n")
    # If ct_clear were ignored the second would have been committed but never seen to end.
    until(lambda: _have_ended(lab, "10.254.254.2"), "the end of the floating connection")


def conntrack_negative_test_for_recirculation_optimization(lab: Lab) -> None:
    """conntrack - negative test for recirculation optimization"""
    one, two = _with_gateway(lab)
    one.serve_tcp_sink(1234)
    lab.flows(
        "table=0,priority=10,ip,actions=ct(table=1)",
        "table=1,priority=20,ip,ct_state=+trk+est,nw_dst=10.254.254.0/24,actions=goto_table:2",
        "table=1,priority=20,ip,ct_state=+trk+new,nw_dst=10.254.254.0/24,"
        "actions=ct(commit,exec(set_field:1->ct_mark),table=2)",
        "table=2,ip,nw_dst=10.254.254.1,actions=set_field:10.1.1.1->nw_dst,goto_table:3",
        "table=2,ip,nw_dst=10.254.254.2,actions=set_field:10.1.1.2->nw_dst,goto_table:3",
        "table=3,ip,nw_src=10.1.1.1,actions=set_field:10.254.254.1->nw_src,goto_table:4",
        "table=3,ip,nw_src=10.1.1.2,actions=set_field:10.254.254.2->nw_src,goto_table:4",
        "table=4,ip,nw_dst=10.1.1.1,actions=set_field:f0:00:00:01:01:01->eth_dst,goto_table:5",
        "table=4,ip,nw_dst=10.1.1.2,actions=set_field:f0:00:00:01:01:02->eth_dst,goto_table:5",
        "table=5,ip,nw_src=10.254.254.0/24,actions=set_field:f0:00:00:01:01:fe->eth_src,goto_table:6",
        # No ct_clear here: the tracker must not take the connection that it found before.
        "table=6,priority=10,ip,actions=ct(table=7)",
        "table=7,ip,ct_state=+trk+est,actions=goto_table:8",
        "table=7,ip,ct_mark=0x0,ct_state=+trk+new,actions=ct(commit,exec(set_field:2->ct_mark),table=8)",
        "table=8,ip,nw_dst=10.1.1.1,actions=1",
        "table=8,ip,nw_dst=10.1.1.2,actions=2",
    )
    assert two.say_tcp("10.254.254.1", 1234, b"foobar\n")
    assert lab.shown() == [
        "tcp 10.1.1.2>10.254.254.1 10.254.254.1>10.1.1.2 mark=1",
        "tcp 10.254.254.2>10.1.1.1 10.1.1.1>10.254.254.2 mark=2",
    ]


def conntrack_icmp_from_different_source_related_with_nat(lab: Lab) -> None:
    """conntrack - ICMP from different source related with NAT"""
    client, server = lab.hosts(2)
    lab.flows(
        "table=0,ip,actions=ct(table=1,zone=42,nat)",
        "table=1,priority=30,in_port=1,ip,ct_state=+trk+new,"
        "actions=ct(commit,table=2,zone=42,nat(dst=192.168.10.20))",
        "table=1,priority=30,icmp,ct_state=+trk+rel-rpl,actions=ct(commit,table=2,zone=42,nat)",
        "table=1,priority=20,ip,actions=resubmit(,2)",
        "table=2,in_port=1,ip,ct_state=+trk+new,actions=2",
        "table=2,in_port=1,icmp,ct_state=+trk+rel,actions=2",
        "table=2,in_port=2,icmp,ct_state=+trk+rel,actions=1",
        "table=2,in_port=2,ip,ct_state=+trk+rpl,actions=1",
    )
    me, virtual, real, router = "192.168.20.10", "192.168.20.20", "192.168.10.20", "192.168.20.1"
    line = f"udp {me}>{virtual} {real}>{me} zone=42"
    request = udp(me, virtual)
    with client.capture() as at_client, server.capture() as at_server:
        client.send(request)
        at_server.wait(lambda frame: frame == udp(me, real))
        answer = udp(real, me, 2, 1)
        server.send(answer)
        at_client.wait(lambda frame: frame == udp(virtual, me, 2, 1))
        # A router on the client's side about the answer, which it knows by the virtual address.
        client.send(unreachable(router, virtual, udp(virtual, me, 2, 1), code=4))
        there = at_server.wait(lambda frame: ip_of(frame) == (router, real))
        assert there == unreachable(router, real, answer, code=4)
        assert lab.shown() == [line]
        lab.flush(zone=42)
        client.send(request)
        until(lambda: lab.shown() == [line], "the connection anew")
        # A router on the server's side about the request: it must appear to be the virtual address.
        server.send(unreachable(router, me, udp(me, real), code=4))
        back = at_client.wait(lambda frame: _is_icmp(frame))
        assert back == unreachable(ip_of(back)[0], me, request, code=4)
        assert ip_of(back)[0] in (router, virtual)
    assert lab.shown() == [line]
