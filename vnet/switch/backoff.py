"""When to call a controller again that did not answer or hung up."""

from __future__ import annotations

FIRST_S = 1.0
LONGEST_S = 8.0
SPREAD = 0.25
"""By which part a pause is lengthened at random at most, so that switches do not call in step."""


class Backoff:
    """Pauses that double as long as calls fail."""

    def __init__(self) -> None:
        self._next_s = FIRST_S

    def pause_s(self, chance: float) -> float:
        """How long to wait before the next call; `chance` is random, 0 to 1."""
        pause, self._next_s = self._next_s, min(2 * self._next_s, LONGEST_S)
        return pause * (1 + SPREAD * chance)

    def succeeded(self) -> None:
        """The controller greeted: the next pause is the shortest again."""
        self._next_s = FIRST_S
