"""Changes of a guest: which are made while it runs, which take a new start, and the steps of the former.

`differences` tells a change field by field, each with what it takes; `steps` are what `live/changing.py`
performs, in order. `done` is what each step makes of the guest, so that a change that fails half-way can be
taken back from where it stands, and one whose manager was killed completed from there (`standing`); what
cannot be taken back, CPUs, is added last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from vnet.base.errors import HostError
from vnet.hv.built import MEMORY_BLOCK_BYTES, Built
from vnet.hv.disk import Disk
from vnet.hv.spec import GuestNic, GuestSpec, format_mac


class HalfChanged(HostError):
    """A change could be neither made nor taken back: the guest is not what it was, nor what it should be."""


class How(StrEnum):
    """What a change takes. A VM keeps its disks whatever it is."""

    LIVE = "live"
    """The guest goes on."""
    RESTART = "restart"
    """It is switched off in order, and started as it is to be."""
    RECREATE = "re-create"
    """It is ended and another one is made."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that changes, in words, and what that takes."""

    what: str
    how: How


def most(differences: Iterable[Difference]) -> How:
    """What a change as a whole takes: as much as the field that takes most."""
    order = (How.RECREATE, How.RESTART)
    found = {each.how for each in differences}
    return next((how for how in order if how in found), How.LIVE)


# -- what changes -----------------------------------------------------------------------------------


def differences(old: GuestSpec, new: GuestSpec, built: Built) -> tuple[Difference, ...]:
    """All that is another in `new`, for a guest that runs as `old` in a machine that was built so."""
    return (
        *_image(old, new),
        *_cpus(old, new, built),
        *_memory(old, new, built),
        *_nics(old, new),
        *_disks(old, new),
        *_slots(old, new, built),
        *_others(old, new),
    )


def _image(old: GuestSpec, new: GuestSpec) -> Iterator[Difference]:
    if old.image != new.image:
        yield Difference(f"image {old.image} → {new.image}", How.RECREATE)
    elif old.boot != new.boot:
        is_told = replace(old.boot, cloud_init=new.boot.cloud_init) == new.boot
        yield Difference("what cloud-init tells it" if is_told else "what it boots", How.RESTART)


def _cpus(old: GuestSpec, new: GuestSpec, built: Built) -> Iterator[Difference]:
    """None is taken away from a guest that runs: QEMU 7.2 breaks down later, under TCG."""
    if old.cpus != new.cpus:
        live = old.cpus < new.cpus <= built.cpus_max
        yield Difference(f"cpus {old.cpus} → {new.cpus}", How.LIVE if live else How.RESTART)


def _memory(old: GuestSpec, new: GuestSpec, built: Built) -> Iterator[Difference]:
    """What a guest was started with stays its own: only what was added can be taken away again."""
    if old.memory_bytes != new.memory_bytes:
        in_range = built.memory_bytes <= new.memory_bytes <= built.memory_max_bytes
        live = in_range and (new.memory_bytes - built.memory_bytes) % MEMORY_BLOCK_BYTES == 0
        what = f"memory {_mib(old.memory_bytes)} → {_mib(new.memory_bytes)}"
        yield Difference(what, How.LIVE if live else How.RESTART)


def _nics(old: GuestSpec, new: GuestSpec) -> Iterator[Difference]:
    was, will = _by_interface(old), _by_interface(new)
    for name in sorted(was.keys() | will.keys()):
        if name not in was:
            yield Difference(f"{name} is new{_by_itself(new)}", How.LIVE)
        elif name not in will:
            yield Difference(f"{name} goes", How.LIVE)
        elif was[name] != will[name]:
            yield Difference(f"{name} {_nic_words(was[name], will[name])}{_by_itself(new)}", How.LIVE)


def _by_itself(spec: GuestSpec) -> str:
    """What is said of a NIC whose guest vnet's agent is not in."""
    return "" if spec.is_micro else ", which its guest has to configure itself"


def _nic_words(old: GuestNic, new: GuestNic) -> str:
    if old.mac != new.mac:
        return f"is another with MAC {format_mac(new.mac)}"
    if old.addresses != new.addresses:
        return f"{', '.join(map(str, old.addresses))} → {', '.join(map(str, new.addresses))}"
    if old.mtu != new.mtu:
        return f"MTU {old.mtu} → {new.mtu}"
    return "is configured otherwise: gateways, names or DHCP"


def _disks(old: GuestSpec, new: GuestSpec) -> Iterator[Difference]:
    was, will = _by_file(old), _by_file(new)
    for file in sorted(was.keys() | will.keys()):
        if file not in was:
            yield Difference(f"disk {will[file].name} is new", How.LIVE)
        elif file not in will:
            yield Difference(f"disk {was[file].name} goes, and is kept", How.LIVE)
        elif was[file].location != will[file].location:
            before, after = was[file], will[file]
            yield Difference(f"disk {after.name}: {before.location} → {after.location}", How.RESTART)
        elif was[file].size_bytes != will[file].size_bytes and will[file].size_bytes:
            before, after = was[file], will[file]
            what = f"disk {after.name} {_mib(before.size_bytes)} → {_mib(after.size_bytes)}"
            # QEMU takes no room from the host's file system in advance while a guest runs.
            yield Difference(what, How.RESTART if after.is_full else How.LIVE)
        elif was[file] != will[file]:
            yield Difference(f"disk {will[file].name} is declared otherwise, and stays as it is", How.LIVE)


def _slots(old: GuestSpec, new: GuestSpec, built: Built) -> Iterator[Difference]:
    devices = len(new.nics) + len(new.disks)
    if devices > max(built.device_slots, len(old.nics) + len(old.disks)):
        yield Difference(f"{devices} NICs and disks need more slots than there are", How.RESTART)


def _others(old: GuestSpec, new: GuestSpec) -> Iterator[Difference]:
    """Fields that this module knows nothing of."""
    names = ("fabric", "image", "cpus", "memory_bytes", "nics", "disks", "boot")
    known = {name: getattr(new, name) for name in names}
    if replace(old, **known) != new:
        yield Difference("it is made otherwise", How.RECREATE)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes >> 20}M"


# -- steps --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AddCpus:
    """Have so many CPUs, as far as they are not there, and the guest use them."""

    cpus: int


@dataclass(frozen=True, slots=True)
class SetMemory:
    """Have so much memory, with what the guest was started with."""

    memory_bytes: int


@dataclass(frozen=True, slots=True)
class AttachNic:
    """Plug a NIC in, whose port is in the switch."""

    nic: GuestNic


@dataclass(frozen=True, slots=True)
class DetachNic:
    """Take a NIC out, whose port goes afterwards."""

    nic: GuestNic


@dataclass(frozen=True, slots=True)
class AttachDisk:
    """Plug a disk in, which is made if it is not there."""

    disk: Disk


@dataclass(frozen=True, slots=True)
class DetachDisk:
    """Take a disk out; it is kept."""

    disk: Disk


@dataclass(frozen=True, slots=True)
class ResizeDisk:
    """Make a disk as large as it is declared; smaller is refused."""

    disk: Disk


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell the guest what it has now, and what it has no more."""

    old: GuestSpec
    new: GuestSpec


@dataclass(frozen=True, slots=True)
class Has:
    """What a machine has: NICs as (interface, MAC), disks by the names of their files."""

    cpus: int
    nics: tuple[tuple[str, int], ...]
    disks: tuple[str, ...]


Step = AddCpus | SetMemory | AttachNic | DetachNic | AttachDisk | DetachDisk | ResizeDisk | Tell


def steps(old: GuestSpec, new: GuestSpec) -> tuple[Step, ...]:
    """The steps from the one to the other, all of whose differences can be made live."""
    return steps_from(old, new, told=old)


def steps_from(now: GuestSpec, goal: GuestSpec, *, told: GuestSpec) -> tuple[Step, ...]:
    """The steps to `goal` from `now`, where others ended: the guest may have been told by half that it is
    `told`, and not know of its CPUs yet."""
    grow = [SetMemory(goal.memory_bytes)] if goal.memory_bytes > now.memory_bytes else []
    devices = tuple(_device_steps(now, goal))
    tell = [Tell(told, replace(goal, cpus=told.cpus))] if _is_told(told, goal) else []
    shrink = [SetMemory(goal.memory_bytes)] if goal.memory_bytes < now.memory_bytes else []
    cpus = [AddCpus(goal.cpus)] if goal.cpus > told.cpus else []
    return (*grow, *devices, *tell, *shrink, *cpus)


def standing(old: GuestSpec, new: GuestSpec, has: Has, memory_bytes: int) -> GuestSpec:
    """Where a change from `old` to `new` ended, by what the machine has and the memory that was noted.

    Raises HostError when it has what neither of them has.
    """
    nics = {(nic.interface, nic.mac): nic for nic in (*new.nics, *old.nics)}
    disks = {disk.file: disk for disk in (*new.disks, *old.disks)}
    unknown = [str(each) for each in (*set(has.nics) - nics.keys(), *set(has.disks) - disks.keys())]
    if unknown:
        raise HostError(f"it has what nobody has given it: {', '.join(unknown)}")
    return replace(
        new,
        cpus=has.cpus,
        memory_bytes=memory_bytes,
        nics=tuple(nics[each] for each in has.nics),
        disks=tuple(disks[each] for each in has.disks),
    )


def done(step: Step, spec: GuestSpec) -> GuestSpec:
    """What a step makes of a guest."""
    match step:
        case AddCpus(cpus):
            return replace(spec, cpus=cpus)
        case SetMemory(memory_bytes):
            return replace(spec, memory_bytes=memory_bytes)
        case AttachNic(nic):
            return replace(spec, nics=(*spec.nics, nic))
        case DetachNic(nic):
            return replace(spec, nics=tuple(each for each in spec.nics if each.interface != nic.interface))
        case AttachDisk(disk):
            return replace(spec, disks=(*spec.disks, disk))
        case DetachDisk(disk):
            return replace(spec, disks=tuple(each for each in spec.disks if each.file != disk.file))
        case ResizeDisk(disk):
            return replace(spec, disks=tuple(disk if each.file == disk.file else each for each in spec.disks))
        case Tell(_, new):
            return replace(spec, nics=new.nics)


def _device_steps(old: GuestSpec, new: GuestSpec) -> Iterator[Step]:
    was, will = _by_interface(old), _by_interface(new)
    gone, come = _replaced(was, will)
    yield from (DetachNic(was[name]) for name in gone)
    yield from (AttachNic(will[name]) for name in come)
    had, has = _by_file(old), _by_file(new)
    yield from (DetachDisk(had[file]) for file in sorted(had.keys() - has.keys()))
    yield from (AttachDisk(has[file]) for file in sorted(has.keys() - had.keys()))
    for file in sorted(had.keys() & has.keys()):
        if had[file] != has[file]:
            yield ResizeDisk(has[file])


def _replaced(was: Mapping[str, GuestNic], will: Mapping[str, GuestNic]) -> tuple[list[str], list[str]]:
    """The interfaces whose NIC goes, and those whose NIC comes; one with another MAC is another."""
    same = {name for name in was.keys() & will.keys() if was[name].mac == will[name].mac}
    return sorted(was.keys() - same), sorted(will.keys() - same)


def _is_told(old: GuestSpec, new: GuestSpec) -> bool:
    """Whether the guest has anything to do about it: a larger disk it sees by itself, and memory too.

    One without vnet's agent sees its devices come and go, and makes of that what it is made for.
    """
    if not new.is_micro:
        return False
    return set(old.nics) != set(new.nics) or _by_file(old).keys() != _by_file(new).keys()


def _by_interface(spec: GuestSpec) -> dict[str, GuestNic]:
    return {nic.interface: nic for nic in spec.nics}


def _by_file(spec: GuestSpec) -> dict[str, Disk]:
    return {disk.file: disk for disk in spec.disks}
