"""What a long operation tells while it runs: its plan, then one value per step begun and per step ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from vnet.fabric.outcome import Outcome


class Status(StrEnum):
    """Where a step stands. A NOTE is one line that is no step."""

    STARTED = "started"
    MOVED = "moved"
    """It goes on; its `detail` says how far it is."""
    DONE = "done"
    FAILED = "failed"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of an operation: `step` numbers it, `what` says it in words.

    `of` is how many steps the operation has, 0 when that is not known.
    """

    step: int
    what: str
    status: Status
    elapsed_s: float = 0.0
    detail: str = ""
    of: int = 0


Report = Callable[[Progress | Outcome], None]
"""An Outcome is the plan that is carried out from here on."""


def silent(_: Progress | Outcome) -> None:
    """The report of an operation that nobody watches."""
