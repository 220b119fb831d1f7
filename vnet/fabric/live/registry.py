"""The fabrics that are up on this host, and what all who change them share: store, locks, neighbours."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from vnet.base.errors import HostError, InputError, UsageError, VnetError
from vnet.fabric.declared import Declared
from vnet.fabric.disk_sizing import DiskSeen
from vnet.fabric.events import Kind
from vnet.fabric.live.apply import Performer
from vnet.fabric.live.boots import Look
from vnet.fabric.live.event_log import EventLog
from vnet.fabric.live.parts import Parts
from vnet.fabric.state import Guest
from vnet.fabric.store import Pending, Record, Store
from vnet.hv.admission import VCPUS_PER_CPU, Room
from vnet.hv.disk import Disk
from vnet.policy.compile import Compiled, Compiler, compile
from vnet.topology.inventory import Inventory, Vm
from vnet.topology.model import Topology

COUNTS_S = 5.0
"""How long a daemon that ends waits for a switch to say what its flows have counted."""


@dataclass(frozen=True, slots=True)
class Host:
    """What is asked of this host: replaced in tests."""

    require: Callable[[], None]
    available_memory_bytes: Callable[[], int]
    boot_id: Callable[[], str]
    tidy: Callable[[str], None]
    """Remove the run directory of a fabric that is gone."""
    now: Callable[[], datetime]
    """The time of day, in UTC: rules may expire."""
    uptime_s: Callable[[], float]
    """Seconds since the host was booted, whatever its clock is set to."""
    has_queue: Callable[[str], bool] = lambda kind: True
    """Whether the kernel has a queueing discipline, such as `netem`."""
    cpus: Callable[[], int] = lambda: 2
    memory_bytes: Callable[[], int] = lambda: 8 << 30
    vcpus_per_cpu: Callable[[], int] = lambda: VCPUS_PER_CPU
    missing_disk_bytes: Callable[[str, str, Disk], int] = lambda fabric, vm, wanted: 0
    """What a VM's disk takes at once when the VM is started."""
    disk_room: Callable[[str], Room] = lambda location: Room(0, 0, location)
    """What is free at a location of disks."""
    obstacles: Look = lambda fabric, guest: ()
    """What keeps a VM from booting."""
    disks: Callable[[str, Guest], tuple[DiskSeen, ...]] = lambda fabric, guest: ()
    """What is known of the sizes of a VM's disks."""


@dataclass(slots=True)
class Fabric:
    """One fabric that is up: its record, what it declares, its neighbours.

    `trouble` says why it could not be brought back to what should be, after a restart of the daemon.
    `starting` are the guests that have been admitted and may not have taken their memory yet.
    `retry_at_s` is the uptime from which on a rollback that failed is tried again.
    `enforced_ns` is when flows were last put in force by this daemon, since 1970; 0 if they were not.
    `automatic` are the VMs to be started without being asked for, once the fabric has been adopted.
    """

    parts: Parts
    record: Record
    declared: Declared | None = None
    trouble: str = ""
    starting: frozenset[Guest] = frozenset()
    retry_at_s: float = 0.0
    enforced_ns: int = 0
    automatic: frozenset[str] = frozenset()

    @property
    def vms(self) -> tuple[Vm, ...]:
        """The VMs that it declares and runs; none if it could not be read again."""
        return self.declared.inventory.launched if self.declared else ()

    def vm(self, name: str) -> Vm:
        """The VM of that name. Raises InputError naming those there are."""
        if self.declared is None:
            raise HostError(f"the fabric {self.record.name} could not be read again: {self.trouble}")
        found = next((vm for vm in self.vms if vm.name == name), None)
        if found is not None:
            return found
        if any(vm.name == name for vm in self.declared.inventory.vms):
            raise InputError(f"{name} is an endpoint: whoever runs it starts and stops it")
        known = ", ".join(vm.name for vm in self.vms)
        raise InputError(f"there is no VM {name} in fabric {self.record.name}; its VMs: {known}")


@dataclass(slots=True)
class Registry:
    """All fabrics by name. Whoever changes one holds its lock."""

    store: Store
    make_parts: Callable[[str], Parts]
    host: Host
    fabrics: dict[str, Fabric] = field(default_factory=dict, init=False)
    locks: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock), init=False)
    events: EventLog = field(default_factory=EventLog, init=False)
    """What happens is told to it."""
    _compilers: dict[str, Compiler] = field(default_factory=dict, init=False)

    def fabric(self, name: str) -> Fabric:
        """The fabric of that name. Raises InputError naming those there are."""
        if name not in self.fabrics:
            known = ", ".join(sorted(self.fabrics)) or "none"
            raise InputError(f"there is no fabric {name} on this host; fabrics that are up: {known}")
        return self.fabrics[name]

    def only(self) -> str:
        """The name of the only fabric. Raises UsageError when a name is needed."""
        if len(self.fabrics) == 1:
            return next(iter(self.fabrics))
        known = ", ".join(sorted(self.fabrics)) or "none is up"
        raise UsageError(f"which fabric? name it with -n NAME or -f FILE ({known})")

    def compile(self, topology: Topology, inventory: Inventory) -> Compiled:
        """Compile what a fabric is to be: costs what is not as it was the last time, planned or made.

        A fabric that is not up is compiled from the beginning.
        """
        name = topology.name
        if name not in self.fabrics:
            return compile(topology, inventory)
        compiler = self._compilers.pop(name, None)  # one that fails is of no more use
        if compiler is None:
            compiler = Compiler(topology, inventory)
        else:
            compiler.update(topology, inventory)
        self._compilers[name] = compiler
        return compiler.compiled

    def save(self, fabric: Fabric, record: Record) -> None:
        """Make this the fabric's record; nothing has happened when the store refuses."""
        self.store.save(record)
        fabric.record = record

    def save_pending(self, fabric: Fabric, pending: Pending | None) -> None:
        """Note what of the fabric waits for confirmation."""
        record = replace(fabric.record, pending=pending)
        self.store.save_pending(record)
        fabric.record = record

    def performer(self, fabric: Fabric, generation: int) -> Performer:
        """What carries out actions; once the flows have been changed `generation` is in force."""

        def enforced() -> None:
            self._tell_enforced(fabric.record, generation)
            fabric.enforced_ns = time.time_ns()
            fabric.record = replace(fabric.record, enforced=generation)
            fabric.parts.switch.watch.enforced(generation)
            self.store.save_enforced(fabric.record.name, generation)

        name = fabric.record.name
        record = lambda: self.fabrics.get(name, fabric).record  # noqa: E731
        return Performer(name, fabric.parts, self.store, record, enforced, self.events.tell)

    def _tell_enforced(self, record: Record, generation: int) -> None:
        if generation:  # 0: its switch is gone
            text = f"generation {generation} is in force"
            fields = {"generation": generation, "from": record.enforced}
            self.events.tell(Kind.POLICY_ENFORCED, text, record.name, fields=fields)

    async def forget(self, name: str) -> None:
        """Let go of a fabric of which nothing is left."""
        self.store.remove(name)
        self._compilers.pop(name, None)
        await close(self.fabrics.pop(name).parts)
        self.host.tidy(name)

    async def close(self) -> None:
        """Let go of everything; all of it goes on running."""
        for fabric in self.fabrics.values():
            await close(fabric.parts)
        self.fabrics.clear()
        self.events.close()
        self.store.close()


async def close(parts: Parts) -> None:
    """Let go of a fabric's neighbours."""
    await parts.guests.close()
    parts.log.close(await _counted(parts))
    await parts.switch.close()
    await parts.network.close()


async def _counted(parts: Parts) -> Mapping[int, int] | None:
    """What the flows have counted that are logged; None if the switch does not say so soon."""
    try:
        async with asyncio.timeout(COUNTS_S):
            return await parts.switch.logged_counts()
    except (VnetError, TimeoutError):
        return None
