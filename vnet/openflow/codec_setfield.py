"""Actions that read and write fields <-> bytes.

Set-Field (OpenFlow 1.3.5, section 7.2.5), and of nicira-ext.h: reg_load, reg_load2, reg_move, output_reg.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from vnet.openflow.codec_error import CodecError, bad_action
from vnet.openflow.codec_library import ofproto, parser
from vnet.openflow.codec_match import (
    NUMBERS,
    SIZES,
    UNNAMED,
    decode_field,
    encode_field,
    field_named,
    field_of,
    library_name,
)
from vnet.openflow.fields import FIELDS, VLAN_PRESENT, Field
from vnet.openflow.flow import Move, OutputField, SetField
from vnet.openflow.message import BadAction, BadMatch, ErrorType, OnfError

NICIRA = 0x00002320
"""Experimenter id of the extensions in nicira-ext.h."""

SET_TUNNEL, REG_MOVE, REG_LOAD, SET_TUNNEL64, OUTPUT_REG, REG_LOAD2 = 2, 6, 7, 9, 15, 33
"""Subtypes of Nicira actions (Open vSwitch, lib/ofp-actions.c, enum ofp_raw_action_type)."""

_WHOLE_PACKET = 0xFFFF
_LOAD_BITS = 64
_FIELD_BITS = 6
"""How many bits of `ofs_nbits` hold the length; the rest hold the offset."""


def bit_range(offset: int, bits: int) -> int:
    """`ofs_nbits` of nicira-ext.h."""
    return offset << _FIELD_BITS | (bits - 1)


def parsed(raw: bytes) -> Any:
    """The library's view of one action whose length was checked."""
    try:
        return parser.OFPAction.parser(raw, 0)
    except Exception as error:  # it reports malformed input by whatever the parse trips over
        raise bad_action(BadAction.BAD_ARGUMENT) from error


# -- encoding -------------------------------------------------------------------------------------


def _user(name: str, value: int) -> Any:
    """A value in the library's form: text for addresses, a number for the rest."""
    number = ofproto.oxm_from_user_header(library_name(name))
    return ofproto.oxm_to_user(number, value.to_bytes(SIZES[name], "big"), None)[1]


def output_field(action: OutputField) -> Any:
    """NXAST_OUTPUT_REG."""
    bits = FIELDS[action.field].bits if action.bits is None else action.bits
    part = bit_range(action.offset, bits)
    return parser.NXActionOutputReg(part, library_name(action.field), _WHOLE_PACKET)


def set_field(action: SetField) -> Any:
    """OFPAT_SET_FIELD, which in 1.3 has no mask, or a Nicira load where there is one."""
    field = FIELDS[action.field]
    if action.mask in (None, field.full_mask):
        return parser.OFPActionSetField(**{library_name(action.field): _user(action.field, action.value)})
    return _load(action.field, action.value, action.mask or 0)


class _Load2:
    """NXAST_REG_LOAD2; the library's own fails for masked values of more than 32 bits."""

    def __init__(self, name: str, value: int, mask: int) -> None:
        self._field = encode_field(name, value & mask, mask)

    def serialize(self, buffer: bytearray, offset: int) -> None:
        length = 10 + len(self._field)
        header = struct.pack("!HHIH", ofproto.OFPAT_EXPERIMENTER, length + -length % 8, NICIRA, REG_LOAD2)
        buffer[offset:] = header + self._field + bytes(-length % 8)


def _load(name: str, value: int, mask: int) -> Any:
    """NXAST_REG_LOAD where the mask is one run of bits, NXAST_REG_LOAD2 otherwise."""
    offset = (mask & -mask).bit_length() - 1
    bits = mask.bit_length() - offset
    if mask and bits <= _LOAD_BITS and mask >> offset == (1 << bits) - 1:
        return parser.NXActionRegLoad(bit_range(offset, bits), library_name(name), (value & mask) >> offset)
    return _Load2(name, value, mask)


class _Move:
    """NXAST_REG_MOVE from a field of which the library does not know the length."""

    def __init__(self, action: Move) -> None:
        self._action = action

    def serialize(self, buffer: bytearray, offset: int) -> None:
        action = self._action
        head = struct.pack("!HHIH", ofproto.OFPAT_EXPERIMENTER, 24, NICIRA, REG_MOVE)
        offsets = action.bits, action.source_offset, action.target_offset
        headers = (NUMBERS[name] << 9 | SIZES[name] for name in (action.source, action.target))
        buffer[offset:] = head + struct.pack("!HHHII", *offsets, *headers)


def move(action: Move) -> Any:
    """NXAST_REG_MOVE."""
    if action.source in UNNAMED:
        return _Move(action)
    source, target = library_name(action.source), library_name(action.target)
    return parser.NXActionRegMove(source, target, action.bits, action.source_offset, action.target_offset)


# -- decoding -------------------------------------------------------------------------------------

Writable = Callable[[str], Field]
"""Finds the field that is to be written, or refuses it."""


def _writable(name: str) -> Field:
    field = _readable(name)
    if not field.writable:
        raise bad_action(BadAction.BAD_SET_ARGUMENT)
    return field


def _readable(name: str) -> Field:
    field = field_named(name)
    if field is None:
        raise bad_action(BadAction.BAD_SET_TYPE)
    return field


def _within(field: Field, offset: int, bits: int) -> None:
    if not bits or offset + bits > field.bits:
        raise bad_action(BadAction.BAD_SET_LEN)


def _oxm(raw: bytes, offset: int) -> tuple[str, int, int]:
    """The OXM that fills an action from `offset` on, its faults told as those of a Set-Field."""
    if offset + 4 > len(raw) or offset + 4 + raw[offset + 3] > len(raw):
        raise bad_action(BadAction.BAD_SET_LEN)
    end = offset + 4 + raw[offset + 3]
    if any(raw[end:]):
        raise bad_action(BadAction.BAD_SET_ARGUMENT)
    try:
        return decode_field(raw[offset:end])
    except CodecError as error:
        raise bad_action(_SET_FAULTS.get(error.code, BadAction.BAD_SET_ARGUMENT)) from error


_SET_FAULTS: Mapping[int, BadAction] = {
    BadMatch.BAD_FIELD: BadAction.BAD_SET_TYPE,
    BadMatch.BAD_LEN: BadAction.BAD_SET_LEN,
}


def read_set_field(raw: bytes, writable: Writable = _writable) -> SetField:
    """OFPAT_SET_FIELD; a mask is refused, as OpenFlow 1.3 has none there."""
    name, value, mask = _oxm(raw, 4)
    if raw[6] & 1:
        raise CodecError(ErrorType.EXPERIMENTER, OnfError.BAD_SET_MASK)
    return _written(writable(name), value, mask)


def _written(field: Field, value: int, mask: int) -> SetField:
    if mask == 0 or mask != field.full_mask and not field.maskable:
        raise bad_action(BadAction.BAD_SET_ARGUMENT)
    if field.name == "vlan_vid" and mask & VLAN_PRESENT and not value & VLAN_PRESENT:
        raise bad_action(BadAction.BAD_SET_ARGUMENT)
    return SetField(field.name, value, None if mask == field.full_mask else mask)


def read_load(raw: bytes, writable: Writable = _writable) -> SetField:
    """NXAST_REG_LOAD."""
    action = parsed(raw)
    field, offset, bits = writable(action.dst), action.ofs_nbits >> 6, (action.ofs_nbits & 0x3F) + 1
    _within(field, offset, bits)
    if action.value >> bits:
        raise bad_action(BadAction.BAD_ARGUMENT)
    mask = ((1 << bits) - 1) << offset
    return SetField(field.name, action.value << offset, None if mask == field.full_mask else mask)


def read_load2(raw: bytes, writable: Writable = _writable) -> SetField:
    """NXAST_REG_LOAD2."""
    name, value, mask = _oxm(raw, 10)
    return _written(writable(name), value, mask)


def read_set_tunnel(raw: bytes) -> SetField:
    """NXAST_SET_TUNNEL: 32 bits."""
    return SetField("tunnel_id", int.from_bytes(raw[12:16], "big"))


def read_set_tunnel64(raw: bytes) -> SetField:
    """NXAST_SET_TUNNEL64."""
    return SetField("tunnel_id", int.from_bytes(raw[16:24], "big"))


def read_move(raw: bytes, writable: Writable = _writable) -> Move:
    """NXAST_REG_MOVE."""
    action = parsed(raw)
    source, target = _readable(action.src_field), writable(action.dst_field)
    _within(source, action.src_ofs, action.n_bits)
    _within(target, action.dst_ofs, action.n_bits)
    return Move(source.name, target.name, action.n_bits, action.src_ofs, action.dst_ofs)


def read_output_field(raw: bytes) -> OutputField:
    """NXAST_OUTPUT_REG."""
    action = parsed(raw)
    field, offset, bits = (
        _readable(action.src),
        action.ofs_nbits >> _FIELD_BITS,
        (action.ofs_nbits & 0x3F) + 1,
    )
    _within(field, offset, bits)
    if any(raw[18:]):
        raise bad_action(BadAction.BAD_ARGUMENT)
    if action.ofs_nbits == bit_range(0, field.bits):
        return OutputField(field.name)
    return OutputField(field.name, offset, bits)


def read_subfield(header: int, ofs_nbits: int, bits: int) -> tuple[str, int, int]:
    """(field, offset, bits) of a source that must be `bits` wide."""
    field = field_of(header)
    if field is None:
        raise bad_action(BadAction.BAD_SET_TYPE)
    offset, wide = ofs_nbits >> _FIELD_BITS, (ofs_nbits & 0x3F) + 1
    if wide != bits:
        raise bad_action(BadAction.BAD_SET_LEN)
    _within(field, offset, wide)
    return field.name, offset, wide
