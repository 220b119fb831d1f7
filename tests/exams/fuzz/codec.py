"""Bytes into the codec: it reads them or refuses them as the protocol has it, soon and in little memory.

What it reads it writes so that the same is read again.
"""

from __future__ import annotations

import random
import resource
import struct
import time
from typing import ClassVar, Self

from tests.exams.fuzz.case import Steps
from tests.exams.fuzz.messages import right, wrong
from vnet.openflow.codec import CodecError, decode, encode
from vnet.openflow.message import BadRequest, ErrorType, Message

MOST_S = 1.0
"""Of processor time, for one message of 64 KiB."""
MOST_KIB = 64 << 10
"""By how much one message may let the process grow."""
_FORESEEN = (CodecError, struct.error, IndexError)
"""What stands behind a refusal that somebody thought of."""
_WHATEVER = (ErrorType.BAD_REQUEST, BadRequest.BAD_LEN)
"""What the codec says of a message that it stumbled over."""


class Codec:
    """The part; it needs nothing."""

    name: ClassVar[str] = "codec"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        """Nothing to let go."""

    def steps(self, dice: random.Random) -> Steps:
        data = wrong(dice) if dice.randrange(20) else right(dice)
        return (("message", data.hex()),)

    def fault(self, steps: Steps) -> str | None:
        return next(filter(None, (_fault(bytes.fromhex(text)) for _, text in steps)), None)


def _fault(data: bytes) -> str | None:
    began, size = time.process_time(), _size_kib()
    found = _read(data)
    if (took := time.process_time() - began) > MOST_S:
        return f"takes {took:.1f} s"
    if (grew := _size_kib() - size) > MOST_KIB:
        return f"takes {grew} KiB"
    return found


def _size_kib() -> int:
    """The most that the process has ever been."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _read(data: bytes) -> str | None:
    try:
        xid, message = decode(data)
    except CodecError as error:
        return _refusal(error)
    return _again(xid, message)


def _refusal(error: CodecError) -> str | None:
    unforeseen = error.__cause__ is not None and not isinstance(error.__cause__, _FORESEEN)
    if unforeseen and (error.error_type, error.code) == _WHATEVER:
        return f"stumbles: {error.__cause__!r}"
    if error.error_type not in tuple(ErrorType):
        return f"an error of type {error.error_type}"
    answer = encode(error.error, error.xid)
    return None if decode(answer) == (error.xid, error.error) else "its error is not read again"


def _again(xid: int, message: Message) -> str | None:
    try:
        data = encode(message, xid)
    except (ValueError, struct.error) as error:
        return f"is not written again: {error}"
    after = decode(data)
    return None if after == (xid, message) else f"{message} becomes {after[1]}"
