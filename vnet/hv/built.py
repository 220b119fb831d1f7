"""What a guest's machine is built for when it is started: how far it can grow while it runs, and where its
devices are plugged in. Neither costs anything as long as it is not used.

Source: QEMU 7.2, qemu(1) (`-smp maxcpus`, `-m maxmem`), docs/system/devices/virtio-mem; Linux,
Documentation/admin-guide/mm/memory-hotplug.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from vnet.hv.disk import Disk, Plugged

GROWTH = 4
"""A guest may be given so many times the CPUs and the memory that it was started with."""
GROWTH_BYTES_MIN = 1 << 30
"""And at least so much more memory."""
MEMORY_MAX_BYTES = 512 << 30
"""Nothing grows beyond that: half of what QEMU's processors can address when nothing else is said."""
CPUS_MAX = 255
"""More would need x2APIC and an IOMMU."""
MEMORY_BLOCK_BYTES = 2 << 20
"""Memory comes and goes in such pieces: the block size of virtio-mem on x86."""

SLOTS = 8
"""PCIe slots come in such numbers, so that guests with few devices share a template."""
_SPARE_SLOTS = 3
"""Free at least when a guest is started: two for NICs and disks, and the last one for memory."""


@dataclass(frozen=True, slots=True)
class Built:
    """What cannot change while a machine runs. `slots` are those of its PCIe root ports."""

    cpus: int
    memory_bytes: int
    cpus_max: int
    memory_max_bytes: int
    slots: int

    @property
    def device_slots(self) -> int:
        """The slots for NICs and disks; the last one is for memory."""
        return max(0, self.slots - 1)

    @property
    def memory_slot(self) -> int:
        """The slot of what memory is added by."""
        return self.slots - 1

    @property
    def growth_bytes(self) -> int:
        """How much memory can be added."""
        return self.memory_max_bytes - self.memory_bytes


def built_for(cpus: int, memory_bytes: int, devices: int, accel: str, *, grows: bool = True) -> Built:
    """The machine for a guest that is started with so many CPUs, so much memory, so many NICs and disks.

    `grows` is whether memory can be added. A Linux with a command line of its own sets 64 MiB aside for that.
    """
    growth = _growth_bytes(memory_bytes) if grows else 0
    slots = -(-(devices + _SPARE_SLOTS) // SLOTS) * SLOTS
    return Built(cpus, memory_bytes, _cpus_max(cpus, accel), memory_bytes + growth, slots)


def _growth_bytes(memory_bytes: int) -> int:
    wanted = max(GROWTH_BYTES_MIN, (GROWTH - 1) * memory_bytes)
    return max(0, min(wanted, MEMORY_MAX_BYTES - memory_bytes)) // MEMORY_BLOCK_BYTES * MEMORY_BLOCK_BYTES


def _cpus_max(cpus: int, accel: str) -> int:
    """Under TCG only a guest with one CPU can get more: with several, each in a thread of its own, QEMU 7.2
    breaks down over a CPU that is added once the others have used up the room for translated code. A guest
    with one has one thread, also for those that are added.
    """
    return cpus if accel == "tcg" and cpus > 1 else max(cpus, min(GROWTH * cpus, CPUS_MAX))


def unchangeable(cpus: int, memory_bytes: int) -> Built:
    """A machine that was built before any could grow: nothing can be added."""
    return Built(cpus, memory_bytes, cpus, memory_bytes, 0)


@dataclass(frozen=True, slots=True)
class Places:
    """Where devices are: NICs as (interface, slot), disks as (name, index, slot)."""

    nics: tuple[tuple[str, int], ...] = ()
    disks: tuple[tuple[str, int, int], ...] = ()

    def nic(self, interface: str) -> int:
        """The slot of a NIC."""
        return next(slot for name, slot in self.nics if name == interface)

    def disk(self, disk: Disk) -> Plugged:
        """A disk with its place."""
        index, slot = next((index, slot) for name, index, slot in self.disks if name == disk.name)
        return Plugged(disk, index, slot)

    def with_nic(self, interface: str) -> Places:
        """A NIC more, in the first slot that is free."""
        return replace(self, nics=(*self.nics, (interface, self._free_slot())))

    def without_nic(self, interface: str) -> Places:
        """Without that NIC."""
        return replace(self, nics=tuple(each for each in self.nics if each[0] != interface))

    def with_disk(self, name: str) -> Places:
        """A disk more, with the first number and in the first slot that are free."""
        index = _first_free(index for _, index, _ in self.disks)
        return replace(self, disks=(*self.disks, (name, index, self._free_slot())))

    def without_disk(self, name: str) -> Places:
        """Without that disk."""
        return replace(self, disks=tuple(each for each in self.disks if each[0] != name))

    def _free_slot(self) -> int:
        return _first_free((*(slot for _, slot in self.nics), *(slot for *_, slot in self.disks)))


NOWHERE = Places()
"""Of a guest without NICs and disks."""


def _first_free(taken: Iterable[int]) -> int:
    used = set(taken)
    return next(number for number in range(len(used) + 1) if number not in used)


def places_at_start(interfaces: Sequence[str], disks: Sequence[str]) -> Places:
    """Where the devices of a guest are that has just been started: NICs first, then disks."""
    return Places(
        tuple((name, slot) for slot, name in enumerate(interfaces)),
        tuple((name, index, len(interfaces) + index) for index, name in enumerate(disks)),
    )
