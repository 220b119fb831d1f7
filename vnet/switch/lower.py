"""Flows as the dataplane runs them: matches as masked words, actions as fixed-size records.

Pure. A match becomes (mask, words): which bits of which words of the parsed key must have which
value; `bpf/abi.h` draws the layout. What the dataplane cannot carry out is refused here, with the
OpenFlow error to answer with, before anything is written.
"""

from __future__ import annotations

from dataclasses import dataclass

from vnet.base.drop import DropReason
from vnet.openflow import cookie
from vnet.openflow.fields import FIELDS
from vnet.openflow.flow import (
    Action,
    Conntrack,
    Flow,
    Instructions,
    Match,
    Move,
    Output,
    OutputField,
    PopVlan,
    Port,
    PushVlan,
    SetField,
    ToGroup,
)
from vnet.openflow.message import (
    BadAction,
    BadInstruction,
    BadMatch,
    ErrorType,
    FlowModFailed,
    MeterModFailed,
)
from vnet.switch import abi
from vnet.switch.abi import CtFlag, Has, Op, Word
from vnet.switch.datapath import Refused

WORD_MASK = (1 << 64) - 1

MaskWords = tuple[tuple[int, int], ...]
"""(word, mask) pairs in word order: what rules that share a hash table have in common."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a field lies: bits `shift…` of `word`."""

    word: int
    shift: int
    has: int = 0
    """What a packet must have for the field to exist in it."""
    wide: bool = False
    """128 bits: the high half in `word`, the low one in the next."""


PLACES: dict[str, Place] = {
    "in_port": Place(Word.PORT, 32),
    "ip_proto": Place(Word.PORT, 24),
    "ip_dscp": Place(Word.PORT, 18),
    "ip_ecn": Place(Word.PORT, 16),
    "ip_frag": Place(Word.PORT, 8),
    "eth_dst": Place(Word.DST, 16),
    "vlan_pcp": Place(Word.DST, 13),
    "vlan_vid": Place(Word.DST, 0),
    "eth_src": Place(Word.SRC, 16),
    "eth_type": Place(Word.SRC, 0),
    "ipv4_src": Place(Word.IP_SRC + 1, 0),
    "arp_spa": Place(Word.IP_SRC + 1, 0),
    "ipv6_src": Place(Word.IP_SRC, 0, wide=True),
    "ipv4_dst": Place(Word.IP_DST + 1, 0),
    "arp_tpa": Place(Word.IP_DST + 1, 0),
    "ipv6_dst": Place(Word.IP_DST, 0, wide=True),
    **{f"{proto}_src": Place(Word.L4, 48, Has.L4) for proto in ("tcp", "udp", "sctp")},
    **{f"{proto}_dst": Place(Word.L4, 32, Has.L4) for proto in ("tcp", "udp", "sctp")},
    **{f"{proto}_type": Place(Word.L4, 48, Has.L4) for proto in ("icmpv4", "icmpv6")},
    **{f"{proto}_code": Place(Word.L4, 32, Has.L4) for proto in ("icmpv4", "icmpv6")},
    "arp_op": Place(Word.L4, 0),
    "arp_sha": Place(Word.SHA, 0),
    "ipv6_nd_sll": Place(Word.SHA, 0),
    "arp_tha": Place(Word.THA, 0),
    "ipv6_nd_tll": Place(Word.THA, 0),
    "ipv6_nd_target": Place(Word.ND_TARGET, 0, wide=True),
    "metadata": Place(Word.METADATA, 0),
    "ct_state": Place(Word.CT, 0),
    "ct_mark": Place(Word.CT, 32),
    "ct_zone": Place(Word.ZONE, 0),
    **{f"reg{n}": Place(Word.REGS + n // 2, 32 * (n % 2)) for n in range(8)},
}

WRITABLE = frozenset({"metadata", "vlan_vid", "vlan_pcp"} | {f"reg{n}" for n in range(8)})
"""Fields Set-Field and Move may write here: metadata, registers and the tag."""


@dataclass(frozen=True, slots=True)
class Record:
    """One `vnet_action`."""

    op: Op
    a: int = 0
    b: int = 0
    value: int = 0
    mask: int = 0


@dataclass(frozen=True, slots=True)
class PortList:
    """Outputs to several ports; None stands for every port of the switch (FLOOD, ALL)."""

    ports: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Lowered:
    """A flow as the dataplane runs it. `words` are the values under `mask`, in the same order."""

    mask: MaskWords
    words: tuple[int, ...]
    actions: tuple[Record | PortList, ...]
    goto: int
    drop_reason: DropReason


def lower(flow: Flow) -> Lowered:
    """Translate a flow. Raises `Refused` if this dataplane cannot carry it out."""
    if not 0 <= flow.table < abi.TABLES:
        raise Refused(ErrorType.FLOW_MOD_FAILED, FlowModFailed.BAD_TABLE_ID, f"no table {flow.table}")
    mask, words = lower_match(flow.match)
    actions = lower_instructions(flow.instructions)
    goto = flow.instructions.goto
    if goto is not None and not flow.table < goto < abi.TABLES:
        raise Refused(ErrorType.BAD_INSTRUCTION, BadInstruction.BAD_TABLE_ID, f"cannot go to table {goto}")
    return Lowered(mask, words, actions, abi.NO_TABLE if goto is None else goto, cookie.reason(flow.cookie))


def lower_match(match: Match) -> tuple[MaskWords, tuple[int, ...]]:
    """The (mask, words) of a match. Raises `Refused` for a field or a width this dataplane lacks."""
    values: dict[int, int] = {}
    masks: dict[int, int] = {}
    for name, value, mask in match:
        place = PLACES.get(name)
        if place is None:
            raise Refused(ErrorType.BAD_MATCH, BadMatch.BAD_FIELD, f"cannot match {name}")
        for word, part_value, part_mask in _spread(place, value, mask):
            values[word] = values.get(word, 0) | part_value
            masks[word] = masks.get(word, 0) | part_mask
    if len(masks) > abi.MASK_WORDS:
        why = f"a match over {len(masks)} words of the key; {abi.MASK_WORDS} are possible"
        raise Refused(ErrorType.FLOW_MOD_FAILED, FlowModFailed.TABLE_FULL, why)
    order = sorted(masks)
    return tuple((word, masks[word]) for word in order), tuple(values[word] for word in order)


def _spread(place: Place, value: int, mask: int) -> list[tuple[int, int, int]]:
    """(word, value, mask) of each word that the field constrains."""
    if place.has:
        return [(place.word, value << place.shift, mask << place.shift), (Word.PORT, place.has, place.has)]
    if not place.wide:
        return [(place.word, value << place.shift, mask << place.shift)]
    high, low = place.word, place.word + 1
    parts = ((high, value >> 64, mask >> 64), (low, value & WORD_MASK, mask & WORD_MASK))
    return [part for part in parts if part[2]]


def lower_instructions(instructions: Instructions) -> tuple[Record | PortList, ...]:
    """Action records in order of execution; runs of plain outputs become one list."""
    if instructions.meter is not None:
        why = f"there is no meter {instructions.meter}"
        raise Refused(ErrorType.METER_MOD_FAILED, MeterModFailed.UNKNOWN_METER, why)
    if instructions.write:
        raise Refused(ErrorType.BAD_INSTRUCTION, BadInstruction.UNSUP_INST, "Write-Actions is not supported")
    lowered: list[Record | PortList] = []
    for index, action in enumerate(instructions.apply):
        last = index + 1 == len(instructions.apply)
        _append(lowered, lower_action(action, last and instructions.goto is None))
    if instructions.metadata is not None:
        value, mask = instructions.metadata
        lowered.append(Record(Op.SET, a=Word.METADATA, value=value & mask, mask=mask))
    if len(lowered) > abi.RULE_ACTIONS:
        raise Refused(
            ErrorType.BAD_ACTION, BadAction.TOO_MANY, f"{len(lowered)} actions; {abi.RULE_ACTIONS} fit"
        )
    return tuple(lowered)


def _append(lowered: list[Record | PortList], action: Record | PortList) -> None:
    """Add an action; an output behind another one joins it in a list, which costs the packet one step."""
    before = lowered[-1] if lowered else None
    if isinstance(action, Record) and action.op == Op.OUTPUT and before is not None:
        if isinstance(before, Record) and before.op == Op.OUTPUT:
            lowered[-1] = PortList((before.b, action.b))
            return
        if isinstance(before, PortList) and before.ports is not None:
            lowered[-1] = PortList((*before.ports, action.b))
            return
    lowered.append(action)


def lower_action(action: Action, last: bool) -> Record | PortList:
    """One action. `last` tells whether nothing follows it in the flow."""
    match action:
        case Output():
            return _output(action)
        case OutputField(field):
            return _output_field(field)
        case PushVlan(ethertype):
            if ethertype != 0x8100:
                raise Refused(
                    ErrorType.BAD_ACTION, BadAction.BAD_ARGUMENT, f"cannot push a {ethertype:#x} tag"
                )
            return Record(Op.PUSH_VLAN, a=ethertype)
        case PopVlan():
            return Record(Op.POP_VLAN)
        case SetField(field, value, mask):
            return _set(field, value, mask)
        case Move():
            return _move(action)
        case Conntrack():
            return _conntrack(action, last)
        case ToGroup(group):
            raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_OUT_GROUP, f"there is no group {group}")
        case _:
            raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_TYPE, f"cannot do {type(action).__name__}")


def _output(action: Output) -> Record | PortList:
    match action.port:
        case Port.IN_PORT:
            return Record(Op.IN_PORT)
        case Port.CONTROLLER:
            return Record(Op.CONTROLLER, b=max(1, action.max_len))
        case Port.FLOOD | Port.ALL:
            return PortList(None)
        case port if 0 < port < abi.PORTS:
            return Record(Op.OUTPUT, b=port)
    raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_OUT_PORT, f"cannot send to port {action.port:#x}")


def _output_field(name: str) -> Record:
    place, bits = _field(name), FIELDS[name].full_mask
    if bits > WORD_MASK:
        raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_SET_TYPE, f"{name} is too wide for a port number")
    return Record(Op.OUTPUT_FIELD, a=place.word, b=place.shift, mask=bits & 0xFFFFFFFF)


def _field(name: str) -> Place:
    if name not in PLACES:
        raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_SET_TYPE, f"no field {name}")
    return PLACES[name]


def _writable(name: str) -> Place:
    if name not in WRITABLE:
        raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_SET_TYPE, f"cannot write {name}")
    return PLACES[name]


def _set(field: str, value: int, mask: int | None) -> Record:
    place = _writable(field)
    mask = FIELDS[field].full_mask if mask is None else mask
    return Record(Op.SET, a=place.word, value=(value & mask) << place.shift, mask=mask << place.shift)


def _move(action: Move) -> Record:
    source, target = _field(action.source), _writable(action.target)
    from_shift, to_shift = source.shift + action.source_offset, target.shift + action.target_offset
    if from_shift + action.bits > 64 or to_shift + action.bits > 64 or action.bits < 1:
        why = f"cannot move {action.bits} bits from {action.source} to {action.target}"
        raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_SET_ARGUMENT, why)
    a = source.word | target.word << 8
    return Record(Op.MOVE, a=a, b=from_shift | to_shift << 8 | action.bits << 16)


def _conntrack(action: Conntrack, last: bool) -> Record:
    flags = CtFlag.COMMIT if action.commit else CtFlag(0)
    if action.label or action.nat or action.zone_field:
        raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_ARGUMENT, "ct has no label, nat or zone of a field")
    if action.force:
        raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_ARGUMENT, "ct(force) is not supported")
    if action.table is not None:
        if not last or not 0 <= action.table < abi.TABLES:
            why = "ct(table=…) must be the flow's last action, without a goto"
            raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_ARGUMENT, why)
        flags |= CtFlag.RECIRC
    value, mask = action.mark or (0, 0)
    return Record(Op.CT, a=flags, b=action.zone | (action.table or 0) << 16, value=value & mask, mask=mask)
