"""Bytes with something wrong about them: bits, numbers, lengths, parts cut out, doubled and put elsewhere."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

NUMBERS = (0, 1, 4, 7, 8, 9, 15, 16, 24, 0xFF, 0x7FFF, 0x8000, 0xFFF8, 0xFFFF)
"""What is easily got wrong where a length or a number is expected."""
WORD = 8
"""What parts of OpenFlow messages are padded to."""

Mutation = Callable[[random.Random, bytearray], None]


def mutated(dice: random.Random, data: bytes, others: Sequence[bytes] = (), most: int = 4) -> bytes:
    """Changed in one to `most` places; `others` are those that parts are taken from."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, most)):
        if others and not dice.randrange(6):
            _splice(dice, changed, dice.choice(others))
        elif changed:
            dice.choice(_MUTATIONS)(dice, changed)
    return bytes(changed)


def _splice(dice: random.Random, data: bytearray, other: bytes) -> None:
    """A piece of another message over or between one's own."""
    start, at = _place(dice, other), _place(dice, data)
    piece = other[start : start + WORD * dice.randint(1, 8)]
    data[at : at + dice.choice((0, len(piece)))] = piece


def _place(dice: random.Random, data: bytes | bytearray) -> int:
    """Mostly where a part of a message begins."""
    if not data:
        return 0
    return dice.randrange(len(data)) if dice.randrange(3) == 0 else dice.randrange(len(data)) & ~(WORD - 1)


def _bit(dice: random.Random, data: bytearray) -> None:
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _byte(dice: random.Random, data: bytearray) -> None:
    data[dice.randrange(len(data))] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))


def _number(dice: random.Random, data: bytearray) -> None:
    """A number of 16 bits becomes an odd one, or one near to what it was."""
    at = dice.randrange(len(data)) & ~1
    before = int.from_bytes(data[at : at + 2], "big")
    near = before + dice.choice((-WORD, -4, -1, 1, 4, WORD))
    data[at : at + 2] = (dice.choice((near, *NUMBERS, len(data))) & 0xFFFF).to_bytes(2, "big")


def _long(dice: random.Random, data: bytearray) -> None:
    at = dice.randrange(len(data)) & ~3
    number = dice.choice((0, 1, 0xFFFFFFF8, 0xFFFFFFFF, 0xFFFFFF00, 0xFFFFFF01, dice.getrandbits(32)))
    data[at : at + 4] = number.to_bytes(4, "big")


def _cut(dice: random.Random, data: bytearray) -> None:
    del data[dice.randrange(len(data)) :]


def _leave_out(dice: random.Random, data: bytearray) -> None:
    at = _place(dice, data)
    del data[at : at + dice.choice((1, 2, 4, WORD, 2 * WORD))]


def _double(dice: random.Random, data: bytearray) -> None:
    at = _place(dice, data)
    data[at:at] = data[at : at + WORD * dice.randint(1, 5)] * dice.choice((1, 1, 1, 30))


def _insert(dice: random.Random, data: bytearray) -> None:
    at, count = _place(dice, data), dice.choice((1, 4, WORD, 40))
    data[at:at] = bytes(count) if dice.randrange(2) else dice.randbytes(count)


_MUTATIONS: tuple[Mutation, ...] = (
    *(_bit, _bit, _byte, _number, _number, _number, _long),
    *(_cut, _leave_out, _leave_out, _double, _insert),
)
