"""One attack after another against a twin, and what became of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from vnet.base.drop import DropReason
from vnet.drill.attack import Attack, Control, Exercise, NotTried, Step
from vnet.drill.groups import CONTROL

BY_HOST = "HOST"
"""Stands for the reason of frames that the kernel took from no port: it refused them before the switch."""
NO_STAND_IN = DropReason.NO_PORT
"""The switch sent the frame to a port that nobody stands in for: it got through."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What became of the frames of one step.

    Args:
        sent: how many there were.
        refused: how many of them the kernel did not take, or lost before the switch saw them.
        reasons: how many the switch dropped, by reason.
        cookies: of the flow that dropped, by reason, where one did.
        arrived: how many each other NIC got; what the sender is answered got through to nobody.
    """

    sent: int
    refused: int = 0
    reasons: Mapping[DropReason, int] = field(default_factory=dict)
    cookies: Mapping[DropReason, int] = field(default_factory=dict)
    arrived: Mapping[str, int] = field(default_factory=dict)

    @property
    def passed(self) -> int:
        """How many frames the switch did not drop, or dropped for want of a port; or that somebody got."""
        dropped = sum(count for reason, count in self.reasons.items() if reason is not NO_STAND_IN)
        return max(self.sent - self.refused - dropped, max(self.arrived.values(), default=0))


class Twin(Protocol):
    """A copy of a NIC's port, with stand-ins for its neighbours."""

    def send(self, step: Step) -> Observed:
        """Have a NIC send, and see what becomes of it."""
        ...

    def forget(self) -> None:
        """Forget all connections."""
        ...


class Result(Enum):
    """STOPPED and GOT_THROUGH of an attack, ARRIVED and LOST of a control."""

    STOPPED = "stopped"
    GOT_THROUGH = "got through"
    ARRIVED = "arrived"
    LOST = "lost"
    NOT_TRIED = "not tried"


BAD = frozenset({Result.GOT_THROUGH, Result.LOST})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one attack or control.

    `passed` is how many of the `sent` frames got through, `reasons` why the others did not; `cookie` is
    that of the flow that dropped most of them, 0 if none did. `note` says why it was not tried.
    """

    group: str
    what: str
    source: str
    result: Result
    sent: int = 0
    passed: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    cookie: int = 0
    arrived: Mapping[str, int] = field(default_factory=dict)
    note: str = ""


def drill(
    twin: Twin, controls: Iterable[Control], exercises: Iterable[Exercise], is_over: Callable[[], bool]
) -> Iterator[Outcome]:
    """The controls, then every attack, each without the connections of those before.

    Once `is_over` says so, what is left is not tried.
    """
    for control in controls:
        yield _controlled(twin, control)
    for exercise in exercises:
        if isinstance(exercise, NotTried):
            yield _not_tried(exercise, exercise.why)
        elif is_over():
            yield _not_tried(exercise, "out of time")
        else:
            yield _attacked(twin, exercise)


def _not_tried(exercise: Exercise, why: str) -> Outcome:
    return Outcome(exercise.group, exercise.what, exercise.source, Result.NOT_TRIED, note=why)


def _controlled(twin: Twin, control: Control) -> Outcome:
    twin.forget()
    seen = twin.send(control.step)
    got = seen.arrived.get(control.receiver, 0)
    result = Result.ARRIVED if got >= seen.sent else Result.LOST
    return _outcome(CONTROL, control.what, "", result, seen)


def _attacked(twin: Twin, attack: Attack) -> Outcome:
    twin.forget()
    seen = Observed(0)
    for step in attack.steps:
        one = twin.send(step)
        seen = seen if step.harmless else _together(seen, one)
    result = Result.STOPPED if seen.passed <= attack.may_pass else Result.GOT_THROUGH
    return _outcome(attack.group, attack.what, attack.source, result, seen)


def _together(one: Observed, other: Observed) -> Observed:
    return Observed(
        one.sent + other.sent,
        one.refused + other.refused,
        Counter(one.reasons) + Counter(other.reasons),
        {**one.cookies, **other.cookies},
        Counter(one.arrived) + Counter(other.arrived),
    )


def _outcome(group: str, what: str, source: str, result: Result, seen: Observed) -> Outcome:
    often = sorted(seen.reasons.items(), key=lambda pair: (-pair[1], pair[0]))
    reasons = {reason.name: count for reason, count in often}
    if seen.refused:
        reasons[BY_HOST] = seen.refused
    cookie = next((seen.cookies[reason] for reason, _ in often if seen.cookies.get(reason)), 0)
    return Outcome(group, what, source, result, seen.sent, seen.passed, reasons, cookie, seen.arrived)
