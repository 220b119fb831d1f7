"""Who waits too long, or lacks what it needs, in words: for `vnet top` and `vnet doctor`, and as events, once
each spell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from vnet.fabric.disk_rates import slowest
from vnet.fabric.events import CALM_S, Event, Kind
from vnet.fabric.numbers import Numbers, VmNumbers
from vnet.fabric.rates import Rates, VmRate

WAITS, CALM = 0.1, 0.05
"""The part of the time: from here on it is told, and below this it is over, if it stays so."""
SETTLED_S = 8.0
"""What is seen for less says little, and who has just been started waits with all that are being started."""
HOST = "host"


class Lack(StrEnum):
    """What there is too little of."""

    CPU = "cpu"
    MEMORY = "memory"
    GUEST_MEMORY = "guest-memory"
    """What the VM has of its own."""
    DISK = "disk"
    """What a disk should have been: fast."""
    ANSWER = "answer"
    """QEMU's."""


@dataclass(frozen=True, slots=True)
class Degree:
    """From which share on a lack is told, below which it is over, and how its end is told."""

    begins: float
    over: float
    begin: Kind
    end: Kind
    had: str
    most: str


SLOW_S = 0.1
"""From here on a disk's answer is slow."""
SILENT_S = 5.0
"""A QEMU that owes an answer for so long hangs."""
STALE_S = 30.0
"""What a guest has told longer ago says nothing of now."""
DEGREES = {
    Lack.CPU: Degree(
        WAITS,
        CALM,
        begin=Kind.CPU_SHORT,
        end=Kind.CPU_SHORT_OVER,
        had="waited for a CPU",
        most="{} of the time",
    ),
    Lack.MEMORY: Degree(
        WAITS,
        CALM,
        begin=Kind.MEMORY_SHORT,
        end=Kind.MEMORY_SHORT_OVER,
        had="waited for memory",
        most="{} of the time",
    ),
    Lack.GUEST_MEMORY: Degree(
        0.95,
        0.9,
        begin=Kind.GUEST_MEMORY_SHORT,
        end=Kind.GUEST_MEMORY_SHORT_OVER,
        had="had hardly any memory left",
        most="{} in use",
    ),
    Lack.DISK: Degree(
        0.05,
        0.01,
        begin=Kind.DISK_SLOW,
        end=Kind.DISK_SLOW_OVER,
        had="had a slow disk",
        most="{} of its answers",
    ),
    Lack.ANSWER: Degree(
        1.0,
        1.0,
        begin=Kind.QEMU_SILENT,
        end=Kind.QEMU_SILENT_OVER,
        had="had a QEMU that hung",
        most="{} of the time",
    ),
}


@dataclass(frozen=True, slots=True)
class Strain:
    """Somebody waits for the `share` of the time. Of the host `fabric` is empty, and `subject` is HOST."""

    fabric: str
    subject: str
    lack: Lack
    share: float
    text: str

    @property
    def key(self) -> tuple[str, str, Lack]:
        """What tells it from others that go on."""
        return self.fabric, self.subject, self.lack


def strain_of(answer: Mapping[str, Any]) -> Strain:
    """What `asdict` has made of one."""
    return Strain(**{**answer, "lack": Lack(answer["lack"])})


def strains(now: Numbers, recent: Rates, *, until_over: bool = False) -> tuple[Strain, ...]:
    """All who lacked something lately; `until_over`: also those who still would if they already did."""
    if recent.span_s < SETTLED_S:
        return ()
    found = (*_of_host(now, recent), *_of_vms(now, recent))
    return tuple(each for each in found if each.share >= _least(each.lack, until_over))


def _least(lack: Lack, until_over: bool) -> float:
    return DEGREES[lack].over if until_over else DEGREES[lack].begins


def _of_host(now: Numbers, recent: Rates) -> Iterator[Strain]:
    share, host = recent.host.memory, now.host
    text = (
        f"something waits {percent(share)} of the time for memory of the host: "
        f"{host.available_bytes >> 20:,} of {host.memory_bytes >> 20:,} MiB can be had"
    )
    yield Strain("", HOST, Lack.MEMORY, share, text)


def _of_vms(now: Numbers, recent: Rates) -> Iterator[Strain]:
    shared = f"{now.running_vcpus} vCPUs on {_counted(now.host.cpus, 'core')}"
    for fabric in now.fabrics:
        for vm in fabric.vms:
            rate = recent.vms.get((fabric.name, vm.name))
            if rate is not None and vm.uptime_s >= SETTLED_S:
                yield from _of_vm(vm, rate, shared)
                yield from _of_guest(vm, rate, now.time_ns / 1e9)


def _of_vm(vm: VmNumbers, rate: VmRate, shared: str) -> Iterator[Strain]:
    text = f"{vm.name} waits {percent(rate.ready)} of the time for a CPU: {shared}"
    yield Strain(rate.fabric, vm.name, Lack.CPU, rate.ready, text)
    text = f"{vm.name} waits {percent(rate.waits.memory)} of the time for memory of the host"
    swapped = f": {vm.swapped_bytes >> 20:,} MiB of it are in swap" if vm.swapped_bytes else ""
    yield Strain(rate.fabric, vm.name, Lack.MEMORY, rate.waits.memory, text + swapped)


def _of_guest(vm: VmNumbers, rate: VmRate, now_s: float) -> Iterator[Strain]:
    """What it lacks itself, whatever the host has."""
    memory, disks, name = vm.vitals.memory, rate.disks, vm.name
    if memory and now_s - memory.told_s < STALE_S:
        text = f"{name} has {memory.available_bytes >> 20:,} of its {memory.total_bytes >> 20:,} MiB left"
        swaps = f", and swaps {rate.swapping_bytes_ps / (1 << 20):.1f} MiB a second"
        text += swaps if rate.swapping_bytes_ps else ""
        yield Strain(rate.fabric, name, Lack.GUEST_MEMORY, memory.used, text)
    degree = DEGREES[Lack.DISK]
    slow = slowest(disks, degree.begins, SLOW_S) or slowest(disks, degree.over, SLOW_S)
    if slow:
        after = f"{slow.least_s * 1000:.0f} ms" if slow.least_s < 1 else f"{slow.least_s:g} s"
        late = f"{percent(slow.share)} of its {slow.kind} only after {after}"
        text = f"{name}'s disk {slow.disk} answers {late}"
        yield Strain(rate.fabric, name, Lack.DISK, slow.share, text)
    if vm.vitals.silent_s >= SILENT_S:
        text = f"{name}'s QEMU has not answered for {vm.vitals.silent_s:.0f} s"
        yield Strain(rate.fabric, name, Lack.ANSWER, 1.0, text)


def percent(share: float) -> str:
    """A part of 1 for people."""
    return f"{100 * share:.0f} %"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


# -- spells: what goes on -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spell:
    """A strain that goes on: since when, when it was last so, and the most of it."""

    began_s: float
    last_s: float
    most: float


Spells = Mapping[tuple[str, str, Lack], Spell]


@dataclass(frozen=True, slots=True)
class Strained:
    """Events, and what goes on after them."""

    events: tuple[Event, ...] = ()
    spells: Spells = field(default_factory=dict)


def follow(now: Numbers, recent: Rates, spells: Spells) -> Strained:
    """What begins and what ends; what is gone with its fabric ends without a word."""
    found = {each.key: each for each in strains(now, recent, until_over=True)}
    begun = {key: each for key, each in found.items() if _has_begun(each) and key not in spells}
    there = {"", *(fabric.name for fabric in now.fabrics)}
    going = {key: _longer(spell, found.get(key), now.clock_s) for key, spell in spells.items()}
    going = {key: spell for key, spell in going.items() if key[0] in there}
    over = {key: spell for key, spell in going.items() if now.clock_s - spell.last_s >= CALM_S}
    left = {key: spell for key, spell in going.items() if key not in over}
    new = {key: Spell(now.clock_s, now.clock_s, each.share) for key, each in begun.items()}
    events = (
        *(_began(each, now.time_ns) for each in begun.values()),
        *(_ended(key, spell, now.time_ns) for key, spell in over.items()),
    )
    return Strained(events, {**left, **new})


def _has_begun(strain: Strain) -> bool:
    return strain.share >= DEGREES[strain.lack].begins


def _longer(spell: Spell, found: Strain | None, now_s: float) -> Spell:
    return Spell(spell.began_s, now_s, max(spell.most, found.share)) if found else spell


def _began(strain: Strain, time_ns: int) -> Event:
    fields = {"percent": round(100 * strain.share)}
    return Event(time_ns, DEGREES[strain.lack].begin, strain.text, strain.fabric, strain.subject, fields)


def _ended(key: tuple[str, str, Lack], spell: Spell, time_ns: int) -> Event:
    fabric, subject, lack = key
    lasted_s, degree = spell.last_s - spell.began_s, DEGREES[lack]
    who = "something" if subject == HOST and not fabric else subject
    text = f"{who} {degree.had} for {lasted_s:.0f} s, at most {degree.most.format(percent(spell.most))}"
    fields = {"most_percent": round(100 * spell.most), "lasted_s": round(lasted_s, 1)}
    return Event(time_ns, degree.end, text, fabric, subject, fields)
