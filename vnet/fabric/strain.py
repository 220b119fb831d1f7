"""Who waits too long for what the host lacks, in words: for `vnet doctor`, and as events, once each spell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

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


def strains(now: Numbers, recent: Rates, least: float = WAITS) -> tuple[Strain, ...]:
    """All who waited for at least that part of the recent time."""
    if recent.span_s < SETTLED_S:
        return ()
    found = (*_of_host(now, recent), *_of_vms(now, recent))
    return tuple(each for each in found if each.share >= least)


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


def _of_vm(vm: VmNumbers, rate: VmRate, shared: str) -> Iterator[Strain]:
    text = f"{vm.name} waits {percent(rate.ready)} of the time for a CPU: {shared}"
    yield Strain(rate.fabric, vm.name, Lack.CPU, rate.ready, text)
    text = f"{vm.name} waits {percent(rate.waits.memory)} of the time for memory of the host"
    swapped = f": {vm.swapped_bytes >> 20:,} MiB of it are in swap" if vm.swapped_bytes else ""
    yield Strain(rate.fabric, vm.name, Lack.MEMORY, rate.waits.memory, text + swapped)


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


BEGINS = {Lack.CPU: Kind.CPU_SHORT, Lack.MEMORY: Kind.MEMORY_SHORT}
ENDS = {Lack.CPU: Kind.CPU_SHORT_OVER, Lack.MEMORY: Kind.MEMORY_SHORT_OVER}


def follow(now: Numbers, recent: Rates, spells: Spells) -> Strained:
    """What begins and what ends; what is gone with its fabric ends without a word."""
    found = {each.key: each for each in strains(now, recent, CALM)}
    begun = {key: each for key, each in found.items() if each.share >= WAITS and key not in spells}
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


def _longer(spell: Spell, found: Strain | None, now_s: float) -> Spell:
    return Spell(spell.began_s, now_s, max(spell.most, found.share)) if found else spell


def _began(strain: Strain, time_ns: int) -> Event:
    fields = {"percent": round(100 * strain.share)}
    return Event(time_ns, BEGINS[strain.lack], strain.text, strain.fabric, strain.subject, fields)


def _ended(key: tuple[str, str, Lack], spell: Spell, time_ns: int) -> Event:
    fabric, subject, lack = key
    lasted_s = spell.last_s - spell.began_s
    what = {Lack.CPU: "a CPU", Lack.MEMORY: "memory"}[lack]
    who = "something" if subject == HOST and not fabric else subject
    text = f"{who} waited for {what} for {lasted_s:.0f} s, at most {percent(spell.most)} of the time"
    fields = {"most_percent": round(100 * spell.most), "lasted_s": round(lasted_s, 1)}
    return Event(time_ns, ENDS[lack], text, fabric, subject, fields)
