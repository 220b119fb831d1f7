"""`python -m tests.kills [NAME...]`: every step of every operation, or of these; `--every N`: each N-th."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from itertools import count

from tests.kills.commands import QuickLab
from tests.kills.exam import Daemons, Killed, daemons, kill, steps_of
from tests.kills.operations import FABRIC, OPERATIONS, Operation
from tests.vm.fabric_lab import lab


def _one(host: QuickLab, by: Daemons, operation: Operation, number: int) -> Killed:
    """What goes wrong with a command is wrong too, and the next step is tried."""
    try:
        found = kill(host, by, operation, number)
    except AssertionError as error:
        found = Killed(operation.name, number, str(number), died=False, wrong=str(error))
    if found.wrong:
        print(f"{operation.name}: step {found.step}: {found.wrong}", flush=True)
    return found


def _all(host: QuickLab, by: Daemons, operation: Operation, every: int) -> Iterator[Killed]:
    """As many as an undisturbed run had, and more as long as there are more: a fabric gets older."""
    steps = len(steps_of(host, by, operation))
    for number in count(0, every):
        found = _one(host, by, operation, number)
        if number >= steps and not found.died:
            return
        yield found


def _try(host: QuickLab, by: Daemons, operation: Operation, every: int) -> bool:
    """Whether all was well."""
    began, found = time.monotonic(), tuple(_all(host, by, operation, every))
    wrong = sum(bool(each.wrong) for each in found)
    print(
        f"{operation.name}: {len(found)} steps, killed at {sum(each.died for each in found)},"
        f" wrong after {wrong}, {time.monotonic() - began:.0f} s",
        flush=True,
    )
    return not wrong


def main() -> int:
    """The exit code is 1 if anything went wrong."""
    parser = argparse.ArgumentParser(prog="tests.kills")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--every", type=int, default=1)
    given = parser.parse_args()
    unknown = set(given.names) - {operation.name for operation in OPERATIONS}
    if unknown:
        parser.error(f"no such operation: {', '.join(sorted(unknown))}")
    chosen = [each for each in OPERATIONS if not given.names or each.name in given.names]
    with lab(kind=QuickLab) as host, daemons(host) as by:
        well = [_try(host, by, operation, given.every) for operation in chosen]
        host.vnet("down", "-n", FABRIC, "--disks")
    return 0 if all(well) else 1


if __name__ == "__main__":
    sys.exit(main())
