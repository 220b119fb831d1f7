"""The check for names listed twice."""

from __future__ import annotations

from collections.abc import Iterable

from vnet.topology.reading import Reading, quoted
from vnet.topology.shape import Read


def report_repeated(names: Iterable[Read[str]], what: str, reading: Reading, hint: str = "") -> None:
    """Reports each name that stands in a list a second time."""
    seen: set[str] = set()
    for name in names:
        if name.value in seen:
            reading.fault(name.at, name.path, f"the {what} {quoted(name.value)} is listed twice", hint)
        seen.add(name.value)
