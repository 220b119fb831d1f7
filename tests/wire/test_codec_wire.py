"""`ovs-ofctl` judges the codec: it prints what we encode, and we decode what it encodes."""

from __future__ import annotations

import socket
import subprocess
import threading
from pathlib import Path

import pytest

from tests.unit.openflow.test_codec import BARE, MESSAGES, PORT, RICH, TABLE
from vnet.openflow.codec import decode, encode
from vnet.openflow.flow import (
    Conntrack,
    Instructions,
    Move,
    Output,
    OutputField,
    PopVlan,
    Port,
    PushVlan,
    SetField,
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
    Hello,
    PacketIn,
    PortDescReply,
    PortDescRequest,
    PortStatus,
    TableFeatures,
    TableFeaturesReply,
    TableFeaturesRequest,
)

_RICH_MATCH = "priority=100,ct_state=+new-est+trk,tcp,reg0=0x10/0xff,dl_vlan=5,nw_frag=no,tp_dst=0x50/0xfff0"
_RICH_ACTIONS = (
    "actions=set_field:0x7->reg1,set_field:10.0.0.0/255.0.0.255->ip_dst,move:NXM_OF_TCP_DST[]->NXM_NX_REG3[0..15],"
    "ct(table=4,zone=5),pop_vlan,push_vlan:0x8100,set_field:4103->vlan_vid,output:NXM_NX_REG2[],CONTROLLER:128,"
    "clear_actions,write_actions(output:3),write_metadata:0x1/0xff,goto_table:7"
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
    ("message", "text"),
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
    ],
)
def test_ovs_ofctl_reads_what_was_meant(message, text):
    assert text in ofp_print(encode(message, 9))


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
    ("text", "actions"),
    [
        ("actions=output:3", (Output(3),)),
        ("actions=flood", (Output(Port.FLOOD),)),
        ("actions=controller", (Output(Port.CONTROLLER),)),
        ("actions=controller:64", (Output(Port.CONTROLLER, 64),)),
        ("actions=in_port,all,normal", (Output(Port.IN_PORT), Output(Port.ALL), Output(Port.NORMAL))),
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
    ],
)
def test_actions_of_ovs_ofctl_are_read_as_they_are_meant(tmp_path, text, actions):
    (mod,) = flows_of(spoken(tmp_path, "add-flow", text))
    assert mod.flow.instructions == Instructions(apply=actions)


@pytest.mark.parametrize(
    ("text", "wanted"),
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
    ],
)
def test_matches_of_ovs_ofctl_are_read_as_they_are_meant(tmp_path, text, wanted):
    (mod,) = flows_of(spoken(tmp_path, "add-flow", f"{text},actions=drop"))
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
