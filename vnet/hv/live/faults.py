"""What the disks of one guest have met since its start, and whether that is news."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace

from vnet.hv.faults import DiskFault

AGAIN_S = 60.0
"""A disk that fails at every access is told of so often."""
RETRY_S = 0.5
"""A disk that still cannot be written to shows within that time after its guest goes on."""


class Faults:
    """See the module. Belongs to one event loop."""

    def __init__(self) -> None:
        self.latest: DiskFault | None = None
        self.halted = asyncio.Event()
        """Set when QEMU has let the guest stand still, until somebody has seen to it."""
        self.stays = False
        """It is to stand still whatever becomes of the disk: a user said so."""
        self._told_s: dict[DiskFault, float] = {}

    def meet(self, fault: DiskFault) -> bool:
        """Notes a fault. Returns whether it is news."""
        known = self.latest
        if fault.halts and known is not None and known.damaged and known.node == fault.node:
            fault = replace(known, halts=True)
        if fault.halts or not self.is_halted:
            self.latest = fault
        if fault.halts:
            self.halted.set()
        told_s, now_s = self._told_s.get(fault), time.monotonic()
        is_news = told_s is None or now_s >= told_s + AGAIN_S
        if is_news:
            self._told_s[fault] = now_s
        return is_news

    @property
    def is_halted(self) -> bool:
        """Whether the guest stands still for a disk."""
        return self.latest is not None and self.latest.halts

    @property
    def awaits_room(self) -> bool:
        """Whether it may go on as soon as there is room, or its backup has been given up."""
        return self.latest is not None and self.latest.passes and not self.stays

    def go_on(self) -> None:
        """The guest is about to try again."""
        if self.latest is not None and self.latest.halts:
            self.latest = replace(self.latest, halts=False) if self.latest.damaged else None
        self.stays = False
        self.halted.clear()

    async def shows_again(self) -> bool:
        """Whether the disk fails once more as soon as the guest goes on."""
        with suppress(TimeoutError):
            async with asyncio.timeout(RETRY_S):
                await self.halted.wait()
        return self.halted.is_set()
