"""When a VM that has ended is started again: pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from vnet.hv.spec import GuestState
from vnet.topology.life import Life, Restart, RestartWhen

FIRST_DELAY_S, LAST_DELAY_S = 1.0, 60.0
"""The first new start, and the longest pause between two: each is twice as long as the one before."""
STEADY_S = 10.0
"""Who has run so long has come up: the next end is counted from the beginning."""


@dataclass(frozen=True, slots=True)
class Tries:
    """New starts of one VM in a row. `due_s` is when the next is made, 0.0 as long as none is."""

    made: int = 0
    due_s: float = 0.0


def wants(policy: Restart, state: GuestState) -> bool:
    """Whether a VM that ended so, without being asked to, is to be started again."""
    if state is GuestState.CRASHED:
        return policy.when is not RestartWhen.NO
    return state is GuestState.STOPPED and policy.when in (RestartWhen.ALWAYS, RestartWhen.UNLESS_STOPPED)


def is_exhausted(policy: Restart, tries: Tries) -> bool:
    """Whether it has been tried as often as the policy says."""
    return policy.tries is not None and tries.made >= policy.tries


def seen_ended(tries: Tries, now_s: float) -> Tries:
    """It has ended: from here on the pause counts."""
    if tries.due_s:
        return tries
    return replace(tries, due_s=now_s + min(LAST_DELAY_S, FIRST_DELAY_S * 2**tries.made))


def started(tries: Tries) -> Tries:
    """It was started again, or that was tried."""
    return Tries(tries.made + 1)


def seen_running(tries: Tries, uptime_s: float) -> Tries:
    """It runs."""
    return Tries() if uptime_s >= STEADY_S else replace(tries, due_s=0.0)


def begin_again(
    lives: Mapping[str, Life], stopped: frozenset[str], booted: bool, suspended: frozenset[str] = frozenset()
) -> frozenset[str]:
    """The VMs among `stopped` that a user's stop no longer holds for, now that the daemon has started.

    Args:
        lives: those of all VMs, by name.
        booted: whether the host was booted since they were stopped.
        suspended: those whose memory is kept: they are brought back after a boot, if at all.
    """
    always = {name for name, life in lives.items() if life.restart.when is RestartWhen.ALWAYS}
    automatic = {name for name, life in lives.items() if life.autostart and booted}
    return stopped & (always - suspended | automatic)
