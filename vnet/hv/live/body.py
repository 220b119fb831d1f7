"""What there is of one guest on this host: its spec, its record, its QEMU, the way to its agent."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from vnet.base import paths
from vnet.hv.argv import places_of
from vnet.hv.disk import Plugged
from vnet.hv.live.agent_link import AgentLink
from vnet.hv.live.process import Process
from vnet.hv.live.qemu import Qemu, no_monitor
from vnet.hv.live.qmp import Monitor
from vnet.hv.live.record import Record, record_path
from vnet.hv.spec import GuestSpec


class Body:
    """See the module. `spec` is what it is, or will be at its next start; `watching` runs beside it."""

    def __init__(self, spec: GuestSpec) -> None:
        self.spec = spec
        self.record: Record | None = None
        self.qemu: Qemu | None = None
        self.agent = AgentLink()
        self.watching: asyncio.Task[None] | None = None

    @property
    def run_dir(self) -> Path:
        """Its own folder."""
        return paths.vm_run_dir(self.spec.fabric, self.spec.name)

    @property
    def process(self) -> Process | None:
        """Its QEMU, which may have ended a moment ago."""
        return self.qemu.process if self.qemu else None

    @property
    def monitor(self) -> Monitor:
        """The connection to its QEMU. Raises PeerError when there is none."""
        if self.qemu is None:
            raise no_monitor(self.spec.name)
        return self.qemu.monitor

    @property
    def recorded(self) -> Record:
        """What is kept of one that is there, or half-made, beside its folder."""
        assert self.record is not None
        return self.record

    def keep(self, record: Record) -> None:
        """Writes it down for who finds the guest again."""
        self.record = record
        record.write(record_path(self.spec.fabric, self.spec.name))

    def note(self, **fields: object) -> None:
        """Changes what is kept."""
        self.keep(replace(self.recorded, **fields))  # type: ignore[arg-type]

    @property
    def plugged(self) -> tuple[Plugged, ...]:
        """Its disks as QEMU has them."""
        places = self.recorded.places if self.recorded.built else places_of(self.spec)
        there = {name for name, *_ in places.disks}  # a change may have been broken off
        return tuple(places.disk(each) for each in self.spec.disks if each.name in there)

    async def leave(self) -> None:
        """Lets go of the process, whether it runs on or has ended."""
        self.stop_watching()
        qemu, self.qemu = self.qemu, None
        await self.agent.close()
        if qemu:
            await qemu.leave()

    def stop_watching(self) -> None:
        """Unless it is who watches that asks for it: that one ends by itself."""
        if self.watching and self.watching is not asyncio.current_task():
            self.watching.cancel()
        self.watching = None
