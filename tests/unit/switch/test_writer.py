"""What is written into the maps, read with the structs that are compared with the C code through BTF."""

from __future__ import annotations

import ctypes
import struct
from dataclasses import replace

import pytest

from tests.fakes.memory_maps import CPUS, index_keys, numbers, switch_maps
from tests.unit.switch.written import Switch, read
from vnet.base.drop import DropReason
from vnet.openflow import cookie
from vnet.openflow.flow import Flow, Instructions, Output, PopVlan, SetField, ToGroup, match
from vnet.openflow.group import Band, BandType, Bucket, Group, GroupType, Meter, MeterFlag
from vnet.openflow.message import FlowMod, GroupMod, MeterMod
from vnet.switch import abi
from vnet.switch.abi import Kind, Op, Trait, Word
from vnet.switch.datapath import Change
from vnet.switch.image import Image
from vnet.switch.live.writer import (
    MAX_COST,
    METER_TEXT,
    Writer,
    index_of,
    pack_action,
    pack_actions,
    pack_bucket,
    pack_group,
    pack_key,
    pack_list,
    pack_mask,
    pack_meter,
    pack_rule,
    pack_table,
)
from vnet.switch.lower import ALWAYS
from vnet.switch.lower_actions import GroupRef, MeterRef, PortList, Record
from vnet.switch.placed import PlacedActions, PlacedGroup, References, Staged, TableBank
from vnet.switch.staging import stage

MOST = 0xFFFFFFFF
REFERENCES = References({7: 3}, {4: 2})


# -- structs --------------------------------------------------------------------------------------


def test_a_mask_names_its_table_and_the_bits_of_its_words() -> None:
    found = read(abi.Mask, pack_mask((5, ((Word.PORT, 0xFF << 32), (Word.TUNNEL, (1 << 64) - 1)))))
    assert (found["n_words"], found["table"]) == (2, 5)
    assert found["word"] == [0, Word.TUNNEL] + [0] * 14
    assert found["mask"] == [0xFF << 32, (1 << 64) - 1] + [0] * (abi.MASK_WORDS - 2)


def test_a_key_is_filled_up_with_zeros() -> None:
    small, large = (1, 1 << 63), (1, 2, 3, 4, 5)
    assert index_of(small) == index_of(large[:4]) == "small_index"
    assert read(abi.SmallKey, pack_key(9, small)) == {"mask_id": 9, "words": [1, 1 << 63, 0, 0]}
    assert index_of(large) == "rule_index"
    assert read(abi.RuleKey, pack_key(9, large)) == {"mask_id": 9, "words": [*large, *[0] * 7]}


def staged_to_put(*put: Flow | Group | Meter) -> Staged:
    return stage(
        Image(),
        Change(
            tuple(v for v in put if isinstance(v, Flow)),
            put_groups=tuple(v for v in put if isinstance(v, Group)),
            put_meters=tuple(v for v in put if isinstance(v, Meter)),
        ),
    )


def test_a_rule_tells_its_actions_and_where_it_leads() -> None:
    marked = cookie.make("x", DropReason.SPOOF_IP)
    given = Flow(3, 500, match(in_port=1), Instructions((PopVlan(), Output(1)), goto=9), marked)
    first, placed = staged_to_put(Flow(0, 0), given).rules
    assert read(abi.Rule, pack_rule(placed)) == {
        "cookie": marked,
        "first_action": placed.actions.first_action,
        "n_actions": 2,
        "priority": 500,
        "table": 3,
        "goto_table": 9,
        "drop_reason": DropReason.SPOOF_IP,
        "miss": 0,
        "logged": 0,
    }
    logged = replace(given, cookie=cookie.make("x", DropReason.SPOOF_IP, log=True))
    assert read(abi.Rule, pack_rule(staged_to_put(logged).rules[0]))["logged"] == 1
    miss = read(abi.Rule, pack_rule(first))
    assert (miss["miss"], miss["goto_table"], miss["n_actions"]) == (1, abi.NO_TABLE, 0)


def test_a_list_of_actions_leads_to_no_table() -> None:
    found = read(abi.Rule, pack_list(PlacedActions(5, 40, (Record(Op.FLOOD),) * 3, ())))
    assert (found["first_action"], found["n_actions"], found["goto_table"]) == (40, 3, abi.NO_TABLE)
    assert (found["cookie"], found["drop_reason"], found["miss"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (Record(Op.SET, 0xFFFF, 0xFFFFFFFF, 1 << 63, 3), (Op.SET, 0xFFFF, 0xFFFFFFFF, 1 << 63, 3)),
        (PortList((1, 2)), (Op.OUTPUTS, 0, 900, 0, 0)),
        (GroupRef(7), (Op.GROUP, 0, 3, 0, 0)),
        (MeterRef(4), (Op.METER, 0, 2, 0, 0)),
    ],
)
def test_a_record_names_lists_groups_and_meters_by_their_place(
    record: Record | PortList | GroupRef | MeterRef, expected: tuple[int, ...]
) -> None:
    found = read(abi.Action, pack_action(record, 900, REFERENCES))
    assert tuple(found.values()) == expected


def test_each_list_of_a_rule_is_named_by_the_record_that_it_belongs_to() -> None:
    records = (PortList((1, 2)), Record(Op.POP_VLAN), PortList((3, 4)))
    packed = pack_actions(PlacedActions(1, 0, records, ((500, 3), (600, 3))), REFERENCES)
    assert [read(abi.Action, raw)["b"] for raw in packed] == [500, 0, 600]


def test_a_table_lists_its_masks_and_the_packets_that_it_asks_more_of() -> None:
    found = read(
        abi.Table, pack_table(TableBank(3, ((7, 500, Trait.ARP), (2, 1, Trait.CT << 7)), Kind.IP | Kind.MPLS))
    )
    assert (found["n_masks"], found["beyond"]) == (2, Kind.IP | Kind.MPLS)
    assert found["masks"] == [
        {"mask_id": 7, "max_priority": 500, "traits": 4},
        {"mask_id": 2, "max_priority": 1, "traits": 0x8000},
        *[{"mask_id": 0, "max_priority": 0, "traits": 0}] * (abi.TABLE_MASKS - 2),
    ]


def test_a_group_and_its_buckets() -> None:
    given = Group(7, GroupType.FAST_FAILOVER, (Bucket((Output(1),), watch_port=4), Bucket(weight=9)))
    placed = PlacedGroup(
        given, staged_to_put(given).groups[0].lowered, 1, 2, 30, 40, (PlacedActions(31, 0, (), ()),) * 2
    )
    assert read(abi.Group, pack_group(placed)) == {
        "type": GroupType.FAST_FAILOVER, "n_buckets": 2, "first_bucket": 40, "rule": 30,
    }  # fmt: skip
    watching, other = given.buckets
    assert read(abi.Bucket, pack_bucket(watching, 31)) == {"rule": 31, "watch_port": 4, "weight": 0}
    assert read(abi.Bucket, pack_bucket(other, 32)) == {"rule": 32, "watch_port": abi.NO_PORT, "weight": 9}


@pytest.mark.parametrize(
    ("flags", "band", "tokens"),
    [
        (MeterFlag.KBPS, Band(BandType.DROP, 100, 7), 100),
        (MeterFlag.KBPS | MeterFlag.BURST, Band(BandType.DROP, 100, 400), 400),
        (MeterFlag.KBPS | MeterFlag.BURST, Band(BandType.DROP, 100, 0), 100),
        (MeterFlag.PKTPS | MeterFlag.BURST, Band(BandType.DROP, 100, 3), 3),
        (MeterFlag.PKTPS, Band(BandType.DROP, 100), 100),
    ],
)
def test_a_bands_burst_is_what_was_given_or_a_seconds_rate(flags: MeterFlag, band: Band, tokens: int) -> None:
    found = abi.Meter.from_buffer_copy(pack_meter(Meter(1, flags | MeterFlag.STATS, (band,))))
    assert (found.bands[0].rate, found.bands[0].burst) == (100, tokens * 1_000_000_000)


@pytest.mark.parametrize(("rate", "burst"), [(1, 1), (5, 50), (7, 3), (1, MOST), (MOST, 1), (MOST, MOST)])
def test_a_bucket_is_full_when_it_must_be_and_till_then_its_tokens_fit_into_64_bits(
    rate: int, burst: int
) -> None:
    flags = MeterFlag.PKTPS | MeterFlag.BURST
    (band, *_) = abi.Meter.from_buffer_copy(
        pack_meter(Meter(1, flags, (Band(BandType.DROP, rate, burst),)))
    ).bands
    assert band.full_ns * rate >= band.burst + MAX_COST
    assert band.burst + (band.full_ns - 1) * rate < 1 << 63


def test_a_meter_has_its_unit_and_its_bands_in_order() -> None:
    bands = (Band(BandType.DSCP_REMARK, 10, precedence=2), Band(BandType.DROP, 20))
    raw = pack_meter(Meter(1, MeterFlag.PKTPS | MeterFlag.BURST | MeterFlag.STATS, bands))
    found = abi.Meter.from_buffer_copy(raw)
    assert len(raw) == ctypes.sizeof(abi.Meter)
    assert (found.flags, found.n_bands) == (MeterFlag.PKTPS, 2)
    assert [(b.rate, b.type, b.precedence) for b in found.bands[:3]] == [(10, 2, 2), (20, 1, 0), (0, 0, 0)]


# -- a whole change -------------------------------------------------------------------------------


FLOW = Flow(2, 5, match(in_port=1), Instructions((Output(1), Output(2), ToGroup(7)), meter=4))
GROUP = Group(7, GroupType.ALL, (Bucket((Output(1),)), Bucket((SetField("eth_dst", 1), Output(2)))))
METER = Meter(4, MeterFlag.KBPS, (Band(BandType.DROP, 10),))
ALL = Change((FLOW,), put_groups=(GROUP,), put_meters=(METER,))


def test_what_a_packet_follows_from_key_to_bucket_is_there() -> None:
    switch = Switch()
    staged = switch.write(ALL)
    ((mask, words, entry),) = staged.keys
    assert switch.at("masks", abi.Mask, mask)["table"] == 2
    assert switch.maps[index_of(words)].lookup(pack_key(mask, words)) == struct.pack("<I", entry)
    shown = switch.at("entries", abi.Entry, entry)
    (placed,) = staged.rules
    assert shown == {"rule": [placed.rule, 0], "version": [staged.version, 0]}
    assert switch.at("rules", abi.Rule, placed.rule)["n_actions"] == 3
    meter, outputs, group = (
        switch.at("actions", abi.Action, placed.actions.first_action + n) for n in range(3)
    )
    start = outputs["b"]
    assert isinstance(start, int)
    assert [switch.maps["outputs"].index(start + n) for n in range(3)] == [
        struct.pack("<I", n) for n in (2, 1, 2)
    ]
    slots = [
        switch.at(name, abi.Entry, reference)["rule"]
        for name, reference in (("group_entries", group["b"]), ("meter_entries", meter["b"]))
        if isinstance(reference, int)
    ]
    assert slots == [[staged.groups[0].slot, 0], [staged.meters[0].slot, 0]]
    stored = switch.at("groups", abi.Group, staged.groups[0].slot)
    assert (stored["type"], stored["n_buckets"]) == (GroupType.ALL, 2)
    first = stored["first_bucket"]
    assert isinstance(first, int)
    rules = [switch.at("buckets", abi.Bucket, first + n)["rule"] for n in (0, 1)]
    assert [switch.at("rules", abi.Rule, rule)["n_actions"] for rule in rules if isinstance(rule, int)] == [
        1,
        2,
    ]
    assert switch.at("meters", abi.Meter, staged.meters[0].slot)["n_bands"] == 1


def test_the_table_and_what_rules_read_go_to_the_bank_of_the_version() -> None:
    switch = Switch()
    staged = switch.commit(ALL)
    assert staged.version == 2
    assert switch.at("tables", abi.Table, 2)["n_masks"] == 1
    assert switch.at("tables", abi.Table, 2 + abi.TABLES)["n_masks"] == 0
    control = abi.Control.from_buffer_copy(switch.maps["control"].index(0) or b"")
    assert list(control.reads[1]) == [0] * abi.CACHE_WORDS
    staged = switch.write(Change((Flow(0, 1, match(eth_dst=1)),)))
    control = abi.Control.from_buffer_copy(switch.maps["control"].index(0) or b"")
    assert tuple(control.reads[1]) == staged.reads
    assert control.reads[1][Word.DST] == ALWAYS[Word.DST] | ((1 << 64) - 1 - 0xFFFF)
    assert switch.at("tables", abi.Table, 0 + abi.TABLES)["n_masks"] == 1


def test_what_is_written_anew_counts_from_zero() -> None:
    switch = Switch()
    staged = stage(switch.image, ALL)
    rules = (staged.rules[0].rule, *staged.groups[0].rules)
    for rule in rules:
        switch.maps["rule_counters"].set(rule, numbers(*[7] * 2 * CPUS))
        switch.maps["rule_folded"].set(rule, numbers(7, 7))
    first = staged.meters[0].slot * (abi.BANDS + 1)
    for n in range(abi.BANDS + 1):
        switch.maps["meter_counters"].set(first + n, numbers(*[7] * 2 * CPUS))
    state = switch.maps["meter_state"]
    state.set(staged.meters[0].slot, bytes([7] * state.value_size))
    switch.writer.write(staged)
    assert not any(state.index(staged.meters[0].slot) or b""), "as much may pass as a full bucket lets"
    for rule in rules:
        assert not any(switch.maps["rule_counters"].index(rule) or b"")
        assert not any(switch.maps["rule_folded"].index(rule) or b"")
    for n in range(abi.BANDS + 1):
        assert not any(switch.maps["meter_counters"].index(first + n) or b"")


def test_an_entry_that_was_anothers_is_wiped_before_a_key_leads_to_it() -> None:
    switch = Switch()
    switch.maps["entries"].set(0, bytes(abi.Entry((abi.c_uint32 * 2)(9, 9), (abi.c_uint32 * 2)(8, 9))))
    switch.write(Change((Flow(0, 1),)))
    assert switch.at("entries", abi.Entry, 0) == {"rule": [1, 0], "version": [2, 0]}


def test_openflow_texts_tell_since_when_and_until_when_and_where() -> None:
    switch = Switch()
    staged = switch.commit(ALL)
    (flow,), (group,), (meter,) = staged.rules, staged.groups, staged.meters
    texts = switch.texts()
    assert {number: type(message) for number, (message, _) in texts.items()} == {
        flow.rule: FlowMod, group.rule: GroupMod, METER_TEXT | meter.slot: MeterMod,
    }  # fmt: skip
    message, told = texts[flow.rule]
    assert isinstance(message, FlowMod)
    assert (message.flow, told) == (FLOW, (2, 0, 0))
    assert texts[group.rule][1] == (2, 0, group.entry << 16 | group.slot)
    assert texts[METER_TEXT | meter.slot][1] == (2, 0, meter.entry << 16 | meter.slot)


def test_texts_of_what_goes_are_marked_before_the_flip_and_deleted_after_it() -> None:
    switch = Switch()
    switch.commit(ALL)
    gone = Change(remove=(FLOW.key,), remove_groups=(7,), remove_meters=(4,))
    staged = stage(switch.image, gone)
    switch.writer.write(staged)
    assert [told[:2] for _, told in switch.texts().values()] == [(2, 3)] * 3
    assert len(index_keys(switch.maps)) == 1
    switch.writer.clean(staged)
    assert switch.texts() == {}
    assert index_keys(switch.maps) == set()


def test_a_long_text_is_deleted_whole() -> None:
    switch = Switch()
    long = Flow(0, 1, instructions=Instructions(tuple(SetField(f"reg{n}", n) for n in range(16))))
    switch.commit(Change((long,)))
    assert len(list(switch.maps["rule_text"].keys())) > 1
    ((message, _),) = switch.texts().values()
    assert isinstance(message, FlowMod)
    assert message.flow == long
    switch.commit(Change(remove=(long.key,)))
    assert list(switch.maps["rule_text"].keys()) == []


def test_a_controllers_actions_lie_behind_all_others() -> None:
    switch = Switch()
    switch.writer.write_packet_out((Record(Op.OUTPUT, b=1), GroupRef(7)), REFERENCES)
    rule = switch.at("rules", abi.Rule, abi.PACKET_OUT)
    assert (rule["first_action"], rule["n_actions"]) == (abi.ACTIONS - abi.RULE_ACTIONS, 2)
    ops = [switch.at("actions", abi.Action, abi.ACTIONS - abi.RULE_ACTIONS + n)["op"] for n in (0, 1)]
    assert ops == [Op.OUTPUT, Op.GROUP]


def test_an_entry_shows_a_rule_before_the_version_from_which_on_it_does() -> None:
    """A packet that reads between the two stores must not follow what was there before."""
    stores: list[int] = []

    class Window:
        def __setitem__(self, at: int | slice, _value: object) -> None:
            if isinstance(at, int):
                stores.append(at)

    maps = switch_maps()
    maps["entries"].window = Window  # type: ignore[attr-defined]
    Writer(maps).write(stage(Image(), Change((Flow(0, 1),))))  # type: ignore[arg-type]
    assert stores == [0, 2]
