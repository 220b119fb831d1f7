"""Any changes, alone, together and in bundles, some refused: agent and datapath hold the same."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.switch.conversation import Controller, Conversation
from vnet.openflow.flow import Flow, Instructions, Output, ToGroup, match
from vnet.openflow.group import (
    ALL_GROUPS,
    ALL_METERS,
    Band,
    BandType,
    Bucket,
    Group,
    GroupType,
    Meter,
    MeterFlag,
)
from vnet.openflow.message import (
    BundleAdd,
    BundleControl,
    BundleControlType,
    FlowCommand,
    FlowMod,
    GroupCommand,
    GroupMod,
    Message,
    MeterCommand,
    MeterMod,
)

NUMBERS = (1, 2, 3)
REFUSED = 3
"""What has this number or priority the datapath refuses, at times."""

numbers = st.sampled_from(NUMBERS)
instructions = st.builds(
    lambda group, meter, port: Instructions(
        apply=(ToGroup(group),) if group else (Output(port),), meter=meter
    ),
    st.none() | numbers,
    st.none() | numbers,
    numbers,
)
flows = st.builds(lambda priority, do: Flow(0, priority, match(), do, cookie=priority), numbers, instructions)
groups = st.builds(
    lambda number, kind, port: Group(number, kind, (Bucket((Output(port),), watch_port=_watched(kind)),)),
    numbers,
    st.sampled_from(GroupType),
    numbers,
)
meters = st.builds(
    lambda number, rate: Meter(number, MeterFlag.KBPS, (Band(BandType.DROP, rate),)), numbers, numbers
)


def _watched(kind: GroupType) -> int:
    return 1 if kind is GroupType.FAST_FAILOVER else 0xFFFFFFFF


PUTS = [command for command in GroupCommand if command is not GroupCommand.DELETE]
changes = st.one_of(
    st.builds(FlowMod, st.sampled_from(FlowCommand), flows),
    st.builds(FlowMod, st.just(FlowCommand.ADD), flows),
    st.builds(GroupMod, st.sampled_from(PUTS), groups),
    st.builds(MeterMod, st.sampled_from((MeterCommand.ADD, MeterCommand.MODIFY)), meters),
    numbers.map(lambda number: GroupMod(GroupCommand.DELETE, Group(number, GroupType.ALL))),
    numbers.map(lambda number: MeterMod(MeterCommand.DELETE, Meter(number, MeterFlag.KBPS))),
    st.just(GroupMod(GroupCommand.DELETE, Group(ALL_GROUPS, GroupType.ALL))),
    st.just(MeterMod(MeterCommand.DELETE, Meter(ALL_METERS, MeterFlag.KBPS))),
)
some = st.lists(changes, min_size=1, max_size=6)
batches = st.lists(st.tuples(st.booleans(), st.booleans(), some), min_size=1, max_size=8)
"""(in a bundle, while the datapath refuses, changes)."""


@given(batches)
@settings(max_examples=300)
def test_agent_and_datapath_hold_the_same_whatever_is_asked_and_refused(batches):
    talk = Conversation()
    peer = talk.connect()
    for number in NUMBERS[:2]:
        peer.says(GroupMod(GroupCommand.ADD, Group(number, GroupType.ALL)))
        peer.says(MeterMod(MeterCommand.ADD, Meter(number, MeterFlag.KBPS, (Band(BandType.DROP, 9),))))
    for bundled, refusing, mods in batches:
        talk.datapath.refusals = {REFUSED: (2, 0)} if refusing else {}
        talk.datapath.refused_groups = {REFUSED: (6, 3)} if refusing else {}
        talk.datapath.refused_meters = {REFUSED: (12, 8)} if refusing else {}
        (_in_a_bundle if bundled else _together)(talk, peer, mods)
        _agree(talk)


def _in_a_bundle(talk: Conversation, peer: Controller, mods: list[Message]) -> None:
    for step in (BundleControlType.OPEN_REQUEST, *mods, BundleControlType.COMMIT_REQUEST):
        if isinstance(step, BundleControlType):
            peer.says(BundleControl(1, step, 3))
        else:
            peer.says(BundleAdd(1, step, 3))


def _together(talk: Conversation, peer: Controller, mods: list[Message]) -> None:
    """The first goes to the datapath at once, the others wait and follow as one commit."""
    talk.held = True
    for mod in mods:
        peer.says(mod)
    talk.held = False
    talk.answer()


def _agree(talk: Conversation) -> None:
    """The datapath itself checks that no flow needs what is not there."""
    tables, datapath = talk.agent.tables, talk.datapath
    in_force = {entry.flow.key: entry.flow for entry in tables.flows}
    assert in_force == datapath.installed
    assert {h.value.number: h.value for h in tables.groups.select(ALL_GROUPS)} == datapath.group_table
    assert {h.value.number: h.value for h in tables.meters.select(ALL_METERS)} == datapath.meter_table
    for number in NUMBERS:
        to_group = {e.flow.key for e in tables.flows.of_group(number)}
        through = {e.flow.key for e in tables.flows.of_meter(number)}
        assert to_group == {k for k, f in in_force.items() if ToGroup(number) in f.instructions.apply}
        assert through == {k for k, f in in_force.items() if f.instructions.meter == number}
