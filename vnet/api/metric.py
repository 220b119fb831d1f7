"""What a metric is, in Prometheus' text format, and how those are told that many VMs, ports or disks have.

Directions are the port's, as everywhere in Prometheus: it receives what its VM sends. A fabric whose switch
does not answer has no series of it, rather than counters that seem to begin anew.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/ (version 0.0.4)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

from vnet.fabric.numbers import (
    DaemonNumbers,
    FabricNumbers,
    HostNumbers,
    NicNumbers,
    Numbers,
    Pressure,
    UplinkNumbers,
    VmNumbers,
)
from vnet.hv.latency import BOUNDS_S, Latencies

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
Labels = tuple[tuple[str, str], ...]
Sample = tuple[Labels, float]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: what it is called and means, the labels it has, and its samples in a snapshot."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]
    samples: Callable[[Numbers], Iterable[Sample]] = lambda numbers: ()
    latencies: Callable[[Numbers], Iterable[tuple[Labels, Latencies]]] = lambda numbers: ()
    """Those of a histogram, instead."""


def lines(metric: Metric, numbers: Numbers) -> Iterator[str]:
    """All of one, as it is scraped."""
    yield f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n"
    for labels, value in metric.samples(numbers):
        yield _line(metric.name, labels, value)
    for labels, found in metric.latencies(numbers):
        yield from _histogram(metric.name, labels, found)


def _histogram(name: str, labels: Labels, found: Latencies) -> Iterator[str]:
    """Buckets add up: each has those of all before it."""
    bounds = (*(f"{bound:g}" for bound in BOUNDS_S), "+Inf")
    for bound, so_far in zip(bounds, accumulate(found.bins), strict=True):
        yield _line(f"{name}_bucket", (*labels, ("le", bound)), so_far)
    yield _line(f"{name}_sum", labels, found.total_s)
    yield _line(f"{name}_count", labels, found.count)


def _line(name: str, labels: Labels, value: float) -> str:
    inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
    return f"{name}{f'{{{inside}}}' if inside else ''} {_number(value)}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


# -- what has which labels ------------------------------------------------------------------------


def of_daemon(value: Callable[[DaemonNumbers], float]) -> Callable[[Numbers], Iterable[Sample]]:
    """A number of the daemon."""
    return lambda numbers: [((), value(numbers.daemon))]


def of_fabrics(value: Callable[[FabricNumbers], float]) -> Callable[[Numbers], Iterable[Sample]]:
    """A number of each fabric."""
    return lambda numbers: [((("fabric", each.name),), value(each)) for each in numbers.fabrics]


def of_switches(
    label: str, values: Callable[[FabricNumbers], Mapping[str, int]]
) -> Callable[[Numbers], Iterable[Sample]]:
    """Numbers of each switch that answers, by a label."""
    return lambda numbers: [
        ((("fabric", fabric.name), (label, key)), value)
        for fabric in numbers.fabrics
        if not fabric.unanswered
        for key, value in values(fabric).items()
    ]


def of_vms(value: Callable[[VmNumbers], float]) -> Callable[[Numbers], Iterable[Sample]]:
    """A number of each VM."""
    return lambda numbers: [
        (vm_labels(fabric, vm), value(vm)) for fabric in numbers.fabrics for vm in fabric.vms
    ]


def vm_labels(fabric: FabricNumbers, vm: VmNumbers) -> Labels:
    """What a VM is known by."""
    return (("fabric", fabric.name), ("vm", vm.name))


def pressures(numbers: Numbers) -> Iterable[Sample]:
    """What waits in each VM's control group."""
    for fabric in numbers.fabrics:
        for vm in fabric.vms:
            for resource, waited_s in by_resource(vm.pressure):
                yield (*vm_labels(fabric, vm), ("resource", resource)), waited_s


def by_resource(pressure: Pressure) -> Iterable[tuple[str, float]]:
    """Pressure by what is waited for."""
    return (("cpu", pressure.cpu_s), ("memory", pressure.memory_s), ("io", pressure.io_s))


def of_host(value: Callable[[HostNumbers], float]) -> Callable[[Numbers], Iterable[Sample]]:
    """A number of the host."""
    return lambda numbers: [((), value(numbers.host))]


def of_ports(value: Callable[[NicNumbers], float]) -> Callable[[Numbers], Iterable[Sample]]:
    """A number of each port whose switch answers."""
    return lambda numbers: [
        ((*vm_labels(fabric, vm), ("nic", nic.name.rpartition(".")[2])), value(nic))
        for fabric in numbers.fabrics
        if not fabric.unanswered
        for vm in fabric.vms
        for nic in vm.nics
    ]


def of_uplinks(value: Callable[[UplinkNumbers], float]) -> Callable[[Numbers], Iterable[Sample]]:
    """A number of each uplink whose switch answers."""
    return lambda numbers: [
        ((("fabric", fabric.name), ("uplink", uplink.name)), value(uplink))
        for fabric in numbers.fabrics
        if not fabric.unanswered
        for uplink in fabric.uplinks
    ]


FABRIC, VM, PORT = ("fabric",), ("fabric", "vm"), ("fabric", "vm", "nic")
UPLINK, DISK = ("fabric", "uplink"), ("fabric", "vm", "disk")
