"""Titles about connections: states, zones, marks, labels, ICMP errors, HTTP."""

from __future__ import annotations

from tests.exams.conntrack.frames import echo, ether, udp, unreachable
from tests.exams.conntrack.hosts import Host
from tests.exams.conntrack.switches import Lab, ct_state

BASE = ("priority=1,actions=drop", "priority=10,arp,actions=normal", "priority=10,icmp,actions=normal")


def _hosts(lab: Lab, count: int = 2) -> list[Host]:
    hosts = lab.hosts(count)
    for host in hosts:
        host.configure(f"10.1.1.{host.number}/24")
    return hosts


def _hosts6(lab: Lab) -> tuple[Host, Host]:
    one, two = lab.hosts(2)
    one.configure("fc00::1/96")
    two.configure("fc00::2/96")
    return one, two


def _tcp_line(one: int, two: int, extra: str = "") -> str:
    return f"tcp 10.1.1.{one}>10.1.1.{two} 10.1.1.{two}>10.1.1.{one}{extra}"


def conntrack_controller(lab: Lab) -> None:
    """conntrack - controller"""
    lab.flows(
        "priority=1,actions=drop",
        "priority=10,arp,actions=normal",
        "priority=100,in_port=1,udp,actions=ct(commit),controller",
        "priority=100,in_port=2,ct_state=-trk,udp,actions=ct(table=0)",
        "priority=100,in_port=2,ct_state=+trk+est,udp,actions=controller",
    )
    there, back = udp(), udp("10.1.1.2", "10.1.1.1", 2, 1)
    with lab.controller() as controller:
        lab.packet_out(2, "ct(table=0)", back)  # a reply nobody asked for
        lab.packet_out(1, "ct(commit),controller", there)
        lab.packet_out(2, "ct(table=0)", back)
        first, second = controller.wait(2)
    assert "tp_src=1,tp_dst=2" in first
    assert ct_state(second) == {"est", "rpl", "trk"}
    assert "tp_src=2,tp_dst=1" in second


def conntrack_force_commit(lab: Lab) -> None:
    """conntrack - force commit"""
    one, two = lab.hosts(2)
    lab.flows(
        "priority=1,actions=drop",
        "priority=10,arp,actions=normal",
        "priority=100,in_port=1,udp,actions=ct(force,commit),controller",
        "priority=100,in_port=2,ct_state=-trk,udp,actions=ct(table=0)",
        "priority=100,in_port=2,ct_state=+trk+est,udp,actions=ct(force,commit,table=1)",
        "table=1,in_port=2,ct_state=+trk,udp,actions=controller",
    )
    there, back = udp(), udp("10.1.1.2", "10.1.1.1", 2, 1)
    with lab.controller() as controller:
        two.send(back)
        lab.await_counted("in_port=2,ct_state=-trk,udp", 1)
        one.send(there)
        controller.wait(1)
        two.send(back)
        packets = controller.wait(2)
        assert ct_state(packets[1]) == {"new", "trk"}
        # The forced commit has turned the connection round.
        assert lab.exactly("10.1.1.1") == ["udp 10.1.1.2>10.1.1.1 10.1.1.1>10.1.1.2 2>1 1>2"]
        one.send(there)
        controller.wait(3)
        assert lab.exactly("10.1.1.1") == ["udp 10.1.1.1>10.1.1.2 10.1.1.2>10.1.1.1 1>2 2>1"]


def conntrack_ct_flush(lab: Lab) -> None:
    """conntrack - ct flush"""
    one, two = _hosts(lab)
    lab.flows(
        "priority=1,actions=drop",
        "priority=10,arp,actions=normal",
        "priority=100,in_port=1,ip,actions=ct(commit,exec(set_field:0xaa->ct_mark)),2",
        "priority=100,in_port=2,ip,actions=ct(zone=5,commit,exec(set_field:0xaa00000000->ct_label)),1",
    )
    forth = "udp 10.1.1.1>10.1.1.2 10.1.1.2>10.1.1.1 mark=170"
    back = "udp 10.1.1.2>10.1.1.1 10.1.1.1>10.1.1.2 zone=5 label=0xaa00000000"

    def make_both() -> None:
        one.send(udp())
        two.send(udp("10.1.1.2", "10.1.1.1", 2, 1))
        lab.await_shown(forth, back)

    make_both()
    lab.flush(ct_nw_src="10.1.1.1", ct_nw_dst="10.1.1.2", ct_nw_proto=17, ct_tp_src=1, ct_tp_dst=2)
    assert lab.shown() == [back]
    lab.flush(zone=5, ct_nw_src="10.1.1.2", ct_nw_dst="10.1.1.1", ct_nw_proto=17, ct_tp_src=2, ct_tp_dst=1)
    assert lab.shown() == []
    for partial in (
        {"ct_nw_proto": 17, "ct_tp_src": 1},
        {"ct_nw_proto": 17, "ct_tp_dst": 2},
        {"ct_nw_src": "10.1.1.1"},
        {"ct_nw_dst": "10.1.1.2"},
    ):
        make_both()
        lab.flush(**partial)
        assert lab.shown() == [back], partial
    make_both()
    lab.flush(zone=5)
    assert lab.shown() == [forth]
    make_both()
    lab.flush(zone=0)
    assert lab.shown() == [back]
    make_both()
    lab.flush()
    assert lab.shown() == []
    assert two.ping("10.1.1.1", count=1).all_answered
    request = "icmp 10.1.1.2>10.1.1.1 10.1.1.1>10.1.1.2 zone=5 label=0xaa00000000"
    (connection,) = [found for found in lab.connections(zone=5) if found.protocol == "icmp"]
    assert str(connection) == request
    lab.flush(
        zone=5, ct_nw_src="10.1.1.2", ct_nw_dst="10.1.1.1", ct_nw_proto=1,
        icmp_id=connection.orig[2], icmp_type=8, icmp_code=0,
    )  # fmt: skip
    assert request not in lab.shown()


def conntrack_ipv4_ping(lab: Lab) -> None:
    """conntrack - IPv4 ping"""
    one, two = _hosts(lab)
    lab.flows(
        "priority=1,actions=drop",
        "priority=10,arp,actions=normal",
        "priority=100,in_port=1,icmp,actions=ct(commit),2",
        "priority=100,in_port=2,icmp,ct_state=-trk,actions=ct(table=0)",
        "priority=100,in_port=2,icmp,ct_state=+trk+est,actions=1",
    )
    assert one.ping("10.1.1.2").all_answered
    assert lab.shown("10.1.1.2") == ["icmp 10.1.1.1>10.1.1.2 10.1.1.2>10.1.1.1"]
    lab.flush(ct_nw_src="10.1.1.1", ct_nw_dst="10.1.1.2")
    assert lab.shown("10.1.1.2") == []
    assert two.ping("10.1.1.1", expect=False).none_answered


def conntrack_ipv6_ping(lab: Lab) -> None:
    """conntrack - IPv6 ping"""
    one, two = _hosts6(lab)
    lab.flows(
        "table=0,priority=10,icmp6,icmp_type=128,actions=goto_table:1",
        "table=0,priority=10,icmp6,icmp_type=129,actions=goto_table:1",
        "table=0,priority=1,actions=normal",
        "table=1,priority=100,in_port=1,icmp6,actions=ct(commit),2",
        "table=1,priority=100,in_port=2,icmp6,ct_state=-trk,actions=ct(table=0)",
        "table=1,priority=100,in_port=2,icmp6,ct_state=+trk+est,actions=1",
        "table=1,priority=1,actions=drop",
    )
    assert two.ping("fc00::1", expect=False).none_answered
    assert one.ping("fc00::2").all_answered
    assert lab.shown("fc00::2") == ["icmpv6 fc00::1>fc00::2 fc00::2>fc00::1"]
    lab.flush(ct_ipv6_src="fc00::1", ct_ipv6_dst="fc00::2")
    assert lab.shown("fc00::2") == []


def _all_the_ways_pass(lab: Lab, load_0: str, load_1: str, is_0: str, is_1: str) -> None:
    one, two, three, four = _hosts(lab, 4)
    lab.flows(
        *BASE,
        "priority=100,in_port=1,tcp,ct_state=-trk,actions=ct(commit,table=0)",
        "priority=100,in_port=1,tcp,ct_state=+trk,actions=2",
        "priority=100,in_port=2,tcp,ct_state=-trk,actions=ct(table=0)",
        "priority=100,in_port=2,tcp,ct_state=+trk,actions=1",
        f"priority=100,in_port=3,tcp,ct_state=-trk,actions={load_0},ct(table=0)",
        f"priority=100,in_port=3,tcp,ct_state=+trk,{is_0},actions={load_1},ct(commit,table=0)",
        f"priority=100,in_port=3,tcp,ct_state=+trk,{is_1},actions=4",
        "priority=100,in_port=4,tcp,ct_state=-trk,actions=ct(commit,table=0)",
        "priority=100,in_port=4,tcp,ct_state=+trk,actions=3",
    )
    two.serve_http()
    four.serve_http()
    assert one.get_http("10.1.1.2")
    assert three.get_http("10.1.1.4")
    assert lab.counted(f"in_port=3,tcp,ct_state=+trk,{is_1}") > 0


def conntrack_preserve_registers(lab: Lab) -> None:
    """conntrack - preserve registers"""
    _all_the_ways_pass(lab, "load:0->NXM_NX_REG0[]", "load:1->NXM_NX_REG0[]", "reg0=0", "reg0=1")


def conntrack_commit_recirc(lab: Lab) -> None:
    """conntrack - commit, recirc"""
    _all_the_ways_pass(lab, "set_field:0->metadata", "set_field:1->metadata", "metadata=0", "metadata=1")


def conntrack_invalid(lab: Lab) -> None:
    """conntrack - invalid"""
    one, two, three, four = _hosts(lab, 4)
    lab.flows(
        *BASE,
        "priority=100,in_port=1,tcp,actions=ct(),2",
        "priority=100,in_port=2,ct_state=-trk,tcp,actions=ct(table=0)",
        "priority=100,in_port=2,ct_state=+trk+new,tcp,actions=1",
        "priority=100,in_port=3,tcp,actions=ct(),4",
        "priority=100,in_port=4,ct_state=-trk,tcp,actions=ct(table=0)",
        "priority=100,in_port=4,ct_state=+trk+inv,tcp,actions=3",
        "priority=100,in_port=4,ct_state=+trk+new,tcp,actions=3",
    )
    two.serve_http()
    four.serve_http()
    # The request was not committed, so the answer (SYN and ACK) belongs to nothing: it is invalid.
    assert not one.get_http("10.1.1.2", expect=False)
    assert three.get_http("10.1.1.4")


def _first_pair_passes(lab: Lab, one_way: str, two_way: str, back: str, check: str, seen: list[str]) -> None:
    """Hosts 1 and 2 reach each other; 3 and 4 do not, because what the flows look for is another."""
    one, two, three, four = _hosts(lab, 4)
    lab.flows(
        *BASE,
        f"priority=100,in_port=1,tcp,actions={one_way},2",
        f"priority=100,in_port=2,ct_state=-trk,tcp,actions={back}",
        f"priority=100,in_port=2,ct_state=+trk,{check},tcp,actions=1",
        f"priority=100,in_port=3,tcp,actions={two_way},4",
        f"priority=100,in_port=4,ct_state=-trk,tcp,actions={back}".replace("FIRST", "SECOND"),
        f"priority=100,in_port=4,ct_state=+trk,{check},tcp,actions=3",
    )
    two.serve_http()
    four.serve_http()
    assert one.get_http("10.1.1.2")
    assert lab.shown("10.1.1.2") == [_tcp_line(1, 2, seen[0])]
    assert not three.get_http("10.1.1.4", expect=False)
    assert lab.shown("10.1.1.4") == [_tcp_line(3, 4, seen[1])]


def conntrack_zones(lab: Lab) -> None:
    """conntrack - zones"""
    one, two, three, four = _hosts(lab, 4)
    lab.flows(
        *BASE,
        "priority=100,in_port=1,tcp,actions=ct(commit,zone=1),2",
        "priority=100,in_port=2,ct_state=-trk,tcp,actions=ct(table=0,zone=1)",
        "priority=100,in_port=2,ct_state=+trk,ct_zone=1,tcp,actions=1",
        "priority=100,in_port=3,tcp,actions=ct(commit,zone=2),4",
        "priority=100,in_port=4,ct_state=-trk,tcp,actions=ct(table=0,zone=2)",
        "priority=100,in_port=4,ct_state=+trk,ct_zone=1,tcp,actions=3",
    )
    two.serve_http()
    four.serve_http()
    assert one.get_http("10.1.1.2")
    assert lab.shown("10.1.1.2") == [_tcp_line(1, 2, " zone=1")]
    assert not three.get_http("10.1.1.4", expect=False)
    assert lab.shown("10.1.1.4") == [_tcp_line(3, 4, " zone=2")]


def conntrack_zones_from_field(lab: Lab) -> None:
    """conntrack - zones from field"""
    one, two, three, four = _hosts(lab, 4)
    field = "NXM_NX_REG0[0..15]"
    flows = []
    for source, target, zone in ((1, 2, 0x1001), (3, 4, 0x1002)):
        flows += [
            f"priority=100,in_port={source},tcp,actions=load:{zone}->{field},ct(commit,zone={field}),{target}",
            f"priority=100,in_port={target},ct_state=-trk,tcp,"
            f"actions=load:{zone}->{field},ct(table=0,zone={field})",
            f"priority=100,in_port={target},ct_state=+trk,ct_zone=0x1001,tcp,actions={source}",
        ]
    lab.flows(*BASE, *flows)
    two.serve_http()
    four.serve_http()
    assert one.get_http("10.1.1.2")
    assert lab.shown("10.1.1.2") == [_tcp_line(1, 2, " zone=4097")]
    assert not three.get_http("10.1.1.4", expect=False)
    assert lab.shown("10.1.1.4") == [_tcp_line(3, 4, " zone=4098")]


def conntrack_zones_from_other_field(lab: Lab) -> None:
    """conntrack - zones from other field"""
    one, two = _hosts(lab)
    lab.flows(
        *BASE,
        "priority=100,in_port=1,tcp,ct_state=-trk,actions=ct(zone=5,table=0)",
        "priority=100,in_port=1,tcp,ct_state=+trk,actions=ct(commit,zone=NXM_NX_CT_ZONE[]),2",
        "priority=100,in_port=2,ct_state=-trk,tcp,actions=ct(table=0,zone=5)",
        "priority=100,in_port=2,ct_state=+trk,ct_zone=5,tcp,actions=1",
    )
    two.serve_http()
    assert one.get_http("10.1.1.2")
    assert lab.shown("10.1.1.2") == [_tcp_line(1, 2, " zone=5")]
    # The zone must be read anew for each packet, not remembered with the decision.
    lab.change("priority=100,in_port=1,tcp,ct_state=-trk,actions=ct(zone=15,table=0)")
    assert one.get_http("10.1.1.2")
    assert lab.shown("10.1.1.2", zone=15) == [_tcp_line(1, 2, " zone=15")]


def conntrack_zones_from_other_field_more_tests(lab: Lab) -> None:
    """conntrack - zones from other field, more tests"""
    one, two = _hosts(lab)

    def first(zone: int) -> str:
        label = f"exec(load:0xffff{zone:04x}->NXM_NX_CT_LABEL[0..31])"
        return f"priority=100,in_port=1,tcp,ct_state=-trk,actions=ct(zone={zone},table=0,commit,{label})"

    lab.flows(
        *BASE,
        first(5),
        "priority=100,in_port=1,tcp,ct_state=+trk,actions=ct(commit,zone=NXM_NX_CT_LABEL[0..15]),2",
        "priority=100,in_port=2,ct_state=-trk,tcp,actions=ct(table=0,zone=5)",
        "priority=100,in_port=2,ct_state=+trk,ct_zone=5,tcp,actions=1",
    )
    two.serve_http()
    assert one.get_http("10.1.1.2")
    assert lab.shown("10.1.1.2") == [_tcp_line(1, 2, " zone=5 label=0xffff0005")]
    lab.change(first(15))
    assert one.get_http("10.1.1.2")
    assert lab.shown("10.1.1.2", zone=15) == [_tcp_line(1, 2, " zone=15 label=0xffff000f")]


def conntrack_multiple_bridges(lab: Lab) -> None:
    """conntrack - multiple bridges"""
    one = lab.hosts(1)[0]
    far, _ = lab.chain()
    one.configure("10.1.1.1/24")
    far.configure("10.1.1.2/24")
    lab.flows(
        *BASE,
        "priority=100,in_port=1,tcp,ct_state=-trk,actions=ct(commit,zone=1),11",
        "priority=100,in_port=11,tcp,ct_state=-trk,actions=ct(table=0,zone=1)",
        "priority=100,in_port=11,tcp,ct_state=+trk+est,ct_zone=1,actions=1",
    )
    lab.flows(
        *BASE,
        "priority=100,in_port=1,tcp,ct_state=-trk,actions=ct(table=0,zone=2)",
        "priority=100,in_port=1,tcp,ct_state=+trk+new,ct_zone=2,actions=ct(commit,zone=2),2",
        "priority=100,in_port=1,tcp,ct_state=+trk+est,ct_zone=2,actions=2",
        "priority=100,in_port=2,tcp,ct_state=-trk,actions=ct(table=0,zone=2)",
        "priority=100,in_port=2,tcp,ct_state=+trk+est,ct_zone=2,actions=ct(commit,zone=2),1",
        bridge=1,
    )
    far.serve_http()
    assert one.get_http("10.1.1.2")
    assert lab.counted("in_port=11,tcp,ct_state=+trk+est,ct_zone=1") > 0
    assert lab.counted("in_port=2,tcp,ct_state=+trk+est,ct_zone=2", bridge=1) > 0


def conntrack_multiple_zones(lab: Lab) -> None:
    """conntrack - multiple zones"""
    one, two = _hosts(lab)
    lab.flows(
        *BASE,
        "priority=100,in_port=1,tcp,actions=ct(commit,zone=1),ct(commit,zone=2),2",
        "priority=100,in_port=2,ct_state=-trk,tcp,actions=ct(table=0,zone=2)",
        "priority=100,in_port=2,ct_state=+trk,ct_zone=2,tcp,actions=1",
    )
    two.serve_http()
    for _ in range(2):
        assert one.get_http("10.1.1.2")
    assert lab.shown("10.1.1.2") == [_tcp_line(1, 2, " zone=1"), _tcp_line(1, 2, " zone=2")]


def conntrack_ct_mark(lab: Lab) -> None:
    """conntrack - ct_mark"""
    _first_pair_passes(
        lab,
        "ct(commit,exec(set_field:1->ct_mark))",
        "ct(commit,exec(set_field:2->ct_mark))",
        "ct(table=0)",
        "ct_mark=1",
        [" mark=1", " mark=2"],
    )


def conntrack_ct_mark_bit_fiddling(lab: Lab) -> None:
    """conntrack - ct_mark bit-fiddling"""
    one, two = _hosts(lab)
    lab.flows(
        *BASE,
        "priority=100,in_port=1,tcp,actions=ct(table=1)",
        "priority=100,in_port=2,ct_state=-trk,tcp,"
        "actions=ct(table=1,commit,exec(set_field:0x2/0x6->ct_mark))",
        "table=1,in_port=1,ct_state=+new,tcp,actions=ct(commit,exec(set_field:0x5/0x5->ct_mark)),2",
        "table=1,in_port=1,ct_state=-new,tcp,actions=2",
        "table=1,in_port=2,ct_state=+trk,ct_mark=3,tcp,actions=1",
    )
    two.serve_http()
    assert one.get_http("10.1.1.2")
    assert lab.shown("10.1.1.2") == [_tcp_line(1, 2, " mark=3")]


def conntrack_ct_mark_from_register(lab: Lab) -> None:
    """conntrack - ct_mark from register"""
    move = "ct(commit,exec(move:NXM_NX_REG0[0..31]->NXM_NX_CT_MARK[]))"
    _first_pair_passes(
        lab,
        f"load:1->NXM_NX_REG0[0..31],{move}",
        f"load:2->NXM_NX_REG0[0..31],{move}",
        "ct(table=0)",
        "ct_mark=1",
        [" mark=1", " mark=2"],
    )


def conntrack_ct_label(lab: Lab) -> None:
    """conntrack - ct_label"""
    _first_pair_passes(
        lab,
        "ct(commit,exec(set_field:0x0a000d000005000001->ct_label))",
        "ct(commit,exec(set_field:0x2->ct_label))",
        "ct(table=0)",
        "ct_label=0x0a000d000005000001",
        [" label=0xa000d000005000001", " label=0x2"],
    )


def conntrack_ct_label_bit_fiddling(lab: Lab) -> None:
    """conntrack - ct_label bit-fiddling"""
    one, two = _hosts(lab)
    lab.flows(
        *BASE,
        "priority=100,in_port=1,tcp,actions=ct(table=1)",
        "priority=100,in_port=2,ct_state=-trk,tcp,"
        "actions=ct(table=1,commit,exec(set_field:0x200000000/0x200000004->ct_label))",
        "table=1,in_port=1,tcp,ct_state=+new,actions=ct(commit,exec(set_field:0x5/0x5->ct_label)),2",
        "table=1,in_port=1,tcp,ct_state=-new,actions=2",
        "table=1,in_port=2,ct_state=+trk,ct_label=0x200000001,tcp,actions=1",
    )
    two.serve_http()
    assert one.get_http("10.1.1.2")
    assert lab.shown("10.1.1.2") == [_tcp_line(1, 2, " label=0x200000001")]


def conntrack_ct_metadata_multiple_zones(lab: Lab) -> None:
    """conntrack - ct metadata, multiple zones"""
    one, two = _hosts(lab)
    lab.flows(
        *BASE,
        "priority=100,in_port=1,tcp,actions=ct(zone=1,table=1)",
        "priority=100,in_port=2,ct_state=-trk,tcp,actions=ct(zone=1,table=1,commit,"
        "exec(set_field:0x200000000/0x200000004->ct_label,set_field:0x2/0x6->ct_mark))",
        "table=1,in_port=1,tcp,ct_state=+new,actions=ct(zone=1,commit,"
        "exec(set_field:0x5/0x5->ct_label,set_field:0x5/0x5->ct_mark)),ct(commit,zone=2),2",
        "table=1,in_port=1,tcp,ct_state=-new,actions=ct(zone=2),2",
        "table=1,in_port=2,tcp,actions=ct(zone=2),1",
    )
    two.serve_http()
    assert one.get_http("10.1.1.2")
    assert lab.shown("10.1.1.2") == [
        _tcp_line(1, 2, " zone=1 mark=3 label=0x200000001"),
        _tcp_line(1, 2, " zone=2"),
    ]


def conntrack_new_connections(lab: Lab) -> None:
    """conntrack - new connections"""
    one, two = _hosts(lab)
    lab.flows(
        "table=0,priority=1,actions=drop",
        "table=0,priority=10,arp,actions=normal",
        "table=0,priority=100,tcp,actions=ct(table=1)",
        "table=0,priority=100,udp,actions=ct(table=1)",
        "table=1,priority=100,in_port=1,tcp,ct_state=+trk+new,actions=ct(commit)",
        "table=1,priority=100,in_port=1,udp,ct_state=+trk+new,actions=ct(commit)",
        "table=1,priority=100,in_port=1,ct_state=+trk+est,actions=2",
        "table=1,priority=100,in_port=2,ct_state=+trk+est,actions=1",
    )
    two.serve_http()
    # The first packet is committed but not sent on, so its repetitions are new again: nothing arrives.
    assert not one.get_http("10.1.1.2", expect=False)
    for number in (1, 2, 3):
        one.send(udp())
        lab.await_counted("table=1,in_port=1,udp,ct_state=+trk+new", number)
    assert lab.counted("table=1,in_port=1,ct_state=+trk+est") == 0


def conntrack_generic_ip_protocol(lab: Lab) -> None:
    """conntrack - generic IP protocol"""
    from scapy.layers.inet import IP

    one = lab.hosts(1)[0]
    lab.flows(
        "table=0,priority=1,actions=drop",
        "table=0,priority=10,arp,actions=normal",
        "table=0,priority=100,ip,actions=ct(table=1)",
        "table=1,priority=100,in_port=1,ip,ct_state=+trk+new,actions=ct(commit)",
        "table=1,priority=100,in_port=1,ct_state=+trk+est,actions=normal",
    )
    vrrp = bytes.fromhex("2164010001") + bytes(15)
    header = IP(src="192.168.0.30", dst="224.0.0.18", proto=112, ttl=255, tos=0xC0)
    one.send(bytes(ether(one.mac, "01:00:5e:00:00:12") / header / vrrp))
    lab.await_shown("112 192.168.0.30>224.0.0.18 224.0.0.18>192.168.0.30")
    assert lab.connections()[0].orig[2:] == (0, 0)


def conntrack_icmp_related(lab: Lab) -> None:
    """conntrack - ICMP related"""
    one, _ = _hosts(lab)
    related = "priority=100,in_port=2,icmp,ct_state=+trk+rel,ct_mark=1"
    lab.flows(
        "priority=1,actions=drop",
        "priority=10,arp,actions=normal",
        "priority=100,in_port=1,udp,actions=ct(commit,exec(set_field:1->ct_mark)),2",
        "priority=100,in_port=2,icmp,ct_state=-trk,actions=ct(table=0)",
        f"{related},actions=1",
    )
    assert one.is_refused_udp("10.1.1.2", 10000)
    lab.await_counted("in_port=1,udp", 1)
    lab.await_counted("in_port=2,icmp,ct_state=-trk", 1)
    lab.await_counted("in_port=2,icmp,ct_state=+trk+rel,ct_mark=1", 1)


def conntrack_icmp_related_to_original_direction(lab: Lab) -> None:
    """conntrack - ICMP related to original direction"""
    one, two = lab.hosts(2)
    lab.flows(
        "priority=1000,arp,actions=normal",
        "priority=100,ip,actions=ct(table=1)",
        "priority=1,actions=drop",
        "table=1,ip,actions=ct(zone=34673,table=2)",
        "table=2,in_port=2,udp,actions=ct(commit,zone=34673),1",
        "table=2,in_port=1,udp,actions=ct(commit,zone=34673),2",
        "table=2,in_port=2,ct_state=+rel,icmp,actions=1",
    )
    left, right = "192.100.2.5", "192.100.1.8"
    answer = udp(left, right, 53, 53)
    two.send(udp(right, left, 53, 53))
    lab.await_counted("table=2,in_port=2,udp", 1)
    one.send(answer)
    lab.await_counted("table=2,in_port=1,udp", 1)
    # The error is about the answer, so it goes the way of the question.
    for number in (1, 2):
        two.send(unreachable(right, left, answer, code=10))
        lab.await_counted("table=2,in_port=2,ct_state=+rel,icmp", number)
    assert lab.shown() == [f"udp {right}>{left} {left}>{right} zone=34673"]


def conntrack_icmp_related_2(lab: Lab) -> None:
    """conntrack - ICMP related 2"""
    one, two = lab.hosts(2)
    lab.flows("table=0,ip,actions=ct(commit,table=1)", "table=1,ip,actions=controller")
    request = udp("172.16.0.1", "172.16.0.2", 41614, 5555)
    with lab.controller() as controller:
        unknown = udp("172.16.0.3", "172.16.0.4", 4369, 8738)
        two.send(unreachable("172.16.0.4", "172.16.0.3", unknown))
        (first,) = controller.wait(1)
        assert ct_state(first) == {"inv", "trk"}
        one.send(request)
        second = controller.wait(2)[1]
        assert ct_state(second) == {"new", "trk"}
        two.send(unreachable("172.16.0.3", "172.16.0.1", request))  # a router in between says so
        third = controller.wait(3)[2]
        assert ct_state(third) == {"rel", "rpl", "trk"}
    assert lab.shown() == ["udp 172.16.0.1>172.16.0.2 172.16.0.2>172.16.0.1"]


def conntrack_resubmit_to_ct_multiple_times(lab: Lab) -> None:
    """conntrack - resubmit to ct multiple times"""
    one, _ = _hosts(lab)
    lab.flows(
        "table=0,priority=150,arp,actions=normal",
        "table=0,priority=100,ip,in_port=1,actions=resubmit(,1),resubmit(,2)",
        "table=1,ip,actions=ct(table=3)",
        "table=2,ip,actions=ct(table=3)",
        "table=3,ip,actions=drop",
    )
    assert one.ping("10.1.1.2", count=1, expect=False).none_answered
    lab.await_counted("table=0,ip,in_port=1", 1)
    lab.await_counted("table=1,ip", 1)
    lab.await_counted("table=2,ip", 1)
    lab.await_counted("table=3,ip", 2)


def conntrack_ipv4_http(lab: Lab) -> None:
    """conntrack - IPv4 HTTP"""
    one, two = _hosts(lab)
    lab.flows(
        *BASE,
        "priority=100,in_port=1,tcp,actions=ct(commit),2",
        "priority=100,in_port=2,ct_state=-trk,tcp,actions=ct(table=0)",
        "priority=100,in_port=2,ct_state=+trk+est,tcp,actions=1",
    )
    one.serve_http()
    two.serve_http()
    assert one.get_http("10.1.1.2")
    assert lab.shown("10.1.1.2") == [_tcp_line(1, 2)]
    assert not two.get_http("10.1.1.1", expect=False)


def conntrack_ipv6_http(lab: Lab) -> None:
    """conntrack - IPv6 HTTP"""
    one, two = _hosts6(lab)
    lab.flows(
        "priority=1,actions=drop",
        "priority=10,icmp6,actions=normal",
        "priority=100,in_port=1,tcp6,actions=ct(commit),2",
        "priority=100,in_port=2,ct_state=-trk,tcp6,actions=ct(table=0)",
        "priority=100,in_port=2,ct_state=+trk+est,tcp6,actions=1",
    )
    one.serve_http(six=True)
    two.serve_http(six=True)
    assert one.get_http("fc00::2")
    assert lab.shown("fc00::2") == ["tcp fc00::1>fc00::2 fc00::2>fc00::1"]
    assert not two.get_http("fc00::1", expect=False)


def conntrack_multiple_icmp_traverse(lab: Lab) -> None:
    """conntrack - Multiple ICMP traverse"""
    one = lab.hosts(1)[0]
    lab.flows(
        "table=0,priority=10,icmp,ct_state=-trk,actions=ct(zone=1,table=1)",
        "table=0,priority=0,actions=drop",
        "table=1,priority=10,ct_state=-est+trk+new,ip,ct_zone=1,in_port=1,actions=ct(commit,table=2)",
        "table=1,priority=10,ct_state=+est-new+trk,ct_zone=1,in_port=1,actions=resubmit(,2)",
        "table=1,priority=0,actions=drop",
        "table=2,priority=10,ct_state=+trk+new,in_port=1,actions=drop",
        "table=2,priority=10,ct_state=+trk+est,actions=drop",
    )
    for number in (1, 2):
        one.send(echo())
        lab.await_counted("table=2,ct_state=+trk+new,in_port=1", number)
    # Committed in zone 0, looked up in zone 1: it stays new.
    assert lab.shown() == ["icmp 10.1.1.1>10.1.1.2 10.1.1.2>10.1.1.1"]
    assert lab.counted("table=2,ct_state=+trk+est") == 0


def conntrack_flush_many_conntrack_entries_by_port(lab: Lab) -> None:
    """conntrack - Flush many conntrack entries by port"""
    one = lab.hosts(1)[0]
    lab.flows("priority=100,in_port=1,udp,actions=ct(zone=1,commit),2")
    for port in range(1, 21):
        one.send(udp(destination_port=port))
    one.send(udp(source_port=2, destination_port=1))
    line = "udp 10.1.1.1>10.1.1.2 10.1.1.2>10.1.1.1 zone=1"
    lab.await_counted("in_port=1,udp", 21)
    assert lab.exactly(zone=1) == sorted(
        [*(f"{line} 1>{port} {port}>1" for port in range(1, 21)), f"{line} 2>1 1>2"]
    )
    lab.flush(zone=1, ct_nw_proto=17, ct_tp_src=1)
    assert lab.exactly(zone=1) == [f"{line} 2>1 1>2"]
