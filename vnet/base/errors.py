"""The three kinds of error: the operator's input, a peer's behaviour, the host's refusal.

Anything else is a bug and is left to crash with a traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from vnet.base.source import Location


class Exit(IntEnum):
    """Exit codes of every command; `exec` and `ssh` return the guest's own code."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CHANGES = 3
    CLAIM_FAILED = 4
    REFUSED = 6
    TIMEOUT = 124
    INTERRUPTED = 130


class VnetError(Exception):
    """Something the user can act on; `str(error)` is what is printed."""

    exit_code: Exit = Exit.FAILED


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One thing wrong with the input.

    `where` is the position of the offending value, `path` its dotted path (`vms.web.memory`),
    `problem` what is wrong and what was expected, `hint` what to do (`did you mean "networks"?`),
    `excerpt` the source line, printed with a caret under `where.column`.
    """

    where: Location
    path: str
    problem: str
    hint: str = ""
    excerpt: str = ""

    def __str__(self) -> str:
        lines = [f"{self.where.file}:{self.where.line}:{self.where.column}: {self.path}: {self.problem}"]
        if self.excerpt:
            lines += [f"    {self.excerpt}", "    " + " " * max(0, self.where.column - 1) + "^"]
        if self.hint:
            lines.append(f"    {self.hint}")
        return "\n".join(lines)


class InputError(VnetError):
    """The operator's input is wrong; every fault found is listed, in file order."""

    def __init__(self, faults: Iterable[Fault] | str) -> None:
        self.faults: tuple[Fault, ...] = () if isinstance(faults, str) else tuple(sorted(faults))
        text = faults if isinstance(faults, str) else "\n".join(str(fault) for fault in self.faults)
        super().__init__(text)


class UsageError(VnetError):
    """The command line cannot be understood."""

    exit_code = Exit.USAGE


class AdmissionError(VnetError):
    """The host lacks the means (memory, ports, capacity); nothing was changed."""

    exit_code = Exit.REFUSED


class PeerError(VnetError):
    """A peer (controller, QMP, guest agent) broke its protocol or went away; ends one connection."""


class HostError(VnetError):
    """The kernel, QEMU or a tool refused: names the action, the error and its full output."""


class TimedOut(VnetError):
    """A bounded wait ran out."""

    exit_code = Exit.TIMEOUT
