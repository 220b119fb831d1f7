"""Waiting until no packet is left that is being decided under an old version.

A packet is decided within one run of the program, and that runs with softirqs disabled, so nothing else is
scheduled on its processor until it is done. A thread that has run on each processor once has therefore
outlived every run that had begun before. That is RCU in its first form (Documentation/RCU/whatisRCU.rst, the
second "toy" implementation). It takes 0.1 ms; a grace period of the kernel, which is in no hurry, 8 to 16.

Where softirqs can be preempted (PREEMPT_RT), or a processor is not ours to run on, the kernel's grace period
is waited for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vnet.switch.live.bpf import GracePeriod

ONLINE = Path("/sys/devices/system/cpu/online")
REALTIME = Path("/sys/kernel/realtime")
SOON = os.sched_param(1)


class Quiescence:
    """Waits until every packet that is being decided has been decided."""

    def __init__(self) -> None:
        self._grace = GracePeriod()

    def wait(self) -> None:
        """Return when every packet that entered before the call has been decided.

        Raises `HostError` when the kernel would not say so.
        """
        if not _run_everywhere():
            self._grace.wait()

    def close(self) -> None:
        """Free what is held in the kernel."""
        self._grace.close()


def _run_everywhere() -> bool:
    """Have this thread run on each processor that is online; false when that cannot be said."""
    if _is_realtime():
        return False
    before = _online()
    try:
        with _first_in_line():
            for cpu in before:
                os.sched_setaffinity(0, {cpu})
    except OSError:  # offline by now, or outside of our cpuset
        return False
    return before == _online()


@contextmanager
def _first_in_line() -> Iterator[None]:
    """Go before all that are not in a hurry; afterwards everything is as it was."""
    affinity, policy, param = os.sched_getaffinity(0), os.sched_getscheduler(0), os.sched_getparam(0)
    with suppress(PermissionError):  # only slower without
        os.sched_setscheduler(0, os.SCHED_FIFO, SOON)
    try:
        yield
    finally:
        os.sched_setaffinity(0, affinity)
        os.sched_setscheduler(0, policy, param)


def _is_realtime() -> bool:
    try:
        return REALTIME.read_text().strip() == "1"
    except FileNotFoundError:
        return False


def _online() -> frozenset[int]:
    """The processors that run anything, of a list like `0-3,8`."""
    parts = ONLINE.read_text().strip().split(",")
    ends = (part.partition("-") for part in parts)
    return frozenset(cpu for first, _, last in ends for cpu in range(int(first), int(last or first) + 1))
