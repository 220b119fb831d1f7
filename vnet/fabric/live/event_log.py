"""Keeps what happens: in files of bounded size, and for those who read along.

What is written is the kernel's at once, so it outlives a daemon that is killed; the last of it may be missing
after the host itself has crashed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from vnet.base.logs import about
from vnet.fabric.events import Event, Kind, lost
from vnet.fabric.live.journal import Journal
from vnet.fabric.live.rule_log import Follower, between

log = logging.getLogger(__name__)

SEGMENT_BYTES = 2 << 20
SEGMENTS = 8
"""16 MiB for the host: some 60,000 events."""
WORRYING = frozenset(
    {
        Kind.PLAN_FAILED,
        Kind.ROLLED_BACK,
        Kind.VM_DIED,
        Kind.VM_PANICKED,
        Kind.VM_HALTED,
        Kind.DISK_FAILED,
        Kind.VM_UNHEALTHY,
        Kind.DROP_STORM,
        Kind.REPORTS_LOST,
        Kind.CPU_SHORT,
        Kind.MEMORY_SHORT,
        Kind.GUEST_MEMORY_SHORT,
        Kind.DISK_SLOW,
        Kind.QEMU_SILENT,
        Kind.VERIFY_FAILED,
        Kind.UPLINK_DOWN,
    }
)
"""What is logged as a warning."""
LINES = 500
"""Sent together."""


class EventLog:
    """See the module. Without a directory it keeps nothing. All methods belong to one event loop."""

    def __init__(self, directory: Path | None = None) -> None:
        self._journal = Journal(directory, SEGMENT_BYTES, SEGMENTS) if directory else None
        self._followers: list[Follower] = []
        self._unwritten = 0

    def tell(
        self,
        kind: Kind,
        text: str,
        fabric: str = "",
        subject: str = "",
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        """It happened just now."""
        self.add(Event(time.time_ns(), kind, " ".join(text.split()), fabric, subject, fields or {}))

    def add(self, event: Event) -> None:
        """Keep an event, tell those who read along. A disk that is full costs events, not the daemon."""
        level = logging.WARNING if event.kind in WORRYING else logging.INFO
        named = about(fabric=event.fabric, kind=event.kind.value, subject=event.subject)
        log.log(level, "%s", event.text, extra=named)
        line = event.json()
        for follower in self._followers:
            follower.offer(line)
        if self._journal is None:
            return
        gap = [lost(time.time_ns(), self._unwritten).json()] if self._unwritten else []
        try:
            self._journal.append([*gap, line])
        except OSError as error:
            if not self._unwritten:
                log.warning("cannot write %s: %s", self._journal.directory, error.strerror)
            self._unwritten += 1
        else:
            self._unwritten = 0

    def read(
        self, since_ns: int | None, until_ns: int | None, follow: bool, wanted: Callable[[str], bool]
    ) -> Callable[[asyncio.Queue[bytes | None]], Awaitable[None]]:
        """Ready to be read: the lines of a time, then, with `follow`, what comes; those that are wanted."""

        async def produce(blocks: asyncio.Queue[bytes | None]) -> None:
            with self._followed() as follower:
                kept = filter(wanted, between(self._snapshot(), since_ns, until_ns))
                while lines := await asyncio.to_thread(lambda: tuple(islice(kept, LINES))):
                    await blocks.put(_block(lines))
                while follow and (new := await follower.next()) is not None:
                    if chosen := tuple(filter(wanted, new)):
                        await blocks.put(_block(chosen))

        return produce

    @contextlib.contextmanager
    def _followed(self) -> Iterator[Follower]:
        follower = Follower(lambda count: lost(time.time_ns(), count).json())
        self._followers.append(follower)
        try:
            yield follower
        finally:
            self._followers.remove(follower)

    def _snapshot(self) -> Iterator[str]:
        return self._journal.snapshot() if self._journal else iter(())

    def close(self) -> None:
        """Nothing more happens."""
        for follower in self._followers:
            follower.end()
        if self._journal is not None:
            self._journal.close()


def _block(lines: tuple[str, ...]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
