"""Table features <-> bytes (OpenFlow 1.3.5, section 7.3.5.5.2)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import TypeVar

from vnet.openflow.codec_error import CodecError
from vnet.openflow.codec_match import NUMBERS, SIZES, field_of
from vnet.openflow.codec_record import text
from vnet.openflow.message import ErrorType, TableFeatures, TableFeaturesFailed

_HEADER = struct.Struct("!HB5x32sQQII")
_PROPERTY = struct.Struct("!HH")

# OFPTFPT_*: the even number is for flows, the odd one after it for the table-miss flow
_INSTRUCTIONS, _NEXT_TABLES, _WRITE_ACTIONS, _APPLY_ACTIONS = 0, 2, 4, 6
_MATCH, _WILDCARDS, _WRITE_SET, _APPLY_SET = 8, 10, 12, 14


_OXM = frozenset((_MATCH, _WILDCARDS, *range(_WRITE_SET, _APPLY_SET + 2)))
_KNOWN = frozenset((*range(_MATCH), *_OXM))

T = TypeVar("T")


def _once(values: Iterable[T]) -> tuple[T, ...]:
    """Each value where it stands first."""
    return tuple(dict.fromkeys(values))


def _property(kind: int, body: bytes) -> bytes:
    length = _PROPERTY.size + len(body)
    return _PROPERTY.pack(kind, length) + body + bytes(-length % 8)


def _ids(numbers: tuple[int, ...]) -> bytes:
    return b"".join(struct.pack("!HH", number, 4) for number in numbers)


def _oxm_ids(names: tuple[str, ...], masked: tuple[str, ...] = ()) -> bytes:
    headers = (
        NUMBERS[name] << 9 | (name in masked) << 8 | SIZES[name] * (1 + (name in masked)) for name in names
    )
    return b"".join(struct.pack("!I", header) for header in headers)


def encode_table(table: TableFeatures) -> bytes:
    """One `struct ofp_table_features`; flows and the miss flow can do the same."""
    properties = (
        (_INSTRUCTIONS, _ids(table.instructions)),
        (_NEXT_TABLES, bytes(table.next_tables)),
        (_WRITE_ACTIONS, _ids(table.actions)),
        (_APPLY_ACTIONS, _ids(table.actions)),
        (_MATCH, _oxm_ids(table.match_fields, table.masked_fields)),
        (_WILDCARDS, _oxm_ids(table.match_fields)),
        (_WRITE_SET, _oxm_ids(table.set_fields)),
        (_APPLY_SET, _oxm_ids(table.set_fields)),
    )
    body = b"".join(
        _property(kind, value)
        if kind in (_MATCH, _WILDCARDS)
        else _property(kind, value) + _property(kind + 1, value)
        for kind, value in properties
    )
    header = _HEADER.pack(
        _HEADER.size + len(body),
        table.table,
        table.name.encode()[:31],
        table.metadata_match,
        table.metadata_write,
        0,
        table.max_entries,
    )
    return header + body


def _properties(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _PROPERTY.size <= len(data):
        kind, length = _PROPERTY.unpack_from(data, offset)
        if length < _PROPERTY.size or offset + length > len(data):
            raise CodecError(ErrorType.TABLE_FEATURES_FAILED, TableFeaturesFailed.BAD_LEN)
        yield kind, data[offset + _PROPERTY.size : offset + length]
        offset += length + -length % 8


def _read_ids(body: bytes) -> tuple[int, ...]:
    """The ids that are not an experimenter's; those are longer than four bytes."""
    found, offset = [], 0
    while offset + 4 <= len(body):
        number, length = struct.unpack_from("!HH", body, offset)
        if length == 4:
            found.append(number)
        offset += max(4, length)
    return tuple(found)


def _headers(body: bytes) -> list[int]:
    return [header for (header,) in struct.iter_unpack("!I", body[: len(body) & ~3])]


def _read_oxm_ids(body: bytes) -> tuple[tuple[str, bool], ...]:
    """(name, mask allowed) of those fields that are ours."""
    return tuple((field.name, bool(h >> 8 & 1)) for h in _headers(body) if (field := field_of(h)) is not None)


def decode_wanted_table(record: bytes) -> TableFeatures:
    """What a controller wants of a table, for its flows or for its miss flow.

    Raises: CodecError, also for what is unknown here and so cannot be there.
    """
    found = dict(_properties(record[_HEADER.size :]))
    if not found.keys() <= _KNOWN:
        raise CodecError(ErrorType.TABLE_FEATURES_FAILED, TableFeaturesFailed.BAD_TYPE)
    if any(field_of(header) is None for kind in found.keys() & _OXM for header in _headers(found[kind])):
        raise CodecError(ErrorType.TABLE_FEATURES_FAILED, TableFeaturesFailed.BAD_ARGUMENT)
    return decode_table(record)


def decode_table(record: bytes) -> TableFeatures:
    """Fields and ids that are not ours are left out.

    Raises: CodecError.
    """
    _, table, name, metadata_match, metadata_write, _, max_entries = _HEADER.unpack_from(record)
    properties = dict(_properties(record[_HEADER.size :]))

    def both(kind: int) -> bytes:
        """Of flows and of the miss flow."""
        return properties.get(kind, b"") + properties.get(kind + 1, b"")

    fields = _read_oxm_ids(properties.get(_MATCH, b""))
    return TableFeatures(
        table,
        text(name),
        max_entries,
        metadata_match,
        metadata_write,
        match_fields=tuple(name for name, _ in fields),
        masked_fields=tuple(name for name, masked in fields if masked),
        set_fields=_once(name for name, _ in _read_oxm_ids(both(_WRITE_SET) + both(_APPLY_SET))),
        instructions=_once(_read_ids(both(_INSTRUCTIONS))),
        actions=_once(_read_ids(both(_WRITE_ACTIONS) + both(_APPLY_ACTIONS))),
        next_tables=_once(both(_NEXT_TABLES)),
    )
