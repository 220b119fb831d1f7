"""vCPUs that a VM has and does not use: the most that it used at once, as long as it was looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil

from vnet.fabric.numbers import FabricNumbers, Numbers, VmNumbers
from vnet.fabric.rates import Rates, VmRate
from vnet.fabric.sizing import Advice

PATIENCE_S = 3600.0
"""Who was looked at for less may have its work before it."""
ROOM = 0.25
"""Of a processor: what QEMU takes for itself, and what ten seconds on average do not show."""


@dataclass(frozen=True, slots=True)
class Peak:
    """The most processors that a VM used at once since `began_s`, of a clock that nobody can set."""

    began_s: float
    most_cpus: float = 0.0
    uptime_s: float = 0.0


Peaks = Mapping[tuple[str, str], Peak]
"""By fabric and VM."""


def follow(now: Numbers, recent: Rates, peaks: Peaks) -> Peaks:
    """The peaks with what was used recently. A VM that was started anew, or is gone, begins anew."""
    return {
        (fabric.name, vm.name): _higher(
            peaks.get((fabric.name, vm.name)), vm, recent.vms.get((fabric.name, vm.name)), now.clock_s
        )
        for fabric in now.fabrics
        for vm in fabric.vms
        if vm.runs
    }


def _higher(peak: Peak | None, vm: VmNumbers, rate: VmRate | None, clock_s: float) -> Peak:
    used = rate.cpu if rate else 0.0
    if peak is None or vm.uptime_s < peak.uptime_s:
        return Peak(clock_s, 0.0, vm.uptime_s)
    return replace(peak, most_cpus=max(peak.most_cpus, used), uptime_s=vm.uptime_s)


def told(now: Numbers, peaks: Peaks) -> Numbers:
    """The numbers with the peaks of their VMs."""
    return replace(now, fabrics=tuple(_with_peaks(fabric, peaks, now.clock_s) for fabric in now.fabrics))


def _with_peaks(fabric: FabricNumbers, peaks: Peaks, clock_s: float) -> FabricNumbers:
    vms = tuple(_with_peak(vm, peaks.get((fabric.name, vm.name)), clock_s) for vm in fabric.vms)
    return replace(fabric, vms=vms)


def _with_peak(vm: VmNumbers, peak: Peak | None, clock_s: float) -> VmNumbers:
    if peak is None:
        return vm
    return replace(vm, peak_cpus=peak.most_cpus, watched_s=clock_s - peak.began_s)


def advice(fabric: FabricNumbers) -> Iterator[Advice]:
    """VMs that would do with fewer vCPUs."""
    for vm in fabric.vms:
        enough = max(1, ceil(vm.peak_cpus + ROOM))
        if vm.watched_s >= PATIENCE_S and enough < vm.cpus:
            text = (
                f"of its {vm.cpus} vCPUs it used {vm.peak_cpus:.1f} at most in {vm.watched_s / 3600:.0f} h:"
                f" {enough} would do, and others would wait less; lower `cpus`"
            )
            yield Advice(vm.name, text)
