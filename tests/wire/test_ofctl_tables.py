"""`ovs-ofctl -O OpenFlow13` on groups, meters, ports and tables: what it prints and how it exits."""

from __future__ import annotations

import pytest

from vnet.openflow.flow import Instructions, Output, SetField, ToGroup
from vnet.openflow.group import Band, BandType, Bucket, Group, GroupType, Meter, MeterFlag
from vnet.openflow.message import PortConfig
from vnet.switch.datapath import Counter, GroupCounter, MeterCounter

SELECT = "group_id=7,type=select,bucket=weight:3,actions=output:1,bucket=weight:2,actions=output:2"
LIMIT = "meter=5,kbps,burst,stats,bands=type=drop,rate=1000,burst_size=100"


def did(switch, *words: str, options: tuple[str, ...] = ()) -> str:
    """What a command prints that must succeed."""
    done = switch.ofctl(*words, options=options)
    assert done.code == 0, (words, done)
    return done.out


def was_refused(switch, *words: str) -> str:
    """The error that a command names which must fail."""
    done = switch.ofctl(*words)
    assert done.code == 1, (words, done)
    return done.out + done.err


# -- groups ---------------------------------------------------------------------------------------


def test_groups_of_all_types_are_printed_as_they_were_given(switch):
    texts = (
        "group_id=1,type=all,bucket=actions=output:1,bucket=actions=set_field:02:00:00:00:00:09->eth_dst,output:2",
        SELECT,
        "group_id=8,type=indirect,bucket=actions=dec_ttl,output:1",
        "group_id=9,type=ff,bucket=watch_port:1,actions=output:1,bucket=watch_group:8,actions=output:2",
    )
    for text in texts:
        did(switch, "add-group", text)
    printed = did(switch, "dump-groups")
    for text in texts:
        assert text in printed, printed
    assert switch.datapath.group_table[7] == Group(
        7, GroupType.SELECT, (Bucket((Output(1, 0),), 3), Bucket((Output(2, 0),), 2))
    )
    assert switch.datapath.group_table[1].buckets[1].actions == (
        SetField("eth_dst", 0x020000000009),
        Output(2, 0),
    )


def test_groups_are_modified_counted_and_deleted(switch):
    did(switch, "add-group", SELECT)
    did(switch, "add-flow", "priority=4,actions=group:7")
    (flow,) = switch.datapath.installed.values()
    assert flow.instructions == Instructions(apply=(ToGroup(7),))
    switch.datapath.group_counts[7] = GroupCounter(Counter(9, 900), (Counter(6, 600), Counter(3, 300)))
    printed = did(switch, "dump-group-stats")
    assert "group_id=7" in printed
    assert "ref_count=1,packet_count=9,byte_count=900" in printed
    assert "bucket0:packet_count=6,byte_count=600,bucket1:packet_count=3,byte_count=300" in printed
    did(switch, "mod-group", "group_id=7,type=indirect,bucket=actions=output:2")
    assert "group_id=7,type=indirect,bucket=actions=output:2" in did(switch, "dump-groups")
    assert len(switch.dump("out_group=7")) == 1
    assert switch.dump("out_group=8") == []
    did(switch, "mod-group", "group_id=6,type=all", options=("--may-create",))
    assert set(switch.datapath.group_table) == {6, 7}
    did(switch, "del-groups", "group_id=6")
    did(switch, "del-groups", "group_id=7")
    assert switch.datapath.group_table == {}
    assert switch.dump() == []


def test_all_groups_are_deleted_with_the_flows_that_send_to_them(switch):
    for number in (1, 2):
        did(switch, "add-group", f"group_id={number},type=all")
        did(switch, "add-flow", f"priority={number},actions=group:{number}")
    did(switch, "add-flow", "priority=3,actions=output:1")
    did(switch, "del-groups")
    assert [flow.priority for flow in switch.datapath.installed.values()] == [3]


def test_group_features_are_printed(switch):
    printed = did(switch, "dump-group-features")
    for kind in ("all", "select", "indirect", "fast failover"):
        assert f"{kind} group:\n       max_groups=0xfff\n" in printed, printed
    assert "Types:  0xf\n" in printed
    assert "dec_ttl set_mpls_ttl" in printed


def test_groups_from_a_file_are_one_change_with_a_bundle(switch, tmp_path):
    groups = tmp_path / "groups"
    groups.write_text("".join(f"group_id={n},type=all,bucket=actions=output:1\n" for n in range(1, 101)))
    did(switch, "add-groups", str(groups), options=("--bundle",))
    assert len(switch.datapath.changes) == 1
    assert len(switch.datapath.group_table) == 100


def test_a_bundle_of_groups_and_flows_is_one_change(switch, tmp_path):
    text = tmp_path / "bundle"
    text.write_text(
        "group group_id=1,type=all,bucket=actions=output:1\n"
        "flow add priority=5,ip,actions=group:1\n"
        "group modify group_id=1,type=all,bucket=actions=output:2\n"
        "flow delete arp\n"
    )
    did(switch, "bundle", str(text))
    assert len(switch.datapath.changes) == 1
    assert switch.datapath.group_table[1].buckets == (Bucket((Output(2, 0),)),)


# -- meters ---------------------------------------------------------------------------------------


def test_meters_are_printed_as_they_were_given(switch):
    did(switch, "add-meter", LIMIT)
    did(switch, "add-meter", "meter=6,pktps,bands=type=dscp_remark,rate=10,prec_level=1,type=drop,rate=99")
    printed = did(switch, "dump-meters")
    assert "meter=5 kbps burst stats bands=\ntype=drop rate=1000 burst_size=100" in printed
    assert "meter=6 pktps bands=\ntype=dscp_remark rate=10 prec_level=1\ntype=drop rate=99" in printed
    assert switch.datapath.meter_table[6] == Meter(
        6, MeterFlag.PKTPS, (Band(BandType.DSCP_REMARK, 10, 0, 1), Band(BandType.DROP, 99))
    )
    assert "meter=5" not in did(switch, "dump-meter", "meter=6")


def test_meters_are_modified_counted_and_deleted(switch):
    did(switch, "add-meter", LIMIT)
    did(switch, "add-flow", "priority=4,actions=meter:5,output:1")
    (flow,) = switch.datapath.installed.values()
    assert flow.instructions == Instructions(apply=(Output(1, 0),), meter=5)
    switch.datapath.meter_counts[5] = MeterCounter(Counter(9, 900), (Counter(4, 400),))
    printed = did(switch, "meter-stats")
    assert "meter:5 flow_count:1 packet_in_count:9 byte_in_count:900" in printed
    assert "0: packet_count:4 byte_count:400" in printed
    did(switch, "mod-meter", "meter=5,pktps,bands=type=drop,rate=7")
    assert "meter=5 pktps bands=\ntype=drop rate=7" in did(switch, "dump-meters")
    did(switch, "del-meters", "meter=5")
    assert switch.datapath.meter_table == {}
    assert switch.dump() == []


def test_meter_features_are_printed(switch):
    printed = did(switch, "meter-features")
    assert "max_meter:4095 max_bands:8 max_color:0" in printed
    assert "band_types: drop dscp_remark" in printed
    assert "capabilities: kbps pktps burst stats" in printed


# -- ports ----------------------------------------------------------------------------------------


def test_ports_are_configured_word_by_word_and_tell_it(switch):
    for word, bit in (
        ("down", PortConfig.PORT_DOWN),
        ("no-receive", PortConfig.NO_RECV),
        ("no-forward", PortConfig.NO_FWD),
        ("no-packet-in", PortConfig.NO_PACKET_IN),
    ):
        did(switch, "mod-port", "1", word)
        assert switch.datapath.attached[0].config & bit, word
    printed = did(switch, "dump-ports-desc")
    assert "config:     PORT_DOWN NO_RECV NO_FWD NO_PACKET_IN\n     state:      LINK_DOWN" in printed
    for word in ("up", "receive", "forward", "packet-in"):
        did(switch, "mod-port", "tap-web", word)
    assert switch.datapath.attached[0].config == 0


# -- tables ---------------------------------------------------------------------------------------


def test_table_features_name_instructions_actions_and_fields(switch):
    printed = did(switch, "dump-table-features")
    for words in ("meter", "group", "write_actions", "push_mpls", "dec_mpls_ttl"):
        assert words in printed, words


# -- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("add-group", "group_id=1,type=all"), "OFPGMFC_GROUP_EXISTS"),
        (("mod-group", "group_id=9,type=all"), "OFPGMFC_UNKNOWN_GROUP"),
        (("add-group", "group_id=2,type=all,bucket=actions=group:1"), "OFPGMFC_CHAINING_UNSUPPORTED"),
        (("add-group", "group_id=2,type=ff,bucket=watch_group:8,actions=output:1"), "OFPGMFC_BAD_WATCH"),
        (("add-group", "group_id=2,type=all" + ",bucket=actions=output:1" * 65), "OFPGMFC_OUT_OF_BUCKETS"),
        (("add-flow", "actions=group:9"), "OFPBAC_BAD_OUT_GROUP"),
        (("add-meter", "meter=1,kbps,bands=type=drop,rate=1"), "OFPMMFC_METER_EXISTS"),
        (("mod-meter", "meter=9,kbps,bands=type=drop,rate=1"), "OFPMMFC_UNKNOWN_METER"),
        (("add-flow", "actions=meter:9,output:1"), "OFPMMFC_INVALID_METER"),
        (
            ("packet-out", "in_port=controller,packet=ffffffffffff02000000000108004500,actions=group:9"),
            "BAD_OUT_GROUP",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name_and_exit_code(switch, words, error):
    did(switch, "add-group", "group_id=1,type=all")
    did(switch, "add-meter", "meter=1,kbps,bands=type=drop,rate=1")
    assert error in was_refused(switch, *words)
    assert (len(switch.datapath.group_table), len(switch.datapath.meter_table)) == (1, 1)


@pytest.mark.parametrize("command", ["dump-meter", "meter-stats"])
def test_a_meter_that_is_not_there_is_no_answer(switch, command):
    """ovs-ofctl prints the error and yet exits with 0."""
    assert "OFPMMFC_UNKNOWN_METER" in did(switch, command, "meter=9")


def test_flows_saved_and_replaced_do_not_differ(switch, tmp_path):
    did(switch, "add-group", "group_id=1,type=all,bucket=actions=output:1")
    did(switch, "add-meter", "meter=1,kbps,bands=type=drop,rate=1")
    saved = tmp_path / "flows"
    texts = ("priority=3,ip,actions=meter:1,group:1", "priority=4,table=1,arp,actions=output:1,controller:64")
    saved.write_text("\n".join(texts) + "\n")
    did(switch, "replace-flows", str(saved))
    assert did(switch, "diff-flows", str(saved)) == ""
    assert len(switch.dump()) == len(texts)
