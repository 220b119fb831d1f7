"""What the switch met and could not tell: the packets its flows count, less those that were told.

A switch reports a port's packets up to a rate, and its ring and its controller's socket can be full. Its flow
counters miss nothing. So the difference is what is missing from the log, rule by rule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Losses:
    """By cookie: what was counted, and how much of it was not told.

    A report may be on its way while the counters are read, so what is missing must be missing twice.
    """

    _counted: dict[int, int] = field(default_factory=dict)
    _untold: Counter[int] = field(default_factory=Counter)
    """Below 0 when reports were ahead of the counters."""
    _missing: Mapping[int, int] = field(default_factory=dict)

    def begin(self, counted: Mapping[int, int]) -> None:
        """What the flows had counted before anything was told: that is not asked for."""
        self._counted = dict(counted)

    def tell(self, cookie: int, packets: int = 1) -> None:
        """So many packets of these flows were reported."""
        self._untold[cookie] -= packets

    @property
    def is_open(self) -> bool:
        """Whether something seems to be missing that might still come."""
        return bool(self._missing)

    def settle(self, counted: Mapping[int, int]) -> Mapping[int, int]:
        """What the flows count now. Returns what is lost for good, each packet once."""
        lost: dict[int, int] = {}
        for cookie, packets in counted.items():
            more = packets - self._counted.get(cookie, 0)
            if more < 0:  # flows went, and their counts with them
                self._untold[cookie] = 0
                continue
            self._untold[cookie] += more
            gone = min(self._untold[cookie], self._missing.get(cookie, 0))
            if gone > 0:
                lost[cookie] = gone
                self._untold[cookie] -= gone
        self._counted = dict(counted)
        self._missing = {cookie: self._untold[cookie] for cookie in counted if self._untold[cookie] > 0}
        return lost
