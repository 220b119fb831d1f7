"""Flows as text; that ovs-ofctl reads it as the same flow is tried in tests/net/test_ovs_harness.py."""

from __future__ import annotations

import pytest

from vnet.openflow.flow import (
    Action,
    Advertise,
    Conntrack,
    ConntrackClear,
    CopyTtlIn,
    CopyTtlOut,
    DecIpTtl,
    DecMplsTtl,
    Flow,
    FlowFlag,
    IcmpError,
    Instructions,
    Match,
    Move,
    Nat,
    Output,
    OutputField,
    PopMpls,
    PopVlan,
    Port,
    PushMpls,
    PushVlan,
    Reject,
    Resubmit,
    SetField,
    SetIpTtl,
    SetMplsTtl,
    ToGroup,
    match,
)
from vnet.openflow.group import Band, BandType, Bucket, Group, GroupType, Meter, MeterFlag
from vnet.openflow.ofctl import (
    action_text,
    actions_text,
    group_text,
    instructions_text,
    match_text,
    meter_text,
    text,
)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Match(), ""),
        (match(eth_type=0x800, ip_proto=6, tcp_dst=80, in_port=1), "tcp,in_port=1,tp_dst=80"),
        (match(eth_type=0x86DD, ip_proto=6, tcp_src=(8, 0xFFF8)), "tcp6,tp_src=8/0xfff8"),
        (match(eth_type=0x86DD, ip_proto=58, icmpv6_type=135), "icmp6,icmpv6_type=135"),
        (match(eth_type=0x800, ip_proto=1, icmpv4_type=8, icmpv4_code=0), "icmp,icmp_code=0,icmp_type=8"),
        (match(eth_type=0x800, ip_proto=47), "ip,nw_proto=47"),
        (match(eth_type=0x88CC), "dl_type=0x88cc"),
        (match(eth_type=0x800, ipv4_src=(0x0A000000, 0xFF000000)), "ip,nw_src=10.0.0.0/8"),
        (match(eth_type=0x800, ipv4_dst=(1, 0xFF)), "ip,nw_dst=0.0.0.1/0.0.0.255"),
        (match(eth_type=0x86DD, ipv6_dst=(0xFE80 << 112, 0xFFC0 << 112)), "ipv6,ipv6_dst=fe80::/10"),
        (match(eth_type=0x806, arp_op=1, arp_sha=1), "arp,arp_op=1,arp_sha=00:00:00:00:00:01"),
        (match(eth_dst=(1 << 40, 1 << 40)), "dl_dst=01:00:00:00:00:00/01:00:00:00:00:00"),
        (match(vlan_vid=0), "vlan_vid=0x0"),
        (match(vlan_vid=(0x1000, 0x1000), vlan_pcp=5), "vlan_pcp=5,vlan_vid=0x1000/0x1000"),
        (match(ct_state=(0x21, 0x29), ct_zone=7), "ct_state=+new-rpl+trk,ct_zone=7"),
        (match(eth_type=0x800, ip_frag=(0, 3)), "ip,ip_frag=no"),
        (match(reg0=5, metadata=(1, 3)), "metadata=0x1/0x3,reg0=0x5"),
        (
            match(eth_type=0x8847, mpls_label=5, mpls_tc=1, mpls_bos=0, mpls_ttl=6),
            "mpls,mpls_bos=0,mpls_label=5,mpls_tc=1,mpls_ttl=6",
        ),
        (match(eth_type=0x8848), "mplsm"),
        (match(eth_type=0x86DD, ipv6_flabel=(5, 0xFF), nw_ttl=9), "ipv6,ipv6_label=0x5/0xff,nw_ttl=9"),
        (match(eth_type=0x800, ip_proto=6, tcp_flags=(2, 0x12)), "tcp,tcp_flags=+syn-ack"),
        (match(eth_type=0x800, ip_proto=6, tcp_flags=(0x800, 0x800)), "tcp,tcp_flags=+[800]"),
        (match(tunnel_id=5, ct_label=(1, 3), reg15=1), "ct_label=0x1/0x3,reg15=0x1,tun_id=0x5"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_matches_in_shorthand(wanted: Match, words: str) -> None:
    assert match_text(wanted) == words


@pytest.mark.parametrize(
    ("action", "word"),
    [
        (Output(3), "output:3"),
        (Output(Port.CONTROLLER, 128), "CONTROLLER:128"),
        (Output(Port.FLOOD), "FLOOD"),
        (Output(Port.IN_PORT), "IN_PORT"),
        (OutputField("reg2"), "output:NXM_NX_REG2[]"),
        (OutputField("reg2", 4, 4), "output:NXM_NX_REG2[4..7]"),
        (PushVlan(0x88A8), "push_vlan:0x88a8"),
        (PopVlan(), "pop_vlan"),
        (SetField("vlan_vid", 0x100A), "set_field:0x100a->vlan_vid"),
        (SetField("reg0", 1, 3), "set_field:0x1/0x3->reg0"),
        (SetField("eth_dst", 1), "set_field:00:00:00:00:00:01->eth_dst"),
        (SetField("ipv4_src", 0x0A000001), "set_field:10.0.0.1->ip_src"),
        (Move("tcp_dst", "reg3", 16), "move:OXM_OF_TCP_DST[]->NXM_NX_REG3[0..15]"),
        (Move("reg0", "reg4", 32), "move:NXM_NX_REG0[]->NXM_NX_REG4[]"),
        (Move("reg0", "reg1", 1, 3, 9), "move:NXM_NX_REG0[3]->NXM_NX_REG1[9]"),
        (Conntrack(), "ct"),
        (Conntrack(zone=10, table=4), "ct(table=4,zone=10)"),
        (
            Conntrack(zone=10, commit=True, force=True, mark=(1, 3)),
            "ct(commit,force,zone=10,exec(set_field:0x1/0x3->ct_mark))",
        ),
        (Conntrack(zone_field=("reg9", 0, 16), nat=Nat()), "ct(zone=NXM_NX_REG9[0..15],nat)"),
        (
            Conntrack(commit=True, mark=(1, 3), label=(2, 3)),
            "ct(commit,exec(set_field:0x1/0x3->ct_mark,set_field:0x2/0x3->ct_label))",
        ),
        (
            Conntrack(commit=True, nat=Nat(True, 4, (0x0A000001, 0x0A000009), (1, 9), 4 | 16)),
            "ct(commit,nat(src=10.0.0.1-10.0.0.9:1-9,persistent,random))",
        ),
        (
            Conntrack(commit=True, nat=Nat(False, 6, (0xFD00 << 112, 0xFD00 << 112), (5, 5))),
            "ct(commit,nat(dst=[fd00::]:5))",
        ),
        (
            Conntrack(commit=True, mark=(1, 3), moves=(Move("reg0", "ct_mark", 16, 0, 16),)),
            "ct(commit,exec(set_field:0x1/0x3->ct_mark,move:NXM_NX_REG0[0..15]->NXM_NX_CT_MARK[16..31]))",
        ),
        (Conntrack(commit=True, nat=Nat(False, flags=8)), "ct(commit,nat(dst,hash))"),
        (ConntrackClear(), "ct_clear"),
        (PushMpls(0x8848), "push_mpls:0x8848"),
        (PopMpls(0x800), "pop_mpls:0x0800"),
        (SetMplsTtl(5), "set_mpls_ttl(5)"),
        (DecMplsTtl(), "dec_mpls_ttl"),
        (SetIpTtl(5), "mod_nw_ttl:5"),
        (DecIpTtl(), "dec_ttl"),
        (Reject(), "reject"),
        (Reject(IcmpError(4, 3, 0, 0x0A000001)), "reject(icmp_type=3,icmp_code=0,src=10.0.0.1)"),
        (
            DecIpTtl(IcmpError(6, 3, 0, 0xFD00 << 112 | 1)),
            "dec_ttl(reject(icmpv6_type=3,icmpv6_code=0,src=fd00::1))",
        ),
        (Advertise(0x02766E000001), "advertise(02:76:6e:00:00:01)"),
        (CopyTtlOut(), "copy_ttl_out"),
        (CopyTtlIn(), "copy_ttl_in"),
        (ToGroup(4), "group:4"),
        (Resubmit(None, 5), "resubmit(,5)"),
        (Resubmit(3), "resubmit(3,)"),
        (Resubmit(Port.LOCAL, 5), "resubmit(LOCAL,5)"),
        (SetField("mpls_label", 5), "set_field:5->mpls_label"),
        (SetField("ipv6_flabel", 5), "set_field:0x5->ipv6_label"),
        (SetField("tunnel_id", 5), "set_field:0x5->tun_id"),
        (Move("nw_ttl", "reg8", 8), "move:NXM_NX_IP_TTL[]->NXM_NX_REG8[0..7]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_actions(action: Action, word: str) -> None:
    assert action_text(action) == word


def test_nothing_to_do_is_drop() -> None:
    assert actions_text(()) == "drop"
    assert instructions_text(Instructions()) == "drop"


def test_instructions_stand_in_the_order_of_their_execution() -> None:
    everything = Instructions((Output(1),), True, (Output(2),), (1, 0xFF), 9, 4)
    assert (
        instructions_text(everything)
        == "meter:4,output:1,clear_actions,write_actions(output:2),write_metadata:0x1/0xff,goto_table:9"
    )


def test_a_whole_flow() -> None:
    flags = FlowFlag.SEND_FLOW_REM | FlowFlag.NO_BYTE_COUNTS
    flow = Flow(3, 7, match(in_port=1), Instructions(goto=4), 0xAB, 10, 20, flags)
    assert text(flow) == (
        "cookie=0xab, table=3, idle_timeout=10, hard_timeout=20, send_flow_rem, no_byte_counts, "
        "priority=7,in_port=1 actions=goto_table:4"
    )


def test_a_fragment_match_without_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="ip_frag=2/3 has no name"):
        match_text(match(eth_type=0x800, ip_frag=(2, 3)))


def test_groups() -> None:
    buckets = (Bucket((Output(1), ToGroup(4)), 5, 2, 9), Bucket())
    assert group_text(Group(3, GroupType.SELECT, buckets)) == (
        "group_id=3,type=select,bucket=weight:5,watch_port:2,watch_group:9,actions=output:1,group:4,"
        "bucket=weight:0,actions=drop"
    )
    assert group_text(Group(4, GroupType.FAST_FAILOVER)) == "group_id=4,type=fast_failover"


def test_meters() -> None:
    bands = (Band(BandType.DROP, 1000, 50), Band(BandType.DSCP_REMARK, 900, 0, 2))
    assert meter_text(Meter(7, MeterFlag.KBPS | MeterFlag.BURST | MeterFlag.STATS, bands)) == (
        "meter=7,kbps,burst,stats,bands=type=drop,rate=1000,burst_size=50,"
        "type=dscp_remark,rate=900,burst_size=0,prec_level=2"
    )
    assert meter_text(Meter(8, MeterFlag.PKTPS, bands[:1])) == "meter=8,pktps,bands=type=drop,rate=1000"
