"""What several codecs share: lists of what begins with its type and its length, durations."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from vnet.openflow.codec_error import CodecError

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
