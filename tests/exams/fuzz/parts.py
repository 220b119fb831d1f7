"""What can be examined, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.exams.fuzz.case import Part
from tests.exams.fuzz.codec import Codec

PARTS: Mapping[str, Callable[[], Part]] = {
    Codec.name: Codec,
}


def made(name: str) -> Part:
    """A part, to be entered."""
    return PARTS[name]()
