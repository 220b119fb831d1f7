"""What is asked: the cases in the JSON files that ship with os-ken."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

CATEGORIES = ("match", "action", "group", "meter")
HEAVY_PPS = 10_000
"""From this rate on a case needs the machine for itself."""


@dataclass(frozen=True, slots=True)
class Case:
    """One case: the `number`-th of a file, counted from 1. `rate_pps` is 0 if a single packet is sent."""

    path: Path
    file: str
    number: int
    title: str
    description: str
    rate_pps: int
    duration_s: int

    @property
    def key(self) -> str:
        """What results name it by, for example `match/00_IN_PORT#1`."""
        return f"{self.file}#{self.number}"

    @property
    def category(self) -> str:
        """The folder that it is in."""
        return self.file.partition("/")[0]

    @property
    def heavy(self) -> bool:
        """Whether it needs the machine for itself."""
        return self.rate_pps >= HEAVY_PPS


def read(folder: Path) -> tuple[Case, ...]:
    """All cases under `folder`, which holds match/, action/, group/ and meter/, in the order of names."""
    return tuple(
        case
        for category in CATEGORIES
        for path in sorted((folder / category).rglob("*.json"))
        for case in _file(path, str(path.relative_to(folder).with_suffix("")))
    )


def _file(path: Path, name: str) -> Iterable[Case]:
    title, *cases = json.loads(path.read_text())
    for number, case in enumerate(cases, 1):
        loads = [test["ingress"]["packets"] for test in case["tests"] if isinstance(test["ingress"], dict)]
        rate = max((load["pktps"] for load in loads), default=0)
        duration = sum(load["duration_time"] for load in loads)
        yield Case(path, name, number, title, case["description"], rate, duration)


def select(cases: Iterable[Case], categories: Iterable[str], words: Iterable[str]) -> tuple[Case, ...]:
    """Those of the categories whose key or description contains one of the words; no words mean all."""
    allowed, wanted = set(categories), tuple(words)
    return tuple(
        case
        for case in cases
        if case.category in allowed
        and (not wanted or any(word in case.key or word in case.description for word in wanted))
    )


def sample(cases: Iterable[Case]) -> tuple[Case, ...]:
    """The fast subset: of each file the first case, and of each file of matches a second one.

    The second is in turn a packet-in and a table miss. Loads take half a minute each: one of groups and
    one of meters stand for theirs.
    """
    chosen: list[Case] = []
    for turn, (_, group) in enumerate(groupby(cases, key=lambda case: case.file)):
        in_file = list(group)
        if in_file[0].rate_pps == 0:
            chosen.append(in_file[0])
            if in_file[0].category == "match":
                chosen.append(in_file[1 + turn % 2])
        elif not any(case.category == in_file[0].category for case in chosen):
            chosen.append(in_file[0])
    return tuple(chosen)
