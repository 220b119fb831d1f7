"""From a guest and what its start needs to a QEMU that runs: as a clone, booted, or with memory of its own.

Folder and record come first and are kept by the guest before anything runs: a manager that is killed in the
midst of it leaves a record from which the next one finds all there is to remove.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from vnet.base import paths
from vnet.base.errors import HostError, PeerError
from vnet.hv import hotplug, monitor, saving
from vnet.hv.accel import Accel
from vnet.hv.argv import Machine, Memory, NicArgument, built_of, machine_of, places_of
from vnet.hv.live import cgroup, console_log
from vnet.hv.live.boot import Prepared
from vnet.hv.live.deadline import deadline
from vnet.hv.live.host_files import opened
from vnet.hv.live.image import Image
from vnet.hv.live.keys import read_key
from vnet.hv.live.launcher import Confinement, launch_machine, launch_opened, open_vhost
from vnet.hv.live.opening import open_disks, open_for
from vnet.hv.live.process import Process, file_limit
from vnet.hv.live.qemu import Qemu
from vnet.hv.live.record import Record
from vnet.hv.live.template import Template
from vnet.hv.live.threads import finished, kept
from vnet.hv.live.users import claim_dir
from vnet.hv.monitor import RunState
from vnet.hv.spec import GuestSpec

LOAD_TIMEOUT_S = 20.0
SCREENSHOT_BYTES = 64 << 20
"""How long a file the QEMU of a guest with a screen may write."""


def no_more() -> None:
    """Nothing is to be done."""


@dataclass(frozen=True, slots=True)
class Means:
    """What a start needs from the manager besides the spec. `template` is None for a cold boot.

    `image` is vnet's own guest, or what another one boots.
    """

    accel: Accel
    image: Image | Prepared
    open_tap: Callable[[str], int]
    template: Template | None = None
    saved: Path | None = None
    """Its own memory, if it goes on from there."""
    origin: str = ""
    """The wish that it is started from."""
    gone_on: Callable[[], None] = no_more
    """Called once it goes on with that memory."""


def prepare(spec: GuestSpec, means: Means, *, warm: bool) -> Record:
    """Makes a guest's folder and control group. The record has to be kept before anything runs."""
    user = claim_dir(paths.vm_run_dir(spec.fabric, spec.name))
    group = cgroup.create(spec.fabric, spec.name, spec.memory_bytes)
    return Record(
        uuid=spec.uuid,
        user=user,
        accel=means.accel.name,
        warm=warm,
        memory_bytes=spec.memory_bytes,
        cgroups=tuple(str(folder) for folder in group.folders),
        origin=means.origin,
        built=built_of(spec, means.accel.name),
        places=places_of(spec),
    )


@dataclass(frozen=True, slots=True)
class Launch:
    """One start of one guest. All descriptors are opened here, and closed once QEMU has them."""

    spec: GuestSpec
    means: Means
    record: Record

    # ---- a process ---------------------------------------------------------------------------

    async def clone(self) -> Process:
        """One that shares the template's memory; NICs and disks are plugged in later."""
        template = self._template
        return await self._launch(replace(self._machine(), memory=Memory.CLONE), memory_fd=template.memory_fd)

    async def cold(self) -> Process:
        """A cold boot, or with memory that will be loaded: then what was plugged in late is there at once."""
        machine = replace(self._machine(), is_saved=self.means.saved is not None)
        descriptors: list[int] = []
        try:
            for nic in self.spec.nics:
                tap = await self._open_tap(nic.name)
                descriptors.append(tap)
                vhost = open_vhost()
                descriptors += [vhost] if vhost is not None else []
                machine = replace(machine, nics=(*machine.nics, NicArgument(nic.mac, tap, vhost)))
            return await self._launch_with_disks(machine, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    async def _launch_with_disks(self, machine: Machine, descriptors: list[int]) -> Process:
        prepared, as_they_are = self.means.image, machine.is_saved
        with contextlib.ExitStack() as stack:
            if isinstance(prepared, Prepared):
                found = await finished(open_for, self.spec, prepared, stack, as_they_are=as_they_are)
                machine = replace(machine, pc=found.pc, disks=found.disks)
                return await self._launch(machine, fds=(*descriptors, *found.fds))
            disks = await finished(open_disks, self.spec, None, stack, as_they_are=as_they_are)
            fds = (*descriptors, *(fd for each in disks for fd in each.fds))
            return await self._launch(replace(machine, disks=disks), fds=fds)

    async def _launch(
        self, machine: Machine, *, memory_fd: int | None = None, fds: tuple[int, ...] = ()
    ) -> Process:
        image = self.means.image
        disks = image.disks if isinstance(image, Prepared) else self.spec.disks
        least = SCREENSHOT_BYTES if machine.pc else 0
        file_bytes = max((least, *(disk.file_bytes for disk in disks)))
        group = cgroup.of(self.record.cgroups)
        confinement = Confinement(self.record.user, group, self.means.accel, file_bytes)
        with console_log.begun(self.spec.fabric, self.spec.name, file_limit(file_bytes)) as log:
            machine = replace(machine, console_log_fd=log)
            if isinstance(image, Prepared):
                return await launch_opened(machine, confinement, (*fds, log))
            return await launch_machine(machine, image, confinement, memory_fd=memory_fd, fds=(*fds, log))

    def _machine(self) -> Machine:
        run_dir = str(paths.vm_run_dir(self.spec.fabric, self.spec.name))
        return machine_of(
            self.spec,
            uuid=self.record.uuid,
            run_dir=run_dir,
            accel=self.record.accel,
            kernel="",
            initrd="",
        )

    # ---- into a QEMU that waits --------------------------------------------------------------

    async def load_template(self, qemu: Qemu) -> None:
        """A clone gets the state of its template's devices."""
        with opened(self._template.state) as state:
            await qemu.monitor.execute_all(monitor.load_state(state))
        async with deadline(LOAD_TIMEOUT_S, f"{self.spec.name} did not load its template's state"):
            await qemu.monitor.poll(monitor.QUERY_STATUS, _is_loaded)

    async def load_saved(self, qemu: Qemu) -> None:
        """How long that takes is up to its size; QEMU ends when it cannot. Cables are in, as at any start."""
        assert self.means.saved is not None
        with opened(self.means.saved) as state:
            await qemu.monitor.execute_all(saving.load(state))
        try:
            await qemu.monitor.poll(monitor.QUERY_STATUS, _is_loaded)
        except PeerError as error:
            raise HostError(
                f"QEMU could not load the memory of {self.spec.name}: {qemu.last_words}"
            ) from error
        cables = (hotplug.set_link(index, is_up=True) for index in range(len(self.spec.nics)))
        await qemu.monitor.execute_all(cables)

    async def plug(self, qemu: Qemu) -> None:
        """A clone gets its NICs and disks, and goes on."""
        for index, nic in enumerate(self.spec.nics):
            tap = await self._open_tap(nic.name)
            vhost = open_vhost()
            try:
                await qemu.monitor.execute_all(monitor.plug_nic(index, nic.mac, tap, vhost))
            finally:
                os.close(tap)
                if vhost is not None:
                    os.close(vhost)
        with contextlib.ExitStack() as stack:
            for disk in await finished(open_disks, self.spec, None, stack):
                plugging = monitor.plug_disk(disk.plugged, disk.fd, read_key(disk.key_fd), disk.base_fd)
                await qemu.monitor.execute_all(plugging)
        await qemu.monitor.execute(monitor.CONTINUE)

    async def _open_tap(self, nic: str) -> int:
        return await kept(os.close, self.means.open_tap, nic)

    @property
    def _template(self) -> Template:
        assert self.means.template is not None
        return self.means.template


def _is_loaded(answer: object) -> bool:
    return monitor.parse_status(answer) is not RunState.INCOMING
