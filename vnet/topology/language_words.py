"""What the language is made of: words and numbers that many keys hold."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TypeVar

from vnet.topology import values
from vnet.topology.shape import MapOf, Word
from vnet.topology.yaml import Scalar

T = TypeVar("T")
E = TypeVar("E", bound=Enum)


def formed(expected: str, parse: Callable[[Scalar], T], pattern: str) -> Word[T]:
    """A text of a form that a pattern tells."""
    return Word(expected, parse, {"type": "string", "pattern": pattern})


def name_word(what: str, maximum: int = values.NAME_MAX) -> Word[str]:
    """A name of something, which `what` says."""
    expected = f"{what}: {values.NAME_EXPECTED} (at most {maximum})"
    json = {"type": "string", "pattern": values.NAME_PATTERN, "maxLength": maximum}
    return Word(expected, values.name_of(maximum), json)


def integer(low: int, high: int) -> Word[int]:
    """A whole number, both ends included."""
    json = {"type": "integer", "minimum": low, "maximum": high}
    return Word(f"a whole number from {low} to {high}", values.integer_from(low, high), json)


TEXT = Word("text", values.string, {"type": "string"})
BOOLEAN = Word("true or false", values.boolean, {"type": "boolean"})
CIDR = formed('a CIDR such as 10.10.10.0/24 or "fd00:10::/64"', values.network, values.CIDR_PATTERN)
ADDRESS = formed("an address with its prefix such as 10.10.10.11/24", values.address, values.CIDR_PATTERN)
HOST = formed("an address such as 10.10.10.1", values.host, values.HOST_PATTERN)
MAC = formed('a MAC such as "52:54:00:12:34:56"', values.mac, values.MAC_PATTERN)


def one_of(kind: type[E]) -> Word[E]:
    """One of the values of an enumeration."""
    words = [each.value for each in kind]
    expected = f"{', '.join(words[:-1])} or {words[-1]}"
    return Word(expected, values.one_of({each.value: each for each in kind}), {"enum": words})


_LABEL_KEY = Word("a label", values.text, {"type": "string"})
_LABEL_VALUE = Word("text", values.text, {"type": ["string", "number", "boolean"]})
LABELS = MapOf(_LABEL_KEY, _LABEL_VALUE, "a map of labels")
