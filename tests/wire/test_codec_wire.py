"""`ovs-ofctl` judges the codec: it prints what we encode, and we decode what it encodes."""

from __future__ import annotations

import socket
import subprocess
import threading
from pathlib import Path

import pytest

from tests.unit.openflow.test_codec import (
    BARE,
    DROPPING,
    FAILOVER,
    MESSAGES,
    PORT,
    REMARKING,
    RICH,
    SELECT,
    TABLE,
)
from vnet.openflow.codec import decode, encode
from vnet.openflow.flow import (
    Conntrack,
    ConntrackClear,
    DecIpTtl,
    DecMplsTtl,
    Flow,
    Instructions,
    Move,
    Nat,
    Output,
    OutputField,
    PopMpls,
    PopVlan,
    Port,
    PushMpls,
    PushVlan,
    Resubmit,
    SetField,
    SetIpTtl,
    SetMplsTtl,
    ToGroup,
    match,
)
from vnet.openflow.frame import Splitter
from vnet.openflow.message import (
    BarrierReply,
    BarrierRequest,
    BundleAdd,
    BundleControl,
    Error,
    Experimenter,
    FeaturesReply,
    FeaturesRequest,
    FlowCommand,
    FlowMod,
    FlowRemoved,
    FlowStats,
    FlowStatsReply,
    FlowStatsRequest,
    GroupCommand,
    GroupDescReply,
    GroupFeaturesReply,
    GroupMod,
    GroupStats,
    GroupStatsReply,
    Hello,
    MeterCommand,
    MeterConfigReply,
    MeterFeaturesReply,
    MeterMod,
    MeterStats,
    MeterStatsReply,
    PacketIn,
    PortDescReply,
    PortDescRequest,
    PortStatus,
    TableFeatures,
    TableFeaturesReply,
    TableFeaturesRequest,
)
from vnet.openflow.ofctl import group_text, meter_text, text

_RICH_MATCH = "priority=100,ct_state=+new-est+trk,tcp,reg0=0x10/0xff,dl_vlan=5,nw_frag=no,tp_dst=0x50/0xfff0"
_RICH_ACTIONS = (
    "actions=meter:4,set_field:0x7->reg1,set_field:10.0.0.0/255.0.0.255->ip_dst,move:NXM_OF_TCP_DST[]->NXM_NX_REG3[0..15],"
    "ct(table=4,zone=5),pop_vlan,push_vlan:0x8100,set_field:4103->vlan_vid,output:NXM_NX_REG2[],CONTROLLER:128,"
    "clear_actions,write_actions(output:3),write_metadata:0x1/0xff,goto_table:7"
)

_SELECT_BUCKETS = (
    "bucket=weight:10,actions=set_field:00:00:00:00:00:05->eth_dst,output:1,"
    "bucket=weight:5,watch_port:2,watch_group:4,actions=group:4"
)


def ofp_print(data: bytes) -> str:
    done = subprocess.run(["ovs-ofctl", "ofp-print", data.hex()], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


_QUOTING = (Error, Experimenter)
"""Of these ovs-ofctl judges the contents too, which here are no messages."""


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_ovs_ofctl_understands_every_message(message):
    printed = ofp_print(encode(message, 9))
    if not isinstance(message, Experimenter):
        assert "(xid=0x9)" in printed
    if not isinstance(message, _QUOTING):
        assert "decode error" not in printed
        assert "***" not in printed
        assert "unknown" not in printed


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            FlowMod(FlowCommand.ADD, RICH),
            f"ADD table:3 {_RICH_MATCH} cookie:0x76 idle:5 hard:6 send_flow_rem",
        ),
        (FlowMod(FlowCommand.ADD, RICH), _RICH_ACTIONS),
        (
            FlowStatsReply((FlowStats(RICH, 2_500_000_000, 4, 5),)),
            "duration=2.500s, table=3, n_packets=4, n_bytes=5",
        ),
        (FlowStatsReply((FlowStats(RICH),)), _RICH_ACTIONS),
        (
            FlowRemoved(0, BARE, 1_500_000_000, 3, 4),
            "reason=idle table_id=3 cookie:0x1 duration1.500s idle5 pkts3 bytes4",
        ),
        (
            PacketIn(0, 2, 9, match(in_port=3, metadata=5), bytes(60), 60),
            "table_id=2 cookie=0x9 total_len=60 metadata=0x5,in_port=3",
        ),
        (PacketIn(0, 2, 9, match(in_port=3), bytes(60), 60), "(via no_match)"),
        (PortStatus(0, PORT), "ADD: 3(tap-web): addr:02:03:04:05:06:07"),
        (BundleControl(5, 4, 3), "bundle_id=0x5 type=COMMIT_REQUEST flags=atomic ordered"),
        (BundleAdd(5, FlowMod(FlowCommand.ADD, RICH), 3), _RICH_ACTIONS),
        (TableFeaturesReply((TABLE,)), "next tables: 1-2"),
        (GroupMod(GroupCommand.ADD, SELECT), f"ADD group_id=3,type=select,{_SELECT_BUCKETS}"),
        (GroupDescReply((SELECT,)), f"group_id=3,type=select,{_SELECT_BUCKETS}"),
        (
            GroupStatsReply((GroupStats(3, 2, 5, 700, 1_500_000_000, ((1, 100), (4, 600))),)),
            "group_id=3,duration=1.500s,ref_count=2,packet_count=5,byte_count=700,"
            "bucket0:packet_count=1,byte_count=100,bucket1:packet_count=4,byte_count=600",
        ),
        (
            GroupFeaturesReply(0b0010, 0b0101, (1, 9, 3, 4), (0, 1 << 0 | 1 << 22, 0, 0)),
            "Capabilities:  0x5\n    select group:\n       max_groups=0x9\n       actions: output group",
        ),
        (
            MeterMod(MeterCommand.ADD, DROPPING),
            "ADD meter=7 kbps burst stats bands=\ntype=drop rate=1000 burst_size=100",
        ),
        (
            MeterConfigReply((DROPPING, REMARKING)),
            "meter=8 pktps bands=\ntype=dscp_remark rate=10 prec_level=1\ntype=drop rate=20",
        ),
        (
            MeterStatsReply((MeterStats(7, 2, 5, 700, 1_500_000_000, ((1, 100),)),)),
            "meter:7 flow_count:2 packet_in_count:5 byte_in_count:700 duration:1.500s bands:\n"
            "0: packet_count:1 byte_count:100",
        ),
        (
            MeterFeaturesReply(100, 0b110, 0b1011, 8, 3),
            "max_meter:100 max_bands:8 max_color:3\nband_types: drop dscp_remark\n"
            "capabilities: kbps pktps stats",
        ),
    ],
)
def test_ovs_ofctl_reads_what_was_meant(message, words):
    assert words in ofp_print(encode(message, 9))


# -- what ovs-ofctl says --------------------------------------------------------------------------


def spoken(tmp_path: Path, *words: str, options: tuple[str, ...] = ()) -> list:
    """Run ovs-ofctl against a peer that says as little as possible; every message it sent."""
    path = tmp_path / "peer.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    heard: list = []
    thread = threading.Thread(target=_listen, args=(listener, heard))
    thread.start()
    command, *rest = words
    argv = ["ovs-ofctl", "-O", "OpenFlow13", "--timeout=5", *options, command, f"unix:{path}", *rest]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)
    return heard


_ANSWERS = {
    Hello: lambda message: Hello(),
    FeaturesRequest: lambda message: FeaturesReply(1, 32),
    BarrierRequest: lambda message: BarrierReply(),
    TableFeaturesRequest: lambda message: TableFeaturesReply((TableFeatures(0, "t", 9),)),
    PortDescRequest: lambda message: PortDescReply(),
    FlowStatsRequest: lambda message: FlowStatsReply(),
    BundleControl: lambda message: BundleControl(message.bundle_id, message.type + 1, message.flags),
}


def _listen(listener: socket.socket, heard: list) -> None:
    """ovs-ofctl holds several connections at a time."""
    talks = []
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            break
        talks.append(threading.Thread(target=_talk, args=(connection, heard)))
        talks[-1].start()
    for talk in talks:
        talk.join(10)


def _talk(connection: socket.socket, heard: list) -> None:
    splitter = Splitter()
    with connection:
        while data := connection.recv(65536):
            for xid, message in map(decode, splitter.feed(data)):
                heard.append(message)
                answer = _ANSWERS.get(type(message))
                if answer:
                    connection.sendall(encode(answer(message), xid))


def flows_of(heard: list) -> list:
    return [message for message in heard if isinstance(message, FlowMod)]


@pytest.mark.parametrize(
    ("words", "actions"),
    [
        ("actions=output:3", (Output(3, 0),)),
        ("actions=flood", (Output(Port.FLOOD, 0),)),
        ("actions=controller", (Output(Port.CONTROLLER),)),
        ("actions=controller:64", (Output(Port.CONTROLLER, 64),)),
        (
            "actions=in_port,all,normal",
            (Output(Port.IN_PORT, 0), Output(Port.ALL, 0), Output(Port.NORMAL, 0)),
        ),
        ("actions=load:0x3->NXM_NX_REG0[4..7]", (SetField("reg0", 0x30, 0xF0),)),
        ("actions=load:0x3->NXM_NX_REG0[]", (SetField("reg0", 3),)),
        ("actions=set_field:0x30/0xf0->reg0", (SetField("reg0", 0x30, 0xF0),)),
        ("ip,actions=set_field:10.0.0.1->ip_dst", (SetField("ipv4_dst", 0x0A000001),)),
        ("ipv6,actions=set_field:fd00::1->ipv6_src", (SetField("ipv6_src", 0xFD00 << 112 | 1),)),
        ("actions=set_field:02:00:00:00:00:01->eth_src", (SetField("eth_src", 0x020000000001),)),
        ("actions=push_vlan:0x88a8,set_field:4097->vlan_vid", (PushVlan(0x88A8), SetField("vlan_vid", 4097))),
        ("dl_vlan=5,actions=mod_vlan_pcp:3,strip_vlan", (SetField("vlan_pcp", 3), PopVlan())),
        ("actions=move:NXM_OF_ETH_SRC[0..15]->NXM_NX_REG1[16..31]", (Move("eth_src", "reg1", 16, 0, 16),)),
        ("actions=output:NXM_NX_REG2[]", (OutputField("reg2"),)),
        ("actions=output:NXM_NX_REG2[4..7]", (OutputField("reg2", 4, 4),)),
        ("actions=output:OXM_OF_METADATA[0..15]", (OutputField("metadata", 0, 16),)),
        ("ip,actions=ct(zone=7,table=3)", (Conntrack(7, 3),)),
        ("ip,actions=ct(commit,force,zone=7)", (Conntrack(7, None, True, True),)),
        (
            "ip,actions=ct(commit,zone=7,exec(set_field:0x5->ct_mark))",
            (Conntrack(7, None, True, mark=(5, 0xFFFFFFFF)),),
        ),
        (
            "ip,actions=ct(commit,exec(load:0x5->NXM_NX_CT_MARK[0..3]))",
            (Conntrack(0, None, True, mark=(5, 0xF)),),
        ),
        (
            "ip,actions=ct(commit,zone=NXM_NX_REG9[4..19],nat(src=10.0.0.1-10.0.0.9:1000-2000,random),"
            "exec(set_field:0x5/0xf->ct_label))",
            (
                Conntrack(
                    commit=True,
                    zone_field=("reg9", 4, 16),
                    nat=Nat(True, 4, (0x0A000001, 0x0A000009), (1000, 2000), 16),
                    label=(5, 0xF),
                ),
            ),
        ),
        (
            "ipv6,actions=ct(commit,nat(dst=[fd00::1]:80))",
            (
                Conntrack(
                    commit=True, nat=Nat(False, 6, ((0xFD00 << 112) + 1, (0xFD00 << 112) + 1), (80, 80))
                ),
            ),
        ),
        ("ip,actions=ct(nat,table=4)", (Conntrack(0, 4, nat=Nat()),)),
        ("actions=ct_clear,group:4", (ConntrackClear(), ToGroup(4))),
        (
            "actions=resubmit(,5),resubmit:7,resubmit(LOCAL,5)",
            (Resubmit(None, 5), Resubmit(7), Resubmit(Port.LOCAL, 5)),
        ),
        (
            "ip,actions=push_mpls:0x8847,set_field:5->mpls_label,set_mpls_ttl:9,dec_mpls_ttl,pop_mpls:0x800",
            (PushMpls(), SetField("mpls_label", 5), SetMplsTtl(9), DecMplsTtl(), PopMpls(0x800)),
        ),
        ("ip,actions=mod_nw_ttl:9,dec_ttl", (SetIpTtl(9), DecIpTtl())),
        ("actions=set_tunnel:5,normal", (SetField("tunnel_id", 5), Output(Port.NORMAL, 0))),
        ("ipv6,actions=set_field:5->ipv6_label", (SetField("ipv6_flabel", 5),)),
        ("actions=load:5->NXM_NX_REG15[]", (SetField("reg15", 5),)),
    ],
)
def test_actions_of_ovs_ofctl_are_read_as_they_are_meant(tmp_path, words, actions):
    (mod,) = flows_of(spoken(tmp_path, "add-flow", words))
    assert mod.flow.instructions == Instructions(apply=actions)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("in_port=3", {"in_port": 3}),
        ("dl_src=02:00:00:00:00:01/ff:00:00:00:00:ff", {"eth_src": (0x020000000001, 0xFF00000000FF)}),
        ("dl_vlan=5,dl_vlan_pcp=2", {"vlan_vid": 0x1005, "vlan_pcp": 2}),
        ("vlan_tci=0x1000/0x1000", {"vlan_vid": (0x1000, 0x1000)}),
        ("vlan_tci=0/0x1fff", {"vlan_vid": 0}),
        (
            "ip,nw_src=10.0.0.0/8,nw_tos=8",
            {"eth_type": 0x800, "ipv4_src": (0x0A000000, 0xFF000000), "ip_dscp": 2},
        ),
        ("tcp6,tp_dst=443", {"eth_type": 0x86DD, "ip_proto": 6, "tcp_dst": 443}),
        ("udp,tp_src=0x40/0xfff0", {"eth_type": 0x800, "ip_proto": 17, "udp_src": (0x40, 0xFFF0)}),
        (
            "icmp,icmp_type=8,icmp_code=0",
            {"eth_type": 0x800, "ip_proto": 1, "icmpv4_type": 8, "icmpv4_code": 0},
        ),
        (
            "icmp6,icmp_type=136,nd_target=fd00::/16,nd_tll=02:00:00:00:00:01",
            {
                "eth_type": 0x86DD,
                "ip_proto": 58,
                "icmpv6_type": 136,
                "ipv6_nd_target": (0xFD00 << 112, 0xFFFF << 112),
                "ipv6_nd_tll": 0x020000000001,
            },
        ),
        ("arp,arp_op=2,arp_tpa=10.0.0.1", {"eth_type": 0x806, "arp_op": 2, "arp_tpa": 0x0A000001}),
        (
            "ct_state=+trk+est-rpl,ct_zone=5,ct_mark=1/3",
            {"ct_state": (0x22, 0x2A), "ct_zone": 5, "ct_mark": (1, 3)},
        ),
        ("reg3=0x50/0xffff,metadata=7", {"reg3": (0x50, 0xFFFF), "metadata": 7}),
        ("ip,nw_frag=yes", {"eth_type": 0x800, "ip_frag": (1, 1)}),
        ("ip,nw_frag=first", {"eth_type": 0x800, "ip_frag": 1}),
        ("tcp,tcp_flags=+syn-ack", {"eth_type": 0x800, "ip_proto": 6, "tcp_flags": (2, 0x12)}),
        ("ipv6,ipv6_label=5,nw_ttl=9", {"eth_type": 0x86DD, "ipv6_flabel": 5, "nw_ttl": 9}),
        (
            "mpls,mpls_label=5,mpls_tc=3,mpls_bos=1,mpls_ttl=9",
            {"eth_type": 0x8847, "mpls_label": 5, "mpls_tc": 3, "mpls_bos": 1, "mpls_ttl": 9},
        ),
        ("tun_id=5/0xff,ct_label=1/3,reg9=2", {"tunnel_id": (5, 0xFF), "ct_label": (1, 3), "reg9": 2}),
    ],
)
def test_matches_of_ovs_ofctl_are_read_as_they_are_meant(tmp_path, words, wanted):
    (mod,) = flows_of(spoken(tmp_path, "add-flow", f"{words},actions=drop"))
    assert mod.flow.match == match(**wanted)


def test_commands_of_ovs_ofctl_are_read_as_they_are_meant(tmp_path):
    (tmp_path / "flows").write_text(
        "delete table=1\nmodify ip,actions=drop\nadd priority=7,actions=output:1\n"
    )
    heard = spoken(tmp_path, "add-flows", str(tmp_path / "flows"), options=("--bundle",))
    inside = [message.message for message in heard if isinstance(message, BundleAdd)]
    assert [mod.command for mod in inside] == [FlowCommand.DELETE, FlowCommand.MODIFY, FlowCommand.ADD]
    assert inside[0].flow.table == 1
    assert [m.type for m in heard if isinstance(m, BundleControl)] == [0, 4]


@pytest.mark.parametrize("group", [SELECT, FAILOVER])
def test_groups_as_text_are_read_back_through_ovs_ofctl(tmp_path, group):
    heard = spoken(tmp_path, "add-group", group_text(group))
    assert [m for m in heard if isinstance(m, GroupMod)] == [GroupMod(GroupCommand.ADD, group)]


@pytest.mark.parametrize("meter", [DROPPING, REMARKING])
def test_meters_as_text_are_read_back_through_ovs_ofctl(tmp_path, meter):
    heard = spoken(tmp_path, "add-meter", meter_text(meter))
    assert [m for m in heard if isinstance(m, MeterMod)] == [MeterMod(MeterCommand.ADD, meter)]


@pytest.mark.parametrize(
    "flow",
    [
        Flow(1, 2, match(tunnel_id=5), Instructions((ToGroup(4), Resubmit(3)), meter=7, goto=9)),
        Flow(
            1,
            2,
            match(eth_type=0x800, ip_proto=6, tcp_flags=(2, 0x812), nw_ttl=1),
            Instructions(
                (
                    Conntrack(commit=True, label=(5, 0xF), nat=Nat(True, 4, (1, 2), (3, 4), 4)),
                    Move("nw_ttl", "reg8", 8),
                    DecIpTtl(),
                    PushMpls(),
                    SetField("mpls_label", 5),
                ),
                write=(PopMpls(0x800), SetMplsTtl(5), ToGroup(5), ConntrackClear()),
            ),
        ),
        Flow(1, 2, match(eth_type=0x86DD, ipv6_flabel=(5, 7)), Instructions((SetField("ipv6_flabel", 1),))),
    ],
)
def test_flows_as_text_are_read_back_through_ovs_ofctl(tmp_path, flow):
    assert [mod.flow for mod in flows_of(spoken(tmp_path, "add-flow", text(flow)))] == [flow]
