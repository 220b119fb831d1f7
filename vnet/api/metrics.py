"""Numbers as metrics in Prometheus' text format.

Directions are the port's, as everywhere in Prometheus: it receives what its VM sends. A fabric whose switch
does not answer has no series of it, rather than counters that seem to begin anew.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/ (version 0.0.4)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from vnet.fabric.cable import LinkState
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
from vnet.fabric.readiness import reasons
from vnet.hv.spec import GuestState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
COUNTER, GAUGE = "counter", "gauge"
STATES = ("ready", *(state.value for state in GuestState))
"""Every state that a VM can be in."""

Labels = tuple[tuple[str, str], ...]
Sample = tuple[Labels, float]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: what it is called and means, the labels it has, and its samples in a snapshot."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]
    samples: Callable[[Numbers], Iterable[Sample]]


def exposition(numbers: Numbers) -> str:
    """All of them, as they are scraped."""
    return "".join(line for metric in METRICS for line in _lines(metric, numbers))


def _lines(metric: Metric, numbers: Numbers) -> Iterator[str]:
    yield f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n"
    for labels, value in metric.samples(numbers):
        inside = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels)
        yield f"{metric.name}{f'{{{inside}}}' if inside else ''} {_number(value)}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


# -- what has which labels ------------------------------------------------------------------------


def _of_daemon(value: Callable[[DaemonNumbers], float]) -> Callable[[Numbers], Iterable[Sample]]:
    return lambda numbers: [((), value(numbers.daemon))]


def _of_fabrics(value: Callable[[FabricNumbers], float]) -> Callable[[Numbers], Iterable[Sample]]:
    return lambda numbers: [((("fabric", each.name),), value(each)) for each in numbers.fabrics]


def _of_switches(
    label: str, values: Callable[[FabricNumbers], Mapping[str, int]]
) -> Callable[[Numbers], Iterable[Sample]]:
    return lambda numbers: [
        ((("fabric", fabric.name), (label, key)), value)
        for fabric in numbers.fabrics
        if not fabric.unanswered
        for key, value in values(fabric).items()
    ]


def _of_vms(value: Callable[[VmNumbers], float]) -> Callable[[Numbers], Iterable[Sample]]:
    return lambda numbers: [(_vm(fabric, vm), value(vm)) for fabric in numbers.fabrics for vm in fabric.vms]


def _vm(fabric: FabricNumbers, vm: VmNumbers) -> Labels:
    return (("fabric", fabric.name), ("vm", vm.name))


def _pressures(numbers: Numbers) -> Iterable[Sample]:
    for fabric in numbers.fabrics:
        for vm in fabric.vms:
            for resource, waited_s in _by_resource(vm.pressure):
                yield (*_vm(fabric, vm), ("resource", resource)), waited_s


def _by_resource(pressure: Pressure) -> Iterable[tuple[str, float]]:
    return (("cpu", pressure.cpu_s), ("memory", pressure.memory_s), ("io", pressure.io_s))


def _of_host(value: Callable[[HostNumbers], float]) -> Callable[[Numbers], Iterable[Sample]]:
    return lambda numbers: [((), value(numbers.host))]


def _of_ports(value: Callable[[NicNumbers], float]) -> Callable[[Numbers], Iterable[Sample]]:
    return lambda numbers: [
        ((*_vm(fabric, vm), ("nic", nic.name.rpartition(".")[2])), value(nic))
        for fabric in numbers.fabrics
        if not fabric.unanswered
        for vm in fabric.vms
        for nic in vm.nics
    ]


def _of_uplinks(value: Callable[[UplinkNumbers], float]) -> Callable[[Numbers], Iterable[Sample]]:
    return lambda numbers: [
        ((("fabric", fabric.name), ("uplink", uplink.name)), value(uplink))
        for fabric in numbers.fabrics
        if not fabric.unanswered
        for uplink in fabric.uplinks
    ]


def _states(numbers: Numbers) -> Iterable[Sample]:
    for fabric in numbers.fabrics:
        for vm in fabric.vms:
            for state in STATES:
                yield (*_vm(fabric, vm), ("state", state)), vm.state == state


# -- the metrics ----------------------------------------------------------------------------------

_FABRIC, _VM, _PORT = ("fabric",), ("fabric", "vm"), ("fabric", "vm", "nic")
_UPLINK = ("fabric", "uplink")

_DAEMON_METRICS = (
    Metric(
        "vnet_build_info",
        GAUGE,
        "Always 1; the version of the daemon.",
        ("version",),
        lambda numbers: [((("version", numbers.daemon.version),), 1)],
    ),
    Metric(
        "process_start_time_seconds",
        GAUGE,
        "When the daemon was started, since 1970.",
        (),
        lambda numbers: [((), round(numbers.time_ns / 1e9 - numbers.daemon.uptime_s, 1))],
    ),
    Metric(
        "process_cpu_seconds_total",
        COUNTER,
        "Processor time that the daemon used.",
        (),
        _of_daemon(lambda daemon: daemon.cpu_s),
    ),
    Metric(
        "process_resident_memory_bytes",
        GAUGE,
        "Memory that the daemon holds.",
        (),
        _of_daemon(lambda daemon: daemon.resident_bytes),
    ),
    Metric(
        "process_open_fds",
        GAUGE,
        "Descriptors that the daemon has open.",
        (),
        _of_daemon(lambda daemon: daemon.open_files),
    ),
    Metric(
        "vnet_event_loop_lag_seconds",
        GAUGE,
        "The longest that anything waited for its turn in the daemon in the last minute.",
        (),
        _of_daemon(lambda daemon: daemon.lag_s),
    ),
    Metric(
        "vnet_operations_running",
        GAUGE,
        "Long operations that run: up, down, captures, verify.",
        (),
        _of_daemon(lambda daemon: daemon.operations),
    ),
    Metric(
        "vnet_history_stopped",
        GAUGE,
        "1 when what happens is not kept, a full disk for instance.",
        (),
        _of_daemon(lambda daemon: bool(daemon.history_stopped)),
    ),
    Metric(
        "vnet_log_messages_total",
        COUNTER,
        "What the daemon logged, by level.",
        ("level",),
        lambda numbers: [((("level", level),), n) for level, n in numbers.daemon.messages.items()],
    ),
)
_HOST_METRICS = (
    Metric("vnet_host_cpus", GAUGE, "Processors that VMs share.", (), _of_host(lambda host: host.cpus)),
    Metric(
        "vnet_host_memory_bytes", GAUGE, "Memory of the host.", (), _of_host(lambda host: host.memory_bytes)
    ),
    Metric(
        "vnet_host_memory_available_bytes",
        GAUGE,
        "Memory that can still be had.",
        (),
        _of_host(lambda host: host.available_bytes),
    ),
    Metric(
        "vnet_host_pressure_seconds_total",
        COUNTER,
        "How long something on the host waited for cpu, memory, io.",
        ("resource",),
        lambda numbers: [
            ((("resource", resource),), waited_s)
            for resource, waited_s in _by_resource(numbers.host.pressure)
        ],
    ),
)
_FABRIC_METRICS = (
    Metric(
        "vnet_fabric_ready",
        GAUGE,
        "1 when what is wanted is in force, the switch answers and the last change went well.",
        _FABRIC,
        _of_fabrics(lambda fabric: not any(reasons(fabric))),
    ),
    Metric(
        "vnet_fabric_generation_desired",
        GAUGE,
        "The generation of rules that is wanted.",
        _FABRIC,
        _of_fabrics(lambda fabric: fabric.generation),
    ),
    Metric(
        "vnet_fabric_generation_enforced",
        GAUGE,
        "The generation of rules that is in force.",
        _FABRIC,
        _of_fabrics(lambda fabric: fabric.enforced),
    ),
    Metric(
        "vnet_switch_up",
        GAUGE,
        "1 when the switch answers; else it has no other series.",
        _FABRIC,
        _of_fabrics(lambda fabric: not fabric.unanswered),
    ),
    Metric(
        "vnet_drops_total",
        COUNTER,
        "Packets lost, by reason.",
        ("fabric", "reason"),
        _of_switches("reason", lambda fabric: fabric.drops),
    ),
    Metric(
        "vnet_lost_events_total",
        COUNTER,
        "Packets that were to be reported and were not, by where they were seen: the ring was full, or the"
        " port over its share.",
        ("fabric", "point"),
        _of_switches("point", lambda fabric: fabric.lost_events),
    ),
    Metric(
        "vnet_flows",
        GAUGE,
        "Flows in force, by table.",
        ("fabric", "table"),
        _of_switches("table", lambda fabric: fabric.flows),
    ),
    Metric(
        "vnet_cached_paths_max",
        GAUGE,
        "The most lists of rules that were remembered at once for the flow cache.",
        _FABRIC,
        lambda numbers: [
            ((("fabric", each.name),), each.paths) for each in numbers.fabrics if not each.unanswered
        ],
    ),
)
_VM_METRICS = (
    Metric(
        "vnet_vm_state",
        GAUGE,
        "1 for the state that the VM is in, 0 for the others.",
        (*_VM, "state"),
        _states,
    ),
    Metric(
        "vnet_vm_cpu_seconds_total",
        COUNTER,
        "Processor time that the VM's QEMU used.",
        _VM,
        _of_vms(lambda vm: vm.cpu_s),
    ),
    Metric(
        "vnet_vm_cpu_ready_seconds_total",
        COUNTER,
        "How long the VM's vCPUs, taken together, could run and had no processor of the host.",
        _VM,
        _of_vms(lambda vm: vm.ready_s),
    ),
    Metric("vnet_vm_cpus", GAUGE, "Processors that the VM has.", _VM, _of_vms(lambda vm: vm.cpus)),
    Metric(
        "vnet_vm_resident_memory_bytes",
        GAUGE,
        "Memory that the host spends on the VM; pages that clones share are counted in each.",
        _VM,
        _of_vms(lambda vm: vm.resident_bytes),
    ),
    Metric(
        "vnet_vm_memory_bytes", GAUGE, "Memory that the VM has.", _VM, _of_vms(lambda vm: vm.memory_bytes)
    ),
    Metric(
        "vnet_vm_committed_memory_bytes",
        GAUGE,
        "Memory that the host has promised the VM, its QEMU's own included; 0 when it does not run.",
        _VM,
        _of_vms(lambda vm: vm.committed_bytes),
    ),
    Metric(
        "vnet_vm_swapped_memory_bytes",
        GAUGE,
        "Memory of the VM that lies in the host's swap.",
        _VM,
        _of_vms(lambda vm: vm.swapped_bytes),
    ),
    Metric(
        "vnet_vm_pressure_seconds_total",
        COUNTER,
        "How long something in the VM's control group waited for cpu, memory, io; 0 without version 2.",
        (*_VM, "resource"),
        _pressures,
    ),
    Metric(
        "vnet_vm_uptime_seconds",
        GAUGE,
        "How long the VM's QEMU has run; 0 when it does not.",
        _VM,
        _of_vms(lambda vm: round(vm.uptime_s, 1)),
    ),
)
_PORT_METRICS = (
    Metric(
        "vnet_port_up", GAUGE, "1 when the port's link has a carrier.", _PORT, _of_ports(lambda nic: nic.up)
    ),
    Metric(
        "vnet_port_receive_packets_total",
        COUNTER,
        "Packets that the port received from its VM.",
        _PORT,
        _of_ports(lambda nic: nic.traffic.sent_packets),
    ),
    Metric(
        "vnet_port_receive_bytes_total",
        COUNTER,
        "Bytes that the port received from its VM.",
        _PORT,
        _of_ports(lambda nic: nic.traffic.sent_bytes),
    ),
    Metric(
        "vnet_port_receive_drops_total",
        COUNTER,
        "Packets that the port received from its VM and that were lost, for whatever reason.",
        _PORT,
        _of_ports(lambda nic: nic.traffic.sent_dropped),
    ),
    Metric(
        "vnet_port_transmit_packets_total",
        COUNTER,
        "Packets that the port sent to its VM.",
        _PORT,
        _of_ports(lambda nic: nic.traffic.received_packets),
    ),
    Metric(
        "vnet_port_transmit_bytes_total",
        COUNTER,
        "Bytes that the port sent to its VM.",
        _PORT,
        _of_ports(lambda nic: nic.traffic.received_bytes),
    ),
    Metric(
        "vnet_port_transmit_drops_total",
        COUNTER,
        "Packets that the port should have sent to its VM and that were too long for it.",
        _PORT,
        _of_ports(lambda nic: nic.traffic.received_dropped),
    ),
    Metric(
        "vnet_port_connections",
        GAUGE,
        "Connections that count against the port's quota.",
        _PORT,
        _of_ports(lambda nic: nic.connections),
    ),
    Metric(
        "vnet_port_connections_limit",
        GAUGE,
        "How many connections the port may have at once.",
        _PORT,
        _of_ports(lambda nic: nic.connection_quota),
    ),
    Metric(
        "vnet_port_macs",
        GAUGE,
        "MAC addresses that were learnt from the port.",
        _PORT,
        _of_ports(lambda nic: nic.macs),
    ),
    Metric(
        "vnet_port_macs_limit",
        GAUGE,
        "How many MAC addresses may be learnt from the port.",
        _PORT,
        _of_ports(lambda nic: nic.mac_quota),
    ),
    Metric(
        "vnet_port_rate_into_vm_bits",
        GAUGE,
        "How many bits a second the VM is sent at most; 0 = no rate.",
        _PORT,
        _of_ports(lambda nic: nic.inward_bps),
    ),
    Metric(
        "vnet_port_rate_out_of_vm_bits",
        GAUGE,
        "How many bits a second the VM may send; 0 = no rate.",
        _PORT,
        _of_ports(lambda nic: nic.outward_bps),
    ),
)
_UPLINK_METRICS = (
    Metric(
        "vnet_uplink_up",
        GAUGE,
        "1 when the uplink's interface is there and its link has a carrier.",
        _UPLINK,
        _of_uplinks(lambda uplink: uplink.link == LinkState.UP),
    ),
    Metric(
        "vnet_uplink_receive_packets_total",
        COUNTER,
        "Packets that came in by the uplink.",
        _UPLINK,
        _of_uplinks(lambda uplink: uplink.traffic.sent_packets),
    ),
    Metric(
        "vnet_uplink_receive_bytes_total",
        COUNTER,
        "Bytes that came in by the uplink.",
        _UPLINK,
        _of_uplinks(lambda uplink: uplink.traffic.sent_bytes),
    ),
    Metric(
        "vnet_uplink_receive_drops_total",
        COUNTER,
        "Packets that came in by the uplink and were lost, for whatever reason.",
        _UPLINK,
        _of_uplinks(lambda uplink: uplink.traffic.sent_dropped),
    ),
    Metric(
        "vnet_uplink_transmit_packets_total",
        COUNTER,
        "Packets that left by the uplink.",
        _UPLINK,
        _of_uplinks(lambda uplink: uplink.traffic.received_packets),
    ),
    Metric(
        "vnet_uplink_transmit_bytes_total",
        COUNTER,
        "Bytes that left by the uplink.",
        _UPLINK,
        _of_uplinks(lambda uplink: uplink.traffic.received_bytes),
    ),
)
METRICS = (*_DAEMON_METRICS, *_HOST_METRICS, *_FABRIC_METRICS, *_VM_METRICS, *_PORT_METRICS, *_UPLINK_METRICS)
