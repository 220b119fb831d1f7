"""What guests tell of their memory and QEMU of their disks, as metrics.

A guest that tells nothing has no series, rather than one of 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from vnet.api.metric import (
    COUNTER,
    DISK,
    GAUGE,
    HISTOGRAM,
    VM,
    Labels,
    Metric,
    Sample,
    of_vms,
    vm_labels,
)
from vnet.fabric.numbers import Numbers
from vnet.hv.latency import Latencies
from vnet.hv.vitals import DiskNumbers, GuestMemory


def _of_memory(value: Callable[[GuestMemory], float]) -> Callable[[Numbers], Iterable[Sample]]:
    return lambda numbers: [
        (vm_labels(fabric, vm), value(vm.vitals.memory))
        for fabric in numbers.fabrics
        for vm in fabric.vms
        if vm.vitals.memory is not None
    ]


def _disks(numbers: Numbers) -> Iterator[tuple[Labels, DiskNumbers]]:
    for fabric in numbers.fabrics:
        for vm in fabric.vms:
            for disk in vm.vitals.disks:
                yield (*vm_labels(fabric, vm), ("disk", disk.name)), disk


def _of_disks(value: Callable[[DiskNumbers], float]) -> Callable[[Numbers], Iterable[Sample]]:
    return lambda numbers: [(labels, value(disk)) for labels, disk in _disks(numbers)]


def _answers(
    value: Callable[[DiskNumbers], Latencies],
) -> Callable[[Numbers], Iterable[tuple[Labels, Latencies]]]:
    return lambda numbers: [(labels, value(disk)) for labels, disk in _disks(numbers)]


_MEMORY_METRICS = (
    Metric(
        "vnet_vm_guest_memory_bytes",
        GAUGE,
        "Memory that the guest's kernel has for itself and programs, as it tells.",
        VM,
        _of_memory(lambda memory: memory.total_bytes),
    ),
    Metric(
        "vnet_vm_guest_memory_available_bytes",
        GAUGE,
        "Memory that programs in the guest can still be given without swapping.",
        VM,
        _of_memory(lambda memory: memory.available_bytes),
    ),
    Metric(
        "vnet_vm_guest_memory_cache_bytes",
        GAUGE,
        "Memory that the guest uses for what is on its disks.",
        VM,
        _of_memory(lambda memory: memory.cache_bytes),
    ),
    Metric(
        "vnet_vm_guest_swapped_in_bytes_total",
        COUNTER,
        "What the guest has read back from its own swap.",
        VM,
        _of_memory(lambda memory: memory.swapped_in_bytes),
    ),
    Metric(
        "vnet_vm_guest_swapped_out_bytes_total",
        COUNTER,
        "What the guest has moved to its own swap.",
        VM,
        _of_memory(lambda memory: memory.swapped_out_bytes),
    ),
    Metric(
        "vnet_vm_guest_major_faults_total",
        COUNTER,
        "Pages that programs in the guest had to wait for.",
        VM,
        _of_memory(lambda memory: memory.major_faults),
    ),
    Metric(
        "vnet_vm_ballooned_memory_bytes",
        GAUGE,
        "Memory that the VM's balloon has taken from it.",
        VM,
        of_vms(lambda vm: vm.ballooned_bytes),
    ),
    Metric(
        "vnet_vm_qemu_silent_seconds",
        GAUGE,
        "How long the VM's QEMU has owed an answer; less than a second when all is well.",
        VM,
        of_vms(lambda vm: vm.vitals.silent_s),
    ),
)
_DISK_METRICS = (
    Metric(
        "vnet_disk_read_operations_total",
        COUNTER,
        "Reads that the VM asked its disk for.",
        DISK,
        _of_disks(lambda disk: disk.read_operations),
    ),
    Metric(
        "vnet_disk_read_bytes_total",
        COUNTER,
        "Bytes that the VM read from its disk.",
        DISK,
        _of_disks(lambda disk: disk.read_bytes),
    ),
    Metric(
        "vnet_disk_write_operations_total",
        COUNTER,
        "Writes that the VM asked its disk for.",
        DISK,
        _of_disks(lambda disk: disk.write_operations),
    ),
    Metric(
        "vnet_disk_write_bytes_total",
        COUNTER,
        "Bytes that the VM wrote to its disk.",
        DISK,
        _of_disks(lambda disk: disk.write_bytes),
    ),
    Metric(
        "vnet_disk_failed_operations_total",
        COUNTER,
        "Operations of the VM's disk that ended with an error.",
        DISK,
        _of_disks(lambda disk: disk.failed),
    ),
    Metric(
        "vnet_disk_read_latency_seconds",
        HISTOGRAM,
        "How long the VM's disk took to answer reads.",
        DISK,
        latencies=_answers(lambda disk: disk.reads),
    ),
    Metric(
        "vnet_disk_write_latency_seconds",
        HISTOGRAM,
        "How long the VM's disk took to answer writes.",
        DISK,
        latencies=_answers(lambda disk: disk.writes),
    ),
    Metric(
        "vnet_disk_flush_latency_seconds",
        HISTOGRAM,
        "How long the VM's disk took to answer flushes: to have on the host's disk what was written.",
        DISK,
        latencies=_answers(lambda disk: disk.flushes),
    ),
)
GUEST_METRICS = (*_MEMORY_METRICS, *_DISK_METRICS)
