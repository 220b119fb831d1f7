"""OpenFlow messages of every kind, right ones and others."""

from __future__ import annotations

import random
import struct
from functools import cache

from tests.exams.fuzz.mutate import mutated
from tests.net.twin_generator import programs
from tests.unit.openflow.test_codec import DROPPING, MESSAGES, REMARKING
from vnet.openflow.codec import HEADER, encode
from vnet.openflow.flow import (
    Conntrack,
    ConntrackClear,
    Flow,
    Instructions,
    Move,
    Nat,
    Output,
    OutputField,
    Port,
    Resubmit,
    SetField,
    ToGroup,
    match,
)
from vnet.openflow.message import (
    ONF,
    VERSION,
    BundleAdd,
    BundleControl,
    FlowCommand,
    FlowMod,
    FlowStatsRequest,
    GroupCommand,
    GroupMod,
    Message,
    MeterCommand,
    MeterMod,
    PacketOut,
)

MOST = 0xFFFF
"""Bytes of a message."""
_EXPERIMENTER, _BUNDLE_ADD = 4, 2301
_LABEL = (1 << 100, 1 << 100 | 3)
_NICIRA = (
    Conntrack(5, 4),
    Conntrack(commit=True, zone_field=("reg9", 4, 16), mark=(5, 0xF), label=_LABEL, nat=Nat(True, 4, (1, 9))),
    Conntrack(commit=True, force=True, nat=Nat(False, 6, (1 << 96, 1 << 97), (1, 9), 16)),
    Conntrack(table=3, nat=Nat()),
    ConntrackClear(),
    Resubmit(None, 5),
    Resubmit(7),
    SetField("reg1", 0x30, 0xF0),
    SetField("ct_mark", 5),
    SetField("ipv6_src", 1 << 100, 0xFF << 96),
    Move("eth_src", "reg1", 16, 0, 16),
    OutputField("reg2"),
    Output(Port.CONTROLLER, 64),
    ToGroup(1),
)


def valid(dice: random.Random) -> Message:
    """A message that there is nothing wrong with; most are of those that change something."""
    kind = dice.choice(
        (_any, _any, _flow_mod, _flow_mod, _nicira, _group_mod, _meter_mod, _packet_out, _bundle)
    )
    return kind(dice)


def _any(dice: random.Random) -> Message:
    return dice.choice(MESSAGES)


@cache
def _pool() -> tuple[tuple[Message, ...], ...]:
    """Flow_mods and group_mods of a few generated programs."""
    made = [programs(random.Random(f"fuzz-{number}")) for number in range(8)]
    flows = [flow for program in made for flow in program.flows]
    groups = [group for program in made for group in program.groups]
    return tuple(FlowMod(FlowCommand.ADD, flow) for flow in flows), tuple(
        GroupMod(GroupCommand.ADD, group) for group in groups
    )


def _flow_mod(dice: random.Random) -> Message:
    mod = dice.choice(_pool()[0])
    assert isinstance(mod, FlowMod)
    if not dice.randrange(4):
        return FlowStatsRequest(dice.choice((mod.flow.table, 255)), mod.flow.match)
    return FlowMod(dice.choice((*FlowCommand, FlowCommand.ADD)), mod.flow)


def _group_mod(dice: random.Random) -> Message:
    mod = dice.choice(_pool()[1])
    assert isinstance(mod, GroupMod)
    return GroupMod(dice.choice((*GroupCommand, GroupCommand.ADD)), mod.group)


def _meter_mod(dice: random.Random) -> Message:
    return MeterMod(dice.choice(tuple(MeterCommand)), dice.choice((DROPPING, REMARKING)))


def _nicira(dice: random.Random) -> Message:
    actions = tuple(dice.choices(_NICIRA, k=dice.randint(1, 5)))
    wanted = match(eth_type=dice.choice((0x0800, 0x86DD)))
    return FlowMod(FlowCommand.ADD, Flow(dice.randrange(3), dice.randrange(9), wanted, Instructions(actions)))


def _packet_out(dice: random.Random) -> Message:
    actions = tuple(dice.choices((*_NICIRA, Output(2), Output(Port.FLOOD)), k=dice.randint(0, 3)))
    return PacketOut(dice.choice((1, Port.CONTROLLER)), actions, dice.randbytes(dice.choice((14, 60, 3000))))


def _bundle(dice: random.Random) -> Message:
    number = dice.randrange(3)
    if dice.randrange(2):
        return BundleControl(number, dice.choice((0, 2, 4, 4, 6)), 3)
    return BundleAdd(number, dice.choice((_flow_mod, _group_mod, _nicira))(dice), 3)


# -- bytes ----------------------------------------------------------------------------------------


def right(dice: random.Random) -> bytes:
    """The bytes of a valid message."""
    return encode(valid(dice), dice.getrandbits(32))


def wrong(dice: random.Random) -> bytes:
    """The bytes of a message with something wrong about it; its length is mostly told rightly."""
    kind = dice.randrange(40)
    if kind == 0:
        return header(
            dice.randrange(256), dice.randbytes(dice.choice((0, 1, 7, 8, 56, 500))), dice.getrandbits(32)
        )
    if kind == 1:
        return nested(dice)
    if kind == 2:
        return _longest(dice)
    data = mutated(dice, right(dice), [right(dice)])
    return with_length(data) if len(data) >= HEADER.size and dice.randrange(8) else data


def header(number: int, body: bytes, xid: int = 0) -> bytes:
    """A whole message of whatever type."""
    return HEADER.pack(VERSION, number, HEADER.size + len(body), xid) + body


def with_length(data: bytes) -> bytes:
    """The message with its own length in its header."""
    return data[:2] + struct.pack("!H", min(len(data), MOST)) + data[4:MOST]


def nested(dice: random.Random) -> bytes:
    """Bundles in bundles, up to as many as fit a message."""
    data, xid = encode(valid(dice), 7), 7
    for _ in range(dice.choice((1, 2, 50, 2600))):
        if len(data) > MOST - 32:
            break
        data = header(_EXPERIMENTER, struct.pack("!IIIxxH", ONF, _BUNDLE_ADD, 5, 3) + data, xid)
    return data


def _longest(dice: random.Random) -> bytes:
    """A message as long as can be, of one part again and again."""
    data = right(dice)
    at = dice.randrange(len(data)) & ~7
    part = data[at : at + 8 * dice.randint(1, 4)] or bytes(8)
    filled = data[:at] + part * (MOST // len(part))
    return with_length(filled[: MOST & ~7])
