"""Whether a VM does what it is for, as its health checks tell: pure, one value after another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from vnet.topology.life import HealthCheck

STARTING_INTERVAL_S = 1.0
"""How often a VM is looked at that has not succeeded yet."""


class State(Enum):
    """As `vnet ps` shows it."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of one start of a VM. Times are those of one monotonic clock, in seconds.

    `failures` are those in a row that count, `text` is what the last failed check said.
    """

    began_s: float
    state: State = State.STARTING
    failures: int = 0
    text: str = ""
    due_s: float = 0.0
    """When it is to be looked at again."""


def begun(now_s: float) -> Health:
    """Of a VM that has just been started."""
    return Health(now_s, due_s=now_s)


def looked(before: Health, check: HealthCheck, fault: str, now_s: float) -> Health:
    """After a check; `fault` says why it failed, empty when it succeeded."""
    if not fault:
        return Health(before.began_s, State.HEALTHY, due_s=now_s + check.interval_s)
    starts = before.state is State.STARTING
    due_s = now_s + (STARTING_INTERVAL_S if starts else check.interval_s)
    counts = not starts or now_s - before.began_s >= check.start_period_s
    failures = before.failures + counts
    state = State.UNHEALTHY if failures >= check.retries else before.state
    return replace(before, state=state, failures=failures, text=fault, due_s=due_s)
