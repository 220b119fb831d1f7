"""One process that plays program after program until it is told to end."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.exams.differential.case import FOLDER, Case
from tests.exams.differential.connections import connected
from tests.exams.differential.frames import Frame, frames
from tests.exams.differential.shrink import shrink
from tests.exams.differential.switches import Difference, Switches
from tests.net.twin_generator import Program, programs
from tests.ovs.harness import OvsError
from vnet.base.errors import VnetError
from vnet.openflow.codec import decode, encode
from vnet.openflow.message import FlowCommand, FlowMod

PACKETS_A_PROGRAM = 400
MOST_SHRUNK = 12
"""Failures of one run that are shrunk; a worker that finds more has found one bug many times."""
REFUSALS = (OvsError, VnetError, ValueError, AssertionError, KeyError)
"""What a shrunk program may lead to, if it is no longer one that all switches take."""


@dataclass(frozen=True, slots=True)
class Report:
    """What one program's packets came to; `failure` tells of a difference that nothing explains."""

    seed: str
    same: int
    by_design: Counter[str]
    failure: str | None = None


def made(seed: str, count: int) -> tuple[Program, tuple[Frame, ...]]:
    """The program and packets of a seed: a fifth of them are dialogues."""
    dice = random.Random(seed)
    if not dice.randrange(5):
        return connected(dice, count)
    return programs(dice), tuple(frames(dice, count))


def work(seeds: Iterator[str], report: Callable[[Report], bool], folder: Path = FOLDER) -> None:
    """Play the programs of the seeds until `report` says that it is enough."""
    with Switches() as switches:
        found = 0
        for seed in seeds:
            program, packets = made(seed, PACKETS_A_PROGRAM)
            verdicts = switches.play(program, packets)
            failure = None
            if verdicts.difference:
                failure = _failure(verdicts.difference, seed)
                if found < MOST_SHRUNK:
                    case = Case(program, packets[: verdicts.difference.at + 1])
                    failure = _keep(switches, case, verdicts.difference, seed, folder)
                found += 1
            if not report(Report(seed, verdicts.same, Counter(verdicts.by_design), failure)):
                return


def _refuse_inconsistent(program: Program) -> None:
    """What no controller could send: the harness would load it, and Open vSwitch take it for something else.

    Raises: CodecError.
    """
    for flow in program.flows:
        decode(encode(FlowMod(FlowCommand.ADD, flow), 1))


def _failure(difference: Difference, seed: str) -> str:
    return f"{difference.between} differ, seed {seed}, packet {difference.at}\n{difference.story}"


def _keep(switches: Switches, case: Case, difference: Difference, seed: str, folder: Path) -> str:
    """Shrink and write a case."""
    small = shrink(case, lambda candidate: _differs(switches, candidate, difference.between))
    story = switches.play(small.program, small.packets).difference or difference
    found = f"{difference.between} differ, seed {seed}: {story.story.splitlines()[1]}"
    name = f"{difference.between.split()[0].lower()}-{seed}.json"
    path = folder / name
    Case(small.program, small.packets, found).save(path)
    return f"{_failure(story, seed)}\nkept as {path}"


def _differs(switches: Switches, case: Case, between: str) -> bool:
    try:
        _refuse_inconsistent(case.program)
        difference = switches.play(case.program, case.packets).difference
    except REFUSALS:
        return False
    return difference is not None and difference.between == between and difference.at == len(case.packets) - 1
