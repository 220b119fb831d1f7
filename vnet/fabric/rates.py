"""What happened between two snapshots, a second: pure arithmetic on `vnet.fabric.numbers`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

from vnet.fabric.disk_rates import DiskRate, disk_rates
from vnet.fabric.numbers import FabricNumbers, NicNumbers, Numbers, Pressure, Traffic, VmNumbers, grown


@dataclass(frozen=True, slots=True)
class TrafficRate:
    """Packets and bytes a second. Directions are the VM's; `drops` are both directions' together."""

    sent_pps: float = 0.0
    sent_bytes_ps: float = 0.0
    received_pps: float = 0.0
    received_bytes_ps: float = 0.0
    drops_pps: float = 0.0

    def __add__(self, other: TrafficRate) -> TrafficRate:
        return TrafficRate(
            *(getattr(self, each.name) + getattr(other, each.name) for each in fields(TrafficRate))
        )


@dataclass(frozen=True, slots=True)
class Waits:
    """Which part of the time something waited for CPU, memory, disks; 1 is all of it."""

    cpu: float = 0.0
    memory: float = 0.0
    io: float = 0.0


@dataclass(frozen=True, slots=True)
class VmRate:
    """One VM. `cpu`: how many processors it used; `reason`: of most packets that it lost, "" if unknown.

    `ready` is the part of the time that a vCPU of it, on average, could have run and had no CPU of the host;
    `waits` are those of its control group. `swapping_bytes_ps` is what the guest itself moves to its swap and
    back.
    """

    fabric: str
    name: str
    traffic: TrafficRate
    cpu: float = 0.0
    reason: str = ""
    ready: float = 0.0
    waits: Waits = Waits()
    disks: tuple[DiskRate, ...] = ()
    swapping_bytes_ps: float = 0.0


@dataclass(frozen=True, slots=True)
class Rates:
    """Of all VMs by fabric and name, of all lost packets by reason, and of everything together.

    `span_s` is 0 when there is nothing to compare with: then all rates are 0.
    """

    span_s: float = 0.0
    vms: Mapping[tuple[str, str], VmRate] = field(default_factory=dict)
    drops_pps: Mapping[str, float] = field(default_factory=dict)
    lost_events_ps: float = 0.0
    total: TrafficRate = TrafficRate()
    host: Waits = Waits()


def rates(before: Numbers | None, now: Numbers) -> Rates:
    """What happened in between. What was not there before has no rate yet: its counters may be old."""
    span_s = now.clock_s - before.clock_s if before else 0.0
    if before is None or span_s <= 0:
        return Rates()
    old = {fabric.name: fabric for fabric in before.fabrics}
    pairs = [(old[fabric.name], fabric) for fabric in now.fabrics if fabric.name in old]
    pairs = [(was, fabric) for was, fabric in pairs if not was.unanswered and not fabric.unanswered]
    vms = {(rate.fabric, rate.name): rate for was, fabric in pairs for rate in _vms(was, fabric, span_s)}
    drops: dict[str, float] = {}
    for was, fabric in pairs:
        for reason, count in fabric.drops.items():
            drops[reason] = drops.get(reason, 0.0) + grown(was.drops.get(reason, 0), count) / span_s
    lost = sum(grown(sum(was.lost_events.values()), sum(is_.lost_events.values())) for was, is_ in pairs)
    total = _sum(rate.traffic for rate in vms.values())
    host = _waits(before.host.pressure, now.host.pressure, span_s)
    return Rates(span_s, vms, drops, lost / span_s, total, host)


def _vms(before: FabricNumbers, now: FabricNumbers, span_s: float) -> Iterable[VmRate]:
    old = {vm.name: vm for vm in before.vms}
    return [_vm(now.name, old[vm.name], vm, span_s) for vm in now.vms if vm.name in old]


def _vm(fabric: str, before: VmNumbers, now: VmNumbers, span_s: float) -> VmRate:
    old = {nic.name: nic for nic in before.nics}
    pairs = [(old[nic.name], nic) for nic in now.nics if nic.name in old]
    traffic = _sum(_traffic(was.traffic, nic.traffic, span_s) for was, nic in pairs)
    return VmRate(
        fabric,
        now.name,
        traffic,
        grown(before.cpu_s, now.cpu_s) / span_s,
        _main_reason(pairs),
        grown(before.ready_s, now.ready_s) / span_s / max(1, now.cpus),
        _waits(before.pressure, now.pressure, span_s),
        disk_rates(before.vitals, now.vitals),
        _swapping_bytes_ps(before, now, span_s),
    )


def _swapping_bytes_ps(before: VmNumbers, now: VmNumbers, span_s: float) -> float:
    was, is_ = before.vitals.memory, now.vitals.memory
    if was is None or is_ is None:
        return 0.0
    moved_in = grown(was.swapped_in_bytes, is_.swapped_in_bytes)
    return (moved_in + grown(was.swapped_out_bytes, is_.swapped_out_bytes)) / span_s


def _waits(before: Pressure, now: Pressure, span_s: float) -> Waits:
    return Waits(
        grown(before.cpu_s, now.cpu_s) / span_s,
        grown(before.memory_s, now.memory_s) / span_s,
        grown(before.io_s, now.io_s) / span_s,
    )


def _traffic(before: Traffic, now: Traffic, span_s: float) -> TrafficRate:
    def rate(name: str) -> float:
        return grown(getattr(before, name), getattr(now, name)) / span_s

    return TrafficRate(
        rate("sent_packets"),
        rate("sent_bytes"),
        rate("received_packets"),
        rate("received_bytes"),
        rate("sent_dropped") + rate("received_dropped"),
    )


def _main_reason(pairs: Iterable[tuple[NicNumbers, NicNumbers]]) -> str:
    counts: dict[str, float] = {}
    for was, nic in pairs:
        for reason, count in nic.reasons.items():
            counts[reason] = counts.get(reason, 0.0) + grown(was.reasons.get(reason, 0), count)
    most = max(counts, key=lambda reason: counts[reason], default="")
    return most if most and counts[most] else ""


def _sum(parts: Iterable[TrafficRate]) -> TrafficRate:
    return sum(parts, start=TrafficRate())
