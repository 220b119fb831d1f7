"""An agent that starts anew finds what is in force, and wipes what never came into force."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.memory_maps import index_keys
from tests.unit.switch.test_image_groups import change, flow, group, meter, values
from tests.unit.switch.written import Switch
from vnet.base.errors import HostError
from vnet.openflow.flow import Flow, Instructions, Output, match
from vnet.openflow.group import Group, Meter
from vnet.switch import abi
from vnet.switch.datapath import Refused
from vnet.switch.image import Image
from vnet.switch.live import adoption

SEVERAL = Flow(1, 3, match(eth_dst=1), Instructions((Output(1), Output(2)), goto=2))
BEFORE = change(flow(1, to=7), flow(2, by=4), SEVERAL, group(7, 1, 2), meter(4))
AFTER = change(
    flow(1), flow(2, by=5), Flow(3, 1, match(eth_src=1)), group(8, 1), meter(5),
    gone=(SEVERAL, group(7), meter(4)),
)  # fmt: skip


def known(image: Image) -> tuple[object, ...]:
    """All that an image says of the maps, but for the pools."""
    classifier = image.classifier
    slots = {k: (slot.entry, tuple(slot.flows), max(slot.shown)) for k, slot in classifier.slots.items()}
    values = dict(image.placed), dict(image.groups), dict(image.meters)
    entries = dict(image.references.groups), dict(image.references.meters)
    return image.version, values, entries, dict(classifier.masks), slots, classifier.reads


def test_what_is_in_force_is_read_back_as_it_was() -> None:
    switch = Switch()
    for step in (BEFORE, AFTER, BEFORE):
        switch.commit(step)
        before = known(switch.image)
        switch.restart()
        assert known(switch.image) == before


def test_a_change_that_was_written_but_not_flipped_is_wiped() -> None:
    switch = Switch()
    switch.commit(BEFORE)
    before, texts, keys = known(switch.image), switch.texts(), index_keys(switch.maps)
    switch.write(AFTER)
    switch.restart()
    assert known(switch.image) == before
    assert switch.texts() == texts
    assert index_keys(switch.maps) == keys
    in_force = {
        "entries": [slot.entry for slot in switch.image.classifier.slots.values()],
        "group_entries": list(switch.image.references.groups.values()),
        "meter_entries": list(switch.image.references.meters.values()),
    }
    for name, entries in in_force.items():
        for entry in entries:
            shown = abi.Entry.from_buffer_copy(switch.maps[name].index(entry) or b"")
            assert max(shown.version) == 2, name


def test_a_change_that_was_flipped_but_not_cleaned_up_is_in_force() -> None:
    switch, clean = Switch(), Switch()
    for each in (switch, clean):
        each.commit(BEFORE)
    switch.flip(switch.write(AFTER))
    clean.commit(AFTER)
    switch.restart()
    assert known(switch.image) == known(clean.image)
    assert switch.texts() == clean.texts()
    assert index_keys(switch.maps) == index_keys(clean.maps)


def test_what_is_put_after_a_restart_takes_nothing_that_is_in_use() -> None:
    switch = Switch()
    switch.commit(BEFORE)
    switch.restart()
    placed = switch.image.placed.values()
    rules = {p.rule for p in placed} | {rule for g in switch.image.groups.values() for rule in g.rules}
    staged = switch.commit(change(flow(3, to=9), group(9, 1), meter(9)))
    assert rules.isdisjoint({staged.rules[0].rule, *staged.groups[0].rules})
    assert staged.groups[0].entry != switch.image.groups[7].entry
    assert staged.meters[0].slot != switch.image.meters[4].slot


def test_lists_of_ports_are_found_where_their_records_say() -> None:
    switch = Switch()
    switch.commit(BEFORE)
    lists = switch.image.placed[SEVERAL.key].actions.lists
    switch.restart()
    assert switch.image.placed[SEVERAL.key].actions.lists == lists
    assert lists[0][1] == 3


@settings(max_examples=60)
@given(st.lists(st.tuples(values, values, st.sampled_from(["written", "flipped", "done"])), max_size=5))
def test_wherever_an_agent_is_killed_the_next_one_knows_what_packets_meet(
    steps: list[tuple[list[Flow | Group | Meter], list[Flow | Group | Meter], str]],
) -> None:
    switch = Switch()
    for put, gone, end in steps:
        before = known(switch.image)
        try:
            staged = switch.write(change(*put, gone=tuple(gone)))
        except Refused:
            continue
        after = set(switch.image.flows), dict(switch.image.groups), dict(switch.image.meters)
        if end != "written":
            switch.flip(staged)
        if end == "done":
            switch.writer.clean(staged)
        switch.restart()
        if end == "written":
            assert known(switch.image) == before
        assert end == "written" or after == (
            set(switch.image.flows),
            switch.image.groups,
            switch.image.meters,
        )
        again = adoption.read(switch.maps, switch.image.ports)  # type: ignore[arg-type]
        assert known(again) == known(switch.image)


def test_what_a_killed_agent_wrote_of_a_table_is_not_searched_when_another_table_is_changed() -> None:
    """Its mask's number is given to another table: packets would meet that table's flows in this one."""
    switch = Switch()
    switch.write(change(flow(1)))
    switch.restart()
    switch.commit(change(Flow(3, 1, match(eth_src=1))))
    bank = (switch.image.version & 1) * abi.TABLES
    searched = [
        abi.Table.from_buffer_copy(switch.maps["tables"].index(bank + n) or b"").n_masks for n in range(4)
    ]
    assert searched == [0, 0, 0, 1]


@pytest.mark.parametrize("name", ["rules", "actions", "tables", "masks", "groups", "rule_text"])
def test_maps_that_hold_something_else_than_their_texts_mean_are_not_taken_over(name: str) -> None:
    switch = Switch()
    switch.commit(BEFORE)
    group, placed = switch.image.groups[7], switch.image.placed[SEVERAL.key]
    index = {
        "rules": placed.rule,
        "actions": placed.actions.first_action,
        "tables": (switch.image.version & 1) * abi.TABLES,
        "masks": next(iter(switch.image.classifier.masks.values())),
        "groups": group.slot,
    }
    key = index[name].to_bytes(4, "little") if name in index else next(switch.maps[name].keys())
    raw = bytearray(switch.maps[name].lookup(key) or b"")
    raw[16 if name == "rule_text" else 0] ^= 1
    switch.maps[name].update(key, bytes(raw))
    with pytest.raises(HostError, match="cannot be read back"):
        switch.restart()
