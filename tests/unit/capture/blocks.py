"""A slow, strict reader of pcapng for the tests: every length, padding and end mark is checked."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

FIXED_BYTES = {0x0A0D0D0A: 16, 1: 8, 5: 12}


@dataclass(frozen=True)
class Block:
    """One block: its fixed part, its packet bytes (for packets) and its options in order."""

    kind: int
    fixed: bytes
    data: bytes
    options: tuple[tuple[int, bytes], ...]

    def option(self, code: int) -> bytes:
        """The only option of this code."""
        (value,) = (value for found, value in self.options if found == code)
        return value

    def codes(self) -> tuple[int, ...]:
        """The codes of the options in order."""
        return tuple(code for code, _ in self.options)


def read(stream: bytes) -> tuple[Block, ...]:
    """All blocks; any disorder is an assertion."""
    return tuple(_blocks(stream))


def _blocks(stream: bytes) -> Iterator[Block]:
    at = 0
    while at < len(stream):
        kind, length = struct.unpack_from("<II", stream, at)
        assert length % 4 == 0 and 12 <= length <= len(stream) - at
        assert struct.unpack_from("<I", stream, at + length - 4) == (length,)
        yield _block(kind, stream[at + 8 : at + length - 4])
        at += length


def _block(kind: int, body: bytes) -> Block:
    if kind != 6:
        size = FIXED_BYTES[kind]
        return Block(kind, body[:size], b"", tuple(_options(body[size:])))
    kept = struct.unpack_from("<I", body, 12)[0]
    end = 20 + kept + -kept % 4
    assert not any(body[20 + kept : end])
    return Block(kind, body[:20], body[20 : 20 + kept], tuple(_options(body[end:])))


def _options(rest: bytes) -> Iterator[tuple[int, bytes]]:
    if not rest:
        return
    while True:
        code, length = struct.unpack_from("<HH", rest)
        if code == 0:
            assert (length, len(rest)) == (0, 4)
            return
        padded = 4 + length + -length % 4
        assert not any(rest[4 + length : padded])
        yield code, rest[4 : 4 + length]
        rest = rest[padded:]
