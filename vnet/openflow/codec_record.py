"""What several codecs share: lists of what begins with its type and its length, durations."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TypeVar

from vnet.openflow.codec_error import CodecError

T = TypeVar("T")

_CACHED = 1 << 16
_CACHED_BYTES = 256
"""Longer fragments are seldom the same, and many of them would fill the memory."""

SECOND_NS = 1_000_000_000
"""Durations are told in seconds and nanoseconds."""


def records(data: bytes, fault: CodecError) -> Iterator[tuple[int, bytes]]:
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


def text(field: bytes) -> str:
    """A string of fixed size, whose last byte is always zero.

    What is no UTF-8 becomes one question mark for each byte at most, so that it never becomes longer.
    """
    return field[:-1].split(b"\0", 1)[0].decode(errors="replace").replace("\ufffd", "?")


def cached(read: Callable[[bytes], T]) -> Callable[[bytes], T]:
    """Remember what short fragments were read as."""
    remembered = lru_cache(_CACHED)(read)
    return lambda data: remembered(data) if len(data) <= _CACHED_BYTES else read(data)
