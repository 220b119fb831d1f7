"""`ct`, `nat` inside it and `ct_clear` <-> bytes (nicira-ext.h, lib/ofp-actions.c of Open vSwitch).

Faults are answered as Open vSwitch does; what it reads and ignores (helpers, flags nobody has defined) is
refused instead of being dropped.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from vnet.openflow.codec_error import bad_action
from vnet.openflow.codec_library import ofproto
from vnet.openflow.codec_match import NUMBERS, SIZES
from vnet.openflow.codec_record import records
from vnet.openflow.codec_setfield import (
    NICIRA,
    REG_LOAD,
    REG_LOAD2,
    REG_MOVE,
    bit_range,
    move,
    read_load,
    read_load2,
    read_move,
    read_set_field,
    read_subfield,
    set_field,
)
from vnet.openflow.fields import FIELDS, Field
from vnet.openflow.flow import Conntrack, ConntrackClear, Move, Nat, SetField
from vnet.openflow.message import BadAction

CT, NAT, CT_CLEAR = 35, 36, 43
"""Subtypes of Nicira actions."""

_CT = struct.Struct("!HHIHHIHB3xH")
_NAT = struct.Struct("!HHIHxxHH")
_NO_TABLE = 0xFF
_COMMIT, _FORCE = 1, 2
_ZONE_BITS = 16
_WRITTEN = ("ct_mark", "ct_label")
"""What can be written inside `ct`, and only there."""

_LEAST = 24
"""Length of the shortest Nicira action that writes a field."""

_SOURCE, _DESTINATION, _PERSISTENT, _HASH, _RANDOM = 1, 2, 4, 8, 16
_ADDRESSES = {4: (1, 2, 4), 6: (4, 8, 16)}
"""By family: the bits of the first and the last address in `range_present`, and an address's length."""
_FIRST_PORT, _LAST_PORT = 16, 32


# -- encoding -------------------------------------------------------------------------------------


def encode_conntrack(action: Conntrack) -> bytes:
    """NXAST_CT with the actions nested in it."""
    nested = _encode_nested(action)
    source, zone = 0, action.zone
    if action.zone_field is not None:
        name, offset, bits = action.zone_field
        source, zone = NUMBERS[name] << 9 | SIZES[name], bit_range(offset, bits)
    flags = _COMMIT * action.commit | _FORCE * action.force
    table = _NO_TABLE if action.table is None else action.table
    length = _CT.size + len(nested)
    head = _CT.pack(ofproto.OFPAT_EXPERIMENTER, length, NICIRA, CT, flags, source, zone, table, 0)
    return head + nested


def _encode_nested(action: Conntrack) -> bytes:
    parts = bytearray(b"" if action.nat is None else _encode_nat(action.nat))
    for name, written in zip(_WRITTEN, (action.mark, action.label), strict=True):
        if written is not None:
            set_field(SetField(name, *written)).serialize(parts, len(parts))
    for copied in action.moves:
        move(copied).serialize(parts, len(parts))
    return bytes(parts)


def _encode_nat(nat: Nat) -> bytes:
    flags = nat.flags | (0 if nat.source is None else _SOURCE if nat.source else _DESTINATION)
    present, body = 0, b""
    if nat.addresses is not None:
        first, last, size = _ADDRESSES[nat.family]
        present, body = _encode_range(nat.addresses, first, last, size)
    if nat.ports is not None:
        more, ports = _encode_range(nat.ports, _FIRST_PORT, _LAST_PORT, 2)
        present, body = present | more, body + ports
    length = _NAT.size + len(body)
    pad = -length % 8
    head = _NAT.pack(ofproto.OFPAT_EXPERIMENTER, length + pad, NICIRA, NAT, flags, present)
    return head + body + bytes(pad)


def _encode_range(bounds: tuple[int, int], first_bit: int, last_bit: int, size: int) -> tuple[int, bytes]:
    """The last is left out where it is the first."""
    first, last = bounds
    if first == last:
        return first_bit, first.to_bytes(size, "big")
    return first_bit | last_bit, first.to_bytes(size, "big") + last.to_bytes(size, "big")


def encode_clear(action: ConntrackClear) -> bytes:
    """NXAST_CT_CLEAR."""
    return struct.pack("!HHIH6x", ofproto.OFPAT_EXPERIMENTER, 16, NICIRA, CT_CLEAR)


# -- decoding -------------------------------------------------------------------------------------


def read_conntrack(raw: bytes) -> Conntrack:
    """NXAST_CT; `raw` has at least its fixed part."""
    _, _, _, _, flags, source, zone, table, helper = _CT.unpack_from(raw)
    commit, force = bool(flags & _COMMIT), bool(flags & _FORCE)
    if flags & ~(_COMMIT | _FORCE) or helper or force and not commit:
        raise bad_action(BadAction.BAD_ARGUMENT)
    zone_field = read_subfield(source, zone, _ZONE_BITS) if source else None
    nested = _read_nested(raw[_CT.size :])
    mark, label = nested.written.get("ct_mark"), nested.written.get("ct_label")
    if not commit and (mark or label or nested.moves or nested.nat not in (None, Nat())):
        raise bad_action(BadAction.BAD_ARGUMENT)
    resumes, moves = None if table == _NO_TABLE else table, tuple(nested.moves)
    return Conntrack(
        0 if zone_field else zone, resumes, commit, force, mark, label, nested.nat, zone_field, moves
    )


@dataclass(slots=True)
class _Nested:
    nat: Nat | None = None
    written: dict[str, tuple[int, int]] = field(default_factory=dict)
    moves: list[Move] = field(default_factory=list)


def _read_nested(data: bytes) -> _Nested:
    nested = _Nested()
    for _, raw in records(data, bad_action(BadAction.BAD_LEN)):
        subtype = _subtype(raw)
        if subtype == NAT and nested.nat is None:
            nested.nat = _read_nat(raw)
        elif subtype == REG_MOVE:
            nested.moves.append(_read_moved(raw))
        else:
            _write(nested, _read_written(raw))
    return nested


def _read_moved(raw: bytes) -> Move:
    if len(raw) < _LEAST:
        raise bad_action(BadAction.BAD_LEN)
    return read_move(raw, _connections_own)


def _write(nested: _Nested, action: SetField) -> None:
    """Join what is written to one field in several actions; the later ones win.

    What is copied to a field comes after all that is written to it, so bits that are copied first and then
    written are refused.
    """
    mask = FIELDS[action.field].full_mask if action.mask is None else action.mask
    if any(made.target == action.field and mask & made.target_mask for made in nested.moves):
        raise bad_action(BadAction.BAD_ARGUMENT)
    value, before = nested.written.get(action.field, (0, 0))
    nested.written[action.field] = value & ~mask | action.value, before | mask


def _subtype(raw: bytes) -> int | None:
    """The subtype of a Nicira action, None for any other."""
    kind, _, owner = struct.unpack_from("!HHI", raw)
    if kind != ofproto.OFPAT_EXPERIMENTER or owner != NICIRA or len(raw) < 16:
        return None
    return int.from_bytes(raw[8:10], "big")


def _connections_own(name: str) -> Field:
    if name not in _WRITTEN:
        raise bad_action(BadAction.BAD_ARGUMENT)
    return FIELDS[name]


_LOADS: dict[int | None, Callable[[bytes, Callable[[str], Field]], SetField]] = {
    REG_LOAD: read_load,
    REG_LOAD2: read_load2,
}


def _read_written(raw: bytes) -> SetField:
    if int.from_bytes(raw[:2], "big") == ofproto.OFPAT_SET_FIELD:
        return read_set_field(raw, _connections_own)
    read = _LOADS.get(_subtype(raw))
    if read is None:
        raise bad_action(BadAction.BAD_ARGUMENT)
    if len(raw) < _LEAST:
        raise bad_action(BadAction.BAD_LEN)
    return read(raw, _connections_own)


def _read_nat(raw: bytes) -> Nat:
    *_, flags, present = _NAT.unpack_from(raw)
    direction = flags & (_SOURCE | _DESTINATION)
    if flags & ~(_SOURCE | _DESTINATION | _PERSISTENT | _HASH | _RANDOM) or direction == 3:
        raise bad_action(BadAction.BAD_ARGUMENT)
    if flags & _HASH and flags & _RANDOM or present >= _LAST_PORT << 1:
        raise bad_action(BadAction.BAD_ARGUMENT)
    family, addresses, end = _read_addresses(raw, present)
    ports, end = _read_range(raw, end, present, (_FIRST_PORT, _LAST_PORT, 2))
    if ports is not None and addresses is None or any(raw[end:]):
        raise bad_action(BadAction.BAD_ARGUMENT)
    source = None if not direction else direction == _SOURCE
    return Nat(source, family, addresses, ports, flags & ~direction)


def _read_addresses(raw: bytes, present: int) -> tuple[int, tuple[int, int] | None, int]:
    """The family, the addresses and where they end; there may be those of one family only."""
    four, end = _read_range(raw, _NAT.size, present, _ADDRESSES[4])
    six, end = _read_range(raw, end, present, _ADDRESSES[6])
    if four and six:
        raise bad_action(BadAction.BAD_ARGUMENT)
    return (6, six, end) if six else (4, four, end)


def _read_range(
    raw: bytes, start: int, present: int, layout: tuple[int, int, int]
) -> tuple[tuple[int, int] | None, int]:
    """A range and the offset behind it. There is no last without a first, and no first of zero."""
    first_bit, last_bit, size = layout
    count = bool(present & first_bit) + bool(present & last_bit)
    end = start + count * size
    if present & last_bit and not present & first_bit or end > len(raw):
        raise bad_action(BadAction.BAD_ARGUMENT)
    if not count:
        return None, end
    first, last = (
        int.from_bytes(raw[start : start + size], "big"),
        int.from_bytes(raw[end - size : end], "big"),
    )
    if not first or last < first:
        raise bad_action(BadAction.BAD_ARGUMENT)
    return (first, last), end


def read_nat_alone(raw: bytes) -> ConntrackClear:
    """`nat` has a meaning only inside `ct`."""
    raise bad_action(BadAction.BAD_SET_ARGUMENT)


def read_clear(raw: bytes) -> ConntrackClear:
    """NXAST_CT_CLEAR."""
    return ConntrackClear()
