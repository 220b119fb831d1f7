"""`ovs-ofctl -O OpenFlow13` against the switch's socket: what it prints and how it exits."""

from __future__ import annotations

import os
import subprocess
import time

from vnet.openflow.flow import Conntrack, Flow, Instructions, Move, Output, OutputField, Port, SetField, match
from vnet.openflow.message import PacketIn
from vnet.switch.datapath import Counter, PortCounter, SwitchPort, TableCounter

FRAME = "ffffffffffff020000000001080045000000"


def test_show_prints_features_ports_and_configuration(switch):
    done = switch.ofctl("show")
    assert done.code == 0
    assert "dpid:0000000000000042" in done.out
    assert "n_tables:64, n_buffers:0" in done.out
    assert "1(tap-web): addr:02:00:00:00:00:01" in done.out
    assert "LINK_DOWN" in done.out
    assert "frags=normal miss_send_len=128" in done.out


def test_dump_desc_prints_the_switch(switch):
    done = switch.ofctl("dump-desc")
    assert done.code == 0
    assert "Manufacturer: vnet" in done.out
    assert "DP Description: lab" in done.out


def test_add_flow_and_dump_flows_agree_on_vnets_own_pipeline(switch):
    text = (
        "cookie=0x7600000000000001,table=3,priority=9,ct_state=+trk+new,tcp,reg1=0x7,tp_dst=443,"
        "actions=load:0x5->NXM_NX_REG2[],move:NXM_NX_REG0[]->NXM_NX_REG4[],"
        "move:NXM_OF_TCP_DST[]->NXM_NX_REG3[0..15],ct(table=4,zone=5),output:NXM_NX_REG2[]"
    )
    assert switch.ofctl("add-flow", text).code == 0
    (flow,) = switch.datapath.installed.values()
    wanted = match(eth_type=0x800, ip_proto=6, tcp_dst=443, reg1=7, ct_state=(0x21, 0x21))
    assert flow == Flow(
        3,
        9,
        wanted,
        Instructions(
            apply=(
                SetField("reg2", 5),
                Move("reg0", "reg4", 32),
                Move("tcp_dst", "reg3", 16),
                Conntrack(5, 4),
                OutputField("reg2"),
            )
        ),
        cookie=0x7600000000000001,
    )
    assert switch.dump() == [
        "cookie=0x7600000000000001, table=3, priority=9,ct_state=+new+trk,tcp,reg1=0x7,tp_dst=443 "
        "actions=set_field:0x5->reg2,move:NXM_NX_REG0[]->NXM_NX_REG4[],"
        "move:NXM_OF_TCP_DST[]->NXM_NX_REG3[0..15],ct(table=4,zone=5),output:NXM_NX_REG2[]"
    ]


def test_vlan_tags_and_neighbour_discovery_survive_the_way_there_and_back(switch):
    tag = "push_vlan:0x8100,set_field:4101->vlan_vid"
    texts = (
        f"table=1, priority=5,in_port=1,vlan_tci=0x0000/0x1fff actions={tag},goto_table:2",
        "table=2, priority=6,icmp6,dl_vlan=5,icmp_type=135,nd_target=fd00::1 actions=pop_vlan,output:2",
        "table=7, priority=7,arp,arp_spa=10.0.0.1,arp_op=1,arp_sha=02:00:00:00:00:01 actions=drop",
        "table=7, priority=8,ip,nw_src=10.0.0.0/8,nw_frag=later actions=CONTROLLER:128",
    )
    for text in texts:
        done = switch.ofctl("add-flow", text.replace(" actions", ",actions").replace(", ", ","))
        assert done.code == 0, done.err
    assert sorted(line.removeprefix("cookie=0x0, ") for line in switch.dump()) == sorted(texts)


def test_mod_flows_and_strict_deletion_touch_what_they_name(switch):
    switch.ofctl("add-flow", "priority=1,ip,actions=output:1")
    switch.ofctl("add-flow", "priority=2,tcp,actions=output:1")
    switch.ofctl("add-flow", "priority=3,arp,actions=output:1")
    assert switch.ofctl("mod-flows", "ip,actions=output:2").code == 0
    assert sum("output:2" in line for line in switch.dump()) == 2
    assert switch.ofctl("del-flows", "priority=2,tcp", options=("--strict",)).code == 0
    assert switch.ofctl("mod-flows", "priority=3,arp,actions=drop", options=("--strict",)).code == 0
    assert [line.split("priority=")[1] for line in switch.dump()] == [
        "1,ip actions=output:2",
        "3,arp actions=drop",
    ]
    assert switch.ofctl("del-flows", "out_port=2").code == 0
    assert len(switch.dump()) == 1
    assert switch.ofctl("del-flows").code == 0
    assert switch.dump() == []


def test_cookies_select_flows_to_delete_and_to_dump(switch):
    for cookie in (0x11, 0x12, 0x21):
        switch.ofctl("add-flow", f"cookie={cookie:#x},priority={cookie},actions=drop")
    assert len(switch.dump("cookie=0x10/0xf0")) == 2
    assert switch.ofctl("del-flows", "cookie=0x10/0xf0").code == 0
    assert [flow.cookie for flow in switch.datapath.installed.values()] == [0x21]


def test_a_bundle_of_thousands_is_one_change(switch, tmp_path):
    flows = tmp_path / "flows"
    flows.write_text(
        "".join(
            f"table=1,priority={n},ip,nw_src=10.1.{n >> 8}.{n & 255},actions=output:1\n"
            for n in range(1, 3001)
        )
    )
    assert switch.ofctl("add-flows", str(flows), options=("--bundle",)).code == 0
    assert len(switch.datapath.changes) == 1
    assert len(switch.dump()) == 3000
    assert "flow_count=3000" in switch.ofctl("dump-aggregate").out
    assert switch.ofctl("diff-flows", str(flows)).code == 0


def test_a_bundle_with_one_bad_flow_changes_nothing(switch, tmp_path):
    switch.ofctl("add-flow", "priority=7,actions=output:1")
    flows = tmp_path / "flows"
    flows.write_text("table=1,priority=1,ip,actions=output:1\ntable=1,priority=2,ip,actions=goto_table:64\n")
    done = switch.ofctl("add-flows", str(flows), options=("--bundle",))
    assert done.code == 1
    assert "OFPBIC_BAD_TABLE_ID" in done.err + done.out
    assert "OFPBFC_MSG_FAILED" in done.err + done.out
    assert len(switch.dump()) == 1


def test_replace_flows_reaches_the_file_from_anywhere(switch, tmp_path):
    switch.ofctl("add-flow", "priority=7,actions=output:1")
    flows = tmp_path / "flows"
    flows.write_text("priority=8,ip,actions=output:2\n")
    assert switch.ofctl("replace-flows", str(flows), options=("--bundle",)).code == 0
    assert [flow.priority for flow in switch.datapath.installed.values()] == [8]


def test_counters_are_printed(switch):
    switch.ofctl("add-flow", "table=2,priority=1,actions=output:1")
    switch.datapath.counted[(2, 1, match())] = Counter(3, 180)
    switch.datapath.tables[2] = TableCounter(5, 3)
    switch.datapath.port_counts[2] = PortCounter(Counter(7, 700), Counter(8, 800), 2)
    assert "n_packets=3, n_bytes=180" in switch.ofctl("dump-flows").out
    assert "packet_count=3 byte_count=180 flow_count=1" in switch.ofctl("dump-aggregate").out
    tables = switch.ofctl("dump-tables").out
    assert "table 2:\n    active=1, lookup=5, matched=3" in tables
    ports = switch.ofctl("dump-ports").out
    assert "rx pkts=7, bytes=700, drop=2" in ports
    assert "tx pkts=8, bytes=800" in ports
    assert "2 ports" in ports
    assert "1 ports" in switch.ofctl("dump-ports", "2").out


def test_dump_ports_desc_and_table_features_are_understood(switch):
    ports = switch.ofctl("dump-ports-desc")
    assert ports.code == 0
    assert "2(tap-db): addr:02:00:00:00:00:02" in ports.out
    tables = switch.ofctl("dump-table-features")
    assert tables.code == 0
    assert 'table 63 ("table 63")' in tables.out
    tracked = "ct_{state,mark,label,nw_{src,dst},ipv6_{src,dst},tp_{src,dst}}"
    assert f"arbitrary mask: tun_id metadata {tracked} reg0...reg15" in tables.out


def test_packet_out_reaches_the_datapath(switch):
    done = switch.ofctl("packet-out", f"in_port=controller,packet={FRAME},actions=output:1,flood")
    assert done.code == 0, done.err
    actions = (Output(1, 0), Output(Port.FLOOD, 0))
    assert switch.datapath.sent == [(Port.CONTROLLER, actions, bytes.fromhex(FRAME))]


def test_what_is_not_supported_is_refused_by_name_and_exit_code(switch):
    for words, error in (
        (("add-flow", "actions=set_queue:1,output:1"), "OFPBAC_BAD_QUEUE"),
        (("add-flow", "actions=learn(table=1)"), "OFPBAC_BAD_VENDOR_TYPE"),
        (("add-flow", "pkt_mark=5,actions=drop"), "OFPBMC_BAD_FIELD"),
        (("set-frags", "drop"), "OFPSCFC_BAD_FLAGS"),
    ):
        done = switch.ofctl(*words)
        assert done.code == 1, words
        assert error in done.out + done.err, (words, done)
    assert switch.datapath.installed == {}


def test_questions_about_what_there_is_none_of_succeed(switch):
    for command in (
        "dump-groups",
        "dump-group-stats",
        "dump-group-features",
        "dump-meters",
        "meter-features",
    ):
        assert switch.ofctl(command).code == 0, command
    for command in ("meter-stats", "queue-stats", "del-groups", "del-meters"):
        assert switch.ofctl(command).code == 0, command


def test_what_the_datapath_refuses_is_told_by_ovs_ofctl(switch):
    switch.datapath.refusals[0xBAD] = (5, 1)
    done = switch.ofctl("add-flow", "cookie=0xbad,actions=output:1")
    assert done.code == 1
    assert "OFPFMFC_TABLE_FULL" in done.err + done.out


def test_ping_and_probe_are_answered(switch):
    assert switch.ofctl("probe").code == 0
    assert "64 bytes from" in switch.ofctl("ping").out


def test_a_monitor_sees_packet_ins_removed_flows_and_ports(switch, tmp_path):
    monitor = subprocess.Popen(
        ["ovs-ofctl", "-O", "OpenFlow13", "monitor", f"unix:{switch.path}", "65534"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OVS_RUNDIR": str(tmp_path)},
    )
    try:
        _wait_for(lambda: switch.ofctl("probe").code == 0)
        time.sleep(0.5)
        packet = PacketIn(1, 3, 0x76, match(in_port=1, reg0=5), bytes.fromhex(FRAME), 18)
        switch.call(switch.server.packet_in, packet)
        switch.ofctl("add-flow", "send_flow_rem,priority=4,actions=drop")
        switch.ofctl("del-flows")
        switch.datapath.attached = (SwitchPort(3, "tap-new", 5, True),)
        switch.call(switch.server.port_changed)
        time.sleep(0.5)
    finally:
        monitor.terminate()
        out, _ = monitor.communicate(timeout=10)
    assert "OFPT_PACKET_IN (OF1.3)" in out
    assert "table_id=3 cookie=0x76 total_len=18 reg0=0x5,in_port=1 (via action)" in out
    assert "OFPT_FLOW_REMOVED (OF1.3)" in out
    assert "reason=delete" in out
    assert "ADD: 3(tap-new)" in out
    assert "DEL: 1(tap-web)" in out


def _wait_for(condition) -> None:
    for _ in range(50):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen within 5 s")
