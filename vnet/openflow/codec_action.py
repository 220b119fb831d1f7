"""Actions and instructions <-> bytes: OpenFlow 1.3.5 sections 7.2.4 and 7.2.5, and nicira-ext.h.

Lengths are checked here; the library then sees one action at a time. What `vnet.openflow.flow` has
no value for (groups, queues, MPLS, PBB, TTL, resubmit …) is refused, never dropped silently.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from vnet.openflow.codec_error import CodecError
from vnet.openflow.codec_library import ofproto, parser
from vnet.openflow.codec_match import SIZES, decode_field, encode_field, field_named, meets_prerequisites
from vnet.openflow.fields import ETH_SVLAN, ETH_VLAN, FIELDS, VLAN_PRESENT, Field
from vnet.openflow.flow import (
    Action,
    Conntrack,
    Instructions,
    Match,
    Move,
    Output,
    OutputField,
    PopVlan,
    Port,
    PushVlan,
    SetField,
)
from vnet.openflow.message import BadAction, BadInstruction, BadMatch, ErrorType

_CACHED = 1 << 16
_NICIRA = 0x00002320
_NO_TABLE = 0xFF
_CT_COMMIT, _CT_FORCE = 1, 2
_WHOLE_PACKET = 0xFFFF
_LOAD_BITS = 64
_OUTPUTS = frozenset(Port) - {Port.MAX, Port.ANY}


def _bad(code: BadAction) -> CodecError:
    return CodecError(ErrorType.BAD_ACTION, code)


def _bad_instruction(code: BadInstruction) -> CodecError:
    return CodecError(ErrorType.BAD_INSTRUCTION, code)


# -- encoding actions -----------------------------------------------------------------------------


def _user(name: str, value: int) -> Any:
    """A value in the library's form: text for addresses, a number for the rest."""
    number = ofproto.oxm_from_user_header(name)
    return ofproto.oxm_to_user(number, value.to_bytes(SIZES[name], "big"), None)[1]


def _range(offset: int, bits: int) -> int:
    """`ofs_nbits` of nicira-ext.h."""
    return offset << 6 | (bits - 1)


def _output_field(action: OutputField) -> Any:
    return parser.NXActionOutputReg(_range(0, FIELDS[action.field].bits), action.field, _WHOLE_PACKET)


def _set_field(action: SetField) -> Any:
    field = FIELDS[action.field]
    if action.mask in (None, field.full_mask):
        return parser.OFPActionSetField(**{action.field: _user(action.field, action.value)})
    return _load(action.field, action.value, action.mask or 0)


class _Load2:
    """NXAST_REG_LOAD2; the library's own fails for masked values of more than 32 bits."""

    def __init__(self, name: str, value: int, mask: int) -> None:
        self._field = encode_field(name, value & mask, mask)

    def serialize(self, buffer: bytearray, offset: int) -> None:
        length = 10 + len(self._field)
        header = struct.pack("!HHIH", ofproto.OFPAT_EXPERIMENTER, length + -length % 8, _NICIRA, _REG_LOAD2)
        buffer[offset:] = header + self._field + bytes(-length % 8)


def _load(name: str, value: int, mask: int) -> Any:
    """NXAST_REG_LOAD where the mask is one run of bits, NXAST_REG_LOAD2 otherwise."""
    offset = (mask & -mask).bit_length() - 1
    bits = mask.bit_length() - offset
    if mask and bits <= _LOAD_BITS and mask >> offset == (1 << bits) - 1:
        return parser.NXActionRegLoad(_range(offset, bits), name, (value & mask) >> offset)
    return _Load2(name, value, mask)


def _move(action: Move) -> Any:
    return parser.NXActionRegMove(
        action.source, action.target, action.bits, action.source_offset, action.target_offset
    )


def _conntrack(action: Conntrack) -> Any:
    flags = _CT_COMMIT * action.commit | _CT_FORCE * action.force
    nested = [] if action.mark is None else [_set_field(SetField("ct_mark", *action.mark))]
    table = _NO_TABLE if action.table is None else action.table
    return parser.NXActionCT(flags, "", action.zone, table, 0, nested)


_BUILDERS: Mapping[type[Action], Callable[[Any], Any]] = {
    Output: lambda action: parser.OFPActionOutput(action.port, action.max_len),
    OutputField: _output_field,
    PushVlan: lambda action: parser.OFPActionPushVlan(action.ethertype),
    PopVlan: lambda action: parser.OFPActionPopVlan(),
    SetField: _set_field,
    Move: _move,
    Conntrack: _conntrack,
}


@lru_cache(_CACHED)
def encode_action(action: Action) -> bytes:
    """One action with its padding."""
    buffer = bytearray()
    _BUILDERS[type(action)](action).serialize(buffer, 0)
    return bytes(buffer)


def encode_actions(actions: tuple[Action, ...]) -> bytes:
    """A list of actions without any header."""
    return b"".join([encode_action(action) for action in actions])


# -- decoding actions -----------------------------------------------------------------------------


def _records(data: bytes, fault: CodecError) -> Iterator[tuple[int, bytes]]:
    """Split (type, length, …) records of multiples of 8 bytes; raises `fault` for a bad length."""
    offset = 0
    while offset < len(data):
        if len(data) - offset < 8:
            raise fault
        kind, length = struct.unpack_from("!HH", data, offset)
        if length < 8 or length % 8 or offset + length > len(data):
            raise fault
        yield kind, data[offset : offset + length]
        offset += length


def decode_actions(data: bytes) -> tuple[Action, ...]:
    """Raises: CodecError of type BAD_ACTION."""
    return tuple(decode_action(raw) for _, raw in _records(data, _bad(BadAction.BAD_LEN)))


@lru_cache(_CACHED)
def decode_action(raw: bytes) -> Action:
    """One action; `raw` is as long as its header says."""
    kind = struct.unpack_from("!H", raw)[0]
    if kind == ofproto.OFPAT_EXPERIMENTER:
        return _decode_nicira(raw)
    if kind not in _STANDARD:
        raise _bad(_REFUSED.get(kind, BadAction.BAD_TYPE))
    length, read = _STANDARD[kind]
    if length is not None and length != len(raw):
        raise _bad(BadAction.BAD_LEN)
    return read(raw)


def _decode_nicira(raw: bytes) -> Action:
    if struct.unpack_from("!I", raw, 4)[0] != _NICIRA:
        raise _bad(BadAction.BAD_EXPERIMENTER)
    if len(raw) < 16:
        raise _bad(BadAction.BAD_LEN)
    subtype = struct.unpack_from("!H", raw, 8)[0]
    if subtype not in _NICIRA_ACTIONS:
        raise _bad(BadAction.BAD_EXP_TYPE)
    least, read = _NICIRA_ACTIONS[subtype]
    if len(raw) < least:
        raise _bad(BadAction.BAD_LEN)
    return read(raw)


def _parse(raw: bytes) -> Any:
    """The library's view of one action whose length was checked."""
    try:
        return parser.OFPAction.parser(raw, 0)
    except Exception as error:  # it reports malformed input by whatever the parse trips over
        raise _bad(BadAction.BAD_ARGUMENT) from error


def _read_output(raw: bytes) -> Output:
    action = _parse(raw)
    if action.port == 0 or action.port > Port.MAX and action.port not in _OUTPUTS:
        raise _bad(BadAction.BAD_OUT_PORT)
    return Output(action.port, action.max_len)  # read back as it was sent, also where it means nothing


def _read_push_vlan(raw: bytes) -> PushVlan:
    ethertype = _parse(raw).ethertype
    if ethertype not in (ETH_VLAN, ETH_SVLAN):
        raise _bad(BadAction.BAD_ARGUMENT)
    return PushVlan(ethertype)


def _writable(name: str) -> Field:
    field = field_named(name)
    if field is None:
        raise _bad(BadAction.BAD_SET_TYPE)
    if not field.writable:
        raise _bad(BadAction.BAD_SET_ARGUMENT)
    return field


def _oxm_in_action(raw: bytes, offset: int) -> tuple[str, int, int]:
    """The OXM at `offset`, its faults told as those of a Set-Field."""
    if offset + 4 > len(raw) or offset + 4 + raw[offset + 3] > len(raw):
        raise _bad(BadAction.BAD_SET_LEN)
    try:
        return decode_field(raw[offset : offset + 4 + raw[offset + 3]])
    except CodecError as error:
        raise _bad(_SET_FAULTS.get(error.code, BadAction.BAD_SET_ARGUMENT)) from error


_SET_FAULTS: Mapping[int, BadAction] = {
    BadMatch.BAD_FIELD: BadAction.BAD_SET_TYPE,
    BadMatch.BAD_LEN: BadAction.BAD_SET_LEN,
}


def _read_set_field(raw: bytes, writable: Callable[[str], Field] = _writable) -> SetField:
    name, value, mask = _oxm_in_action(raw, 4)
    return _written(writable(name), value, mask)


def _written(field: Field, value: int, mask: int) -> SetField:
    if mask == 0 or mask != field.full_mask and not field.maskable:
        raise _bad(BadAction.BAD_SET_ARGUMENT)
    if field.name == "vlan_vid" and mask & VLAN_PRESENT and not value & VLAN_PRESENT:
        raise _bad(BadAction.BAD_SET_ARGUMENT)
    return SetField(field.name, value, None if mask == field.full_mask else mask)


def _read_load(raw: bytes, writable: Callable[[str], Field] = _writable) -> SetField:
    action = _parse(raw)
    field, offset, bits = writable(action.dst), action.ofs_nbits >> 6, (action.ofs_nbits & 0x3F) + 1
    if offset + bits > field.bits or action.value >> bits:
        raise _bad(BadAction.BAD_ARGUMENT)
    mask = ((1 << bits) - 1) << offset
    return SetField(field.name, action.value << offset, None if mask == field.full_mask else mask)


def _read_load2(raw: bytes, writable: Callable[[str], Field] = _writable) -> SetField:
    name, value, mask = _oxm_in_action(raw, 10)
    return _written(writable(name), value, mask)


def _read_move(raw: bytes) -> Move:
    action = _parse(raw)
    source, target = field_named(action.src_field), _writable(action.dst_field)
    if source is None:
        raise _bad(BadAction.BAD_SET_TYPE)
    if not action.n_bits or action.src_ofs + action.n_bits > source.bits:
        raise _bad(BadAction.BAD_ARGUMENT)
    if action.dst_ofs + action.n_bits > target.bits:
        raise _bad(BadAction.BAD_ARGUMENT)
    return Move(source.name, target.name, action.n_bits, action.src_ofs, action.dst_ofs)


def _read_output_field(raw: bytes) -> OutputField:
    action = _parse(raw)
    field = field_named(action.src)
    if field is None or action.ofs_nbits != _range(0, min(field.bits, 64)):
        raise _bad(BadAction.BAD_ARGUMENT)
    return OutputField(field.name)


def _read_conntrack(raw: bytes) -> Conntrack:
    flags, zone_source, zone, table, algorithm = struct.unpack_from("!HIHB3xH", raw, 10)
    commit, force = bool(flags & _CT_COMMIT), bool(flags & _CT_FORCE)
    nested = tuple(_records(raw[24:], _bad(BadAction.BAD_LEN)))
    if flags & ~(_CT_COMMIT | _CT_FORCE) or zone_source or algorithm:
        raise _bad(BadAction.BAD_ARGUMENT)
    if (force or nested) and not commit:
        raise _bad(BadAction.BAD_ARGUMENT)
    mark = _read_mark(tuple(record for _, record in nested))
    return Conntrack(zone, None if table == _NO_TABLE else table, commit, force, mark)


def _mark_only(name: str) -> Field:
    """Of the connection's own fields only the mark can be written, and only inside `ct`."""
    if name != "ct_mark":
        raise _bad(BadAction.BAD_SET_ARGUMENT)
    return FIELDS[name]


def _read_mark(nested: tuple[bytes, ...]) -> tuple[int, int] | None:
    value = written = 0
    for raw in nested:
        action = _read_nested(raw)
        mask = FIELDS["ct_mark"].full_mask if action.mask is None else action.mask
        value, written = value & ~mask | action.value, written | mask
    return (value, written) if nested else None


def _read_nested(raw: bytes) -> SetField:
    kind = struct.unpack_from("!H", raw)[0]
    if kind == ofproto.OFPAT_SET_FIELD:
        return _read_set_field(raw, _mark_only)
    if kind != ofproto.OFPAT_EXPERIMENTER or struct.unpack_from("!I", raw, 4)[0] != _NICIRA:
        raise _bad(BadAction.BAD_TYPE)
    read = {_REG_LOAD: _read_load, _REG_LOAD2: _read_load2}.get(struct.unpack_from("!H", raw, 8)[0])
    if read is None:
        raise _bad(BadAction.BAD_EXP_TYPE)
    if len(raw) < 24:
        raise _bad(BadAction.BAD_LEN)
    return read(raw, _mark_only)


_REG_MOVE, _REG_LOAD, _OUTPUT_REG, _REG_LOAD2, _CT = 6, 7, 15, 33, 35
"""Subtypes of Nicira actions (Open vSwitch, lib/ofp-actions.c, enum ofp_raw_action_type)."""

_STANDARD: Mapping[int, tuple[int | None, Callable[[bytes], Action]]] = {
    ofproto.OFPAT_OUTPUT: (16, _read_output),
    ofproto.OFPAT_PUSH_VLAN: (8, _read_push_vlan),
    ofproto.OFPAT_POP_VLAN: (8, lambda raw: PopVlan()),
    ofproto.OFPAT_SET_FIELD: (None, _read_set_field),
}
"""By action type: the exact length if there is one, and how to read it."""

_NICIRA_ACTIONS: Mapping[int, tuple[int, Callable[[bytes], Action]]] = {
    _REG_MOVE: (24, _read_move),
    _REG_LOAD: (24, _read_load),
    _OUTPUT_REG: (24, _read_output_field),
    _REG_LOAD2: (24, _read_load2),
    _CT: (24, _read_conntrack),
}
"""By subtype: the least length, and how to read it."""

_REFUSED = {
    ofproto.OFPAT_GROUP: BadAction.BAD_OUT_GROUP,
    ofproto.OFPAT_SET_QUEUE: BadAction.BAD_QUEUE,
}
"""Actions of OpenFlow that name what this switch has none of; any other is BAD_TYPE."""


# -- instructions ---------------------------------------------------------------------------------


def _encode_list(kind: int, actions: tuple[Action, ...]) -> bytes:
    body = encode_actions(actions)
    return struct.pack("!HHxxxx", kind, 8 + len(body)) + body


@lru_cache(_CACHED)
def encode_instructions(instructions: Instructions) -> bytes:
    """In the order of execution (section 5.9)."""
    parts = []
    if instructions.apply:
        parts.append(_encode_list(ofproto.OFPIT_APPLY_ACTIONS, instructions.apply))
    if instructions.clear:
        parts.append(_encode_list(ofproto.OFPIT_CLEAR_ACTIONS, ()))
    if instructions.write:
        parts.append(_encode_list(ofproto.OFPIT_WRITE_ACTIONS, instructions.write))
    if instructions.metadata is not None:
        parts.append(struct.pack("!HHxxxxQQ", ofproto.OFPIT_WRITE_METADATA, 24, *instructions.metadata))
    if instructions.goto is not None:
        parts.append(struct.pack("!HHBxxx", ofproto.OFPIT_GOTO_TABLE, 8, instructions.goto))
    return b"".join(parts)


@lru_cache(_CACHED)
def decode_instructions(data: bytes) -> Instructions:
    """Raises: CodecError of type BAD_INSTRUCTION or BAD_ACTION."""
    fault = _bad_instruction(BadInstruction.BAD_LEN)
    read: dict[str, Any] = {}
    for kind, raw in _records(data, fault):
        if kind not in _INSTRUCTIONS:
            raise _bad_instruction(_REFUSED_INSTRUCTIONS.get(kind, BadInstruction.UNKNOWN_INST))
        name, decode, length = _INSTRUCTIONS[kind]
        if name in read:
            raise _bad_instruction(BadInstruction.DUP_INST)
        if length is not None and length != len(raw):
            raise fault
        read[name] = decode(raw)
    return Instructions(**read)


_INSTRUCTIONS: Mapping[int, tuple[str, Callable[[bytes], object], int | None]] = {
    ofproto.OFPIT_GOTO_TABLE: ("goto", lambda raw: raw[4], 8),
    ofproto.OFPIT_WRITE_METADATA: ("metadata", lambda raw: struct.unpack_from("!QQ", raw, 8), 24),
    ofproto.OFPIT_WRITE_ACTIONS: ("write", lambda raw: decode_actions(raw[8:]), None),
    ofproto.OFPIT_APPLY_ACTIONS: ("apply", lambda raw: decode_actions(raw[8:]), None),
    ofproto.OFPIT_CLEAR_ACTIONS: ("clear", lambda raw: True, 8),
}
"""By instruction type: the attribute of Instructions, how to read it, its exact length."""

_REFUSED_INSTRUCTIONS = {
    ofproto.OFPIT_METER: BadInstruction.UNSUP_INST,
    ofproto.OFPIT_EXPERIMENTER: BadInstruction.BAD_EXPERIMENTER,
}


# -- match and actions together -------------------------------------------------------------------


def check_consistent(match: Match, actions: tuple[Action, ...]) -> None:
    """Refuse actions on headers that the match (and the actions before) does not say are there.

    Raises: CodecError with MATCH_INCONSISTENT, as Open vSwitch does for OpenFlow 1.3.
    """
    known = {name: (value, mask) for name, value, mask in match}
    for action in actions:
        if any(not meets_prerequisites(field, known) for field in _touched(action)):
            raise _bad(BadAction.MATCH_INCONSISTENT)
        if isinstance(action, PushVlan):
            known["vlan_vid"] = VLAN_PRESENT, VLAN_PRESENT
        if isinstance(action, PopVlan):
            known.pop("vlan_vid")


_TAGGED = Field("vlan_vid", 13, needs=(("vlan_vid", VLAN_PRESENT),))
"""Writing the VLAN id needs a tag, matching it does not."""


def _touched(action: Action) -> tuple[Field, ...]:
    match action:
        case SetField(field=name):
            return (_TAGGED if name == "vlan_vid" else FIELDS[name],)
        case Move():
            return FIELDS[action.source], _TAGGED if action.target == "vlan_vid" else FIELDS[action.target]
        case PopVlan():
            return (_TAGGED,)
    return ()
