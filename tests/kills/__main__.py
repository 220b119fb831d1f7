"""`python -m tests.kills [NAME...]`: every step of every operation, or of these; `--every N`: each N-th."""

from __future__ import annotations

import argparse
import sys
import time

from tests.kills.exam import Killed, kill, steps_of
from tests.kills.operations import FABRIC, OPERATIONS, Operation
from tests.vm.fabric_lab import Lab, lab


def _one(host: Lab, operation: Operation, number: int, steps: list[str]) -> Killed:
    """What goes wrong with a command is wrong too, and the next step is tried."""
    try:
        return kill(host, operation, number)
    except AssertionError as error:
        return Killed(operation.name, number, steps[number], died=True, wrong=str(error))


def _try(host: Lab, operation: Operation, every: int) -> list[Killed]:
    began, steps = time.monotonic(), steps_of(host, operation)
    found = [_one(host, operation, number, steps) for number in range(0, len(steps), every)]
    wrong = [each for each in found if each.wrong]
    died = sum(each.died for each in found)
    print(
        f"{operation.name}: {len(steps)} steps, killed at {died}, wrong after {len(wrong)},"
        f" {time.monotonic() - began:.0f} s",
        flush=True,
    )
    for each in wrong:
        print(f"  step {each.step}: {each.wrong}", flush=True)
    return wrong


def main() -> int:
    """The exit code is 1 if anything went wrong."""
    parser = argparse.ArgumentParser(prog="tests.kills")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--every", type=int, default=1)
    given = parser.parse_args()
    unknown = set(given.names) - {operation.name for operation in OPERATIONS}
    if unknown:
        parser.error(f"no such operation: {', '.join(sorted(unknown))}")
    wrong = []
    with lab() as host:
        for operation in OPERATIONS:
            if not given.names or operation.name in given.names:
                wrong += _try(host, operation, given.every)
        host.vnet("down", "-n", FABRIC, "--disks")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
