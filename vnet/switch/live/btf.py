"""What a map's values look like, as the kernel keeps it with the map: members by name, with their places.

So one version of vnet can read the maps of another. Source: Documentation/bpf/btf.rst, sections 2 and 3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

_MAGIC = 0xEB9F
_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _ENUM64, _FLOAT = 1, 2, 3, 4, 5, 6, 19, 16
_ALIASES = (8, 9, 10, 11, 18)
"""Typedef, volatile, const, restrict, type tag: what they stand for is in the third word."""
_TAIL_BYTES = {1: 4, 3: 12, 14: 4, 17: 4}
_TAIL_BYTES_EACH = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}
"""By kind: what follows a type's three words, once or for each of its members."""


@dataclass(frozen=True, slots=True)
class Number:
    """An integer in host order, or bytes without inner form."""

    size: int


@dataclass(frozen=True, slots=True)
class Array:
    """So many of one form."""

    of: Form
    count: int

    @property
    def size(self) -> int:
        """In bytes."""
        return self.of.size * self.count


@dataclass(frozen=True, slots=True)
class Struct:
    """Members at their offsets."""

    size: int
    members: Mapping[str, tuple[int, Form]] = field(default_factory=dict)


Form: TypeAlias = Number | Array | Struct


class Btf:
    """The types of one compiled object."""

    def __init__(self, data: bytes) -> None:
        magic, _, _, header, type_at, type_size, text_at, text_size = struct.unpack_from("<HBBIIIII", data)
        if magic != _MAGIC:
            raise ValueError("no BTF of this machine's byte order")
        self._types = data[header + type_at : header + type_at + type_size]
        self._texts = data[header + text_at : header + text_at + text_size]
        self._starts = [0, *self._walk()]
        """By type number; 0 is void."""

    def _walk(self) -> Iterator[int]:
        at = 0
        while at < len(self._types):
            yield at
            info = struct.unpack_from("<I", self._types, at + 4)[0]
            kind, members = info >> 24 & 0x1F, info & 0xFFFF
            at += 12 + _TAIL_BYTES.get(kind, 0) + _TAIL_BYTES_EACH.get(kind, 0) * members

    def form(self, number: int) -> Form:
        """What values of a type look like."""
        at = self._starts[number]
        _, info, size = struct.unpack_from("<III", self._types, at)
        kind = info >> 24 & 0x1F
        if kind in _ALIASES:
            return self.form(size)
        if kind == _ARRAY:
            of, _, count = struct.unpack_from("<III", self._types, at + 12)
            return Array(self.form(of), count)
        if kind == _STRUCT:
            return Struct(size, dict(self._members(at, info)))
        if kind in (_INT, _UNION, _ENUM, _ENUM64, _FLOAT, _PTR):
            return Number(8 if kind == _PTR else size)
        raise ValueError(f"type {number} of kind {kind} has no size")

    def _members(self, at: int, info: int) -> Iterator[tuple[str, tuple[int, Form]]]:
        for index in range(info & 0xFFFF):
            name, of, bits = struct.unpack_from("<III", self._types, at + 12 + 12 * index)
            if info >> 31:  # the struct has bit fields, and each offset its width above
                bits &= 0xFFFFFF
            yield self._text(name), (bits // 8, self.form(of))

    def _text(self, at: int) -> str:
        return self._texts[at : self._texts.index(b"\0", at)].decode()


Move: TypeAlias = tuple[int, int, int]
"""(from, to, bytes)."""


class Conversion:
    """Turns values of one form into those of another: members go by name, what only one side has is 0."""

    def __init__(self, source: Form, target: Form) -> None:
        self._size = target.size
        self._moves = tuple(_joined(_moves(source, target, 0, 0)))

    def __call__(self, value: bytes) -> bytes:
        """The value in its new form."""
        out = bytearray(self._size)
        for start, to, size in self._moves:
            out[to : to + size] = value[start : start + size]
        return bytes(out)


def _moves(source: Form, target: Form, start: int, to: int) -> Iterator[Move]:
    match source, target:
        case Struct(), Struct():
            for name, (offset, form) in target.members.items():
                if name in source.members:
                    before, old = source.members[name]
                    yield from _moves(old, form, start + before, to + offset)
        case Array(), Array():
            for index in range(min(source.count, target.count)):
                yield from _moves(
                    source.of, target.of, start + index * source.of.size, to + index * target.of.size
                )
        case Number(), Number():  # little-endian: the low bytes come first
            yield start, to, min(source.size, target.size)


def _joined(moves: Iterator[Move]) -> Iterator[Move]:
    """With neighbours that stay neighbours moved at once."""
    held: Move | None = None
    for start, to, size in moves:
        if held and (held[0] + held[2], held[1] + held[2]) == (start, to):
            held = held[0], held[1], held[2] + size
            continue
        if held:
            yield held
        held = start, to, size
    if held:
        yield held


class Record:
    """A value with its form: members by name, `record["packets"]`."""

    __slots__ = ("_form", "raw")

    def __init__(self, form: Struct, raw: bytes) -> None:
        self._form, self.raw = form, raw

    def __getitem__(self, name: str) -> int:
        """A member that is a number; 0 if there is none of that name."""
        offset, form = self._form.members.get(name, (0, Number(0)))
        return int.from_bytes(self.raw[offset : offset + form.size], "little")

    def numbers(self, name: str) -> tuple[int, ...]:
        """A member that is an array of numbers; empty if there is none of that name."""
        offset, form = self._form.members.get(name, (0, Number(0)))
        if not isinstance(form, Array):
            return ()
        size = form.of.size
        starts = range(offset, offset + form.size, size)
        return tuple(int.from_bytes(self.raw[at : at + size], "little") for at in starts)

    def with_(self, **values: int) -> Record:
        """With some members that are numbers changed."""
        raw = bytearray(self.raw)
        for name, value in values.items():
            offset, form = self._form.members[name]
            raw[offset : offset + form.size] = value.to_bytes(form.size, "little")
        return Record(self._form, bytes(raw))
