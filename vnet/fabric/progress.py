"""What a long operation tells while it runs: one value per step begun and per step ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """Where a step stands. A NOTE is one line that is no step."""

    STARTED = "started"
    DONE = "done"
    FAILED = "failed"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of an operation: `step` numbers it, `what` says it in words."""

    step: int
    what: str
    status: Status
    elapsed_s: float = 0.0
    detail: str = ""


Report = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """The report of an operation that nobody watches."""
