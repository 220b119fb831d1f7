"""The metrics of the daemon, its host, fabrics, VMs, ports and uplinks, and all that there are, as text."""

from __future__ import annotations

from collections.abc import Iterable

from vnet.api.guest_metrics import GUEST_METRICS
from vnet.api.metric import (
    COUNTER,
    FABRIC,
    GAUGE,
    PORT,
    UPLINK,
    VM,
    Metric,
    Sample,
    by_resource,
    lines,
    of_daemon,
    of_fabrics,
    of_host,
    of_ports,
    of_switches,
    of_uplinks,
    of_vms,
    pressures,
    vm_labels,
)
from vnet.fabric.cable import LinkState
from vnet.fabric.numbers import Numbers
from vnet.fabric.readiness import reasons
from vnet.hv.spec import GuestState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STATES = ("ready", *(state.value for state in GuestState))
"""Every state that a VM can be in."""


def exposition(numbers: Numbers) -> str:
    """All of them, as they are scraped."""
    return "".join(line for metric in METRICS for line in lines(metric, numbers))


def _states(numbers: Numbers) -> Iterable[Sample]:
    for fabric in numbers.fabrics:
        for vm in fabric.vms:
            for state in STATES:
                yield (*vm_labels(fabric, vm), ("state", state)), vm.state == state


# -- the metrics ----------------------------------------------------------------------------------

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
        of_daemon(lambda daemon: daemon.cpu_s),
    ),
    Metric(
        "process_resident_memory_bytes",
        GAUGE,
        "Memory that the daemon holds.",
        (),
        of_daemon(lambda daemon: daemon.resident_bytes),
    ),
    Metric(
        "process_open_fds",
        GAUGE,
        "Descriptors that the daemon has open.",
        (),
        of_daemon(lambda daemon: daemon.open_files),
    ),
    Metric(
        "vnet_event_loop_lag_seconds",
        GAUGE,
        "The longest that anything waited for its turn in the daemon in the last minute.",
        (),
        of_daemon(lambda daemon: daemon.lag_s),
    ),
    Metric(
        "vnet_operations_running",
        GAUGE,
        "Long operations that run: up, down, captures, verify.",
        (),
        of_daemon(lambda daemon: daemon.operations),
    ),
    Metric(
        "vnet_history_stopped",
        GAUGE,
        "1 when what happens is not kept, a full disk for instance.",
        (),
        of_daemon(lambda daemon: bool(daemon.history_stopped)),
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
    Metric("vnet_host_cpus", GAUGE, "Processors that VMs share.", (), of_host(lambda host: host.cpus)),
    Metric(
        "vnet_host_memory_bytes", GAUGE, "Memory of the host.", (), of_host(lambda host: host.memory_bytes)
    ),
    Metric(
        "vnet_host_memory_available_bytes",
        GAUGE,
        "Memory that can still be had.",
        (),
        of_host(lambda host: host.available_bytes),
    ),
    Metric(
        "vnet_host_pressure_seconds_total",
        COUNTER,
        "How long something on the host waited for cpu, memory, io.",
        ("resource",),
        lambda numbers: [
            ((("resource", resource),), waited_s) for resource, waited_s in by_resource(numbers.host.pressure)
        ],
    ),
)
_FABRIC_METRICS = (
    Metric(
        "vnet_fabric_ready",
        GAUGE,
        "1 when what is wanted is in force, the switch answers and the last change went well.",
        FABRIC,
        of_fabrics(lambda fabric: not any(reasons(fabric))),
    ),
    Metric(
        "vnet_fabric_generation_desired",
        GAUGE,
        "The generation of rules that is wanted.",
        FABRIC,
        of_fabrics(lambda fabric: fabric.generation),
    ),
    Metric(
        "vnet_fabric_generation_enforced",
        GAUGE,
        "The generation of rules that is in force.",
        FABRIC,
        of_fabrics(lambda fabric: fabric.enforced),
    ),
    Metric(
        "vnet_switch_up",
        GAUGE,
        "1 when the switch answers; else it has no other series.",
        FABRIC,
        of_fabrics(lambda fabric: not fabric.unanswered),
    ),
    Metric(
        "vnet_drops_total",
        COUNTER,
        "Packets lost, by reason.",
        ("fabric", "reason"),
        of_switches("reason", lambda fabric: fabric.drops),
    ),
    Metric(
        "vnet_lost_events_total",
        COUNTER,
        "Packets that were to be reported and were not, by where they were seen: the ring was full, or the"
        " port over its share.",
        ("fabric", "point"),
        of_switches("point", lambda fabric: fabric.lost_events),
    ),
    Metric(
        "vnet_flows",
        GAUGE,
        "Flows in force, by table.",
        ("fabric", "table"),
        of_switches("table", lambda fabric: fabric.flows),
    ),
    Metric(
        "vnet_cached_paths_max",
        GAUGE,
        "The most lists of rules that were remembered at once for the flow cache.",
        FABRIC,
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
        (*VM, "state"),
        _states,
    ),
    Metric(
        "vnet_vm_cpu_seconds_total",
        COUNTER,
        "Processor time that the VM's QEMU used.",
        VM,
        of_vms(lambda vm: vm.cpu_s),
    ),
    Metric(
        "vnet_vm_cpu_ready_seconds_total",
        COUNTER,
        "How long the VM's vCPUs, taken together, could run and had no processor of the host.",
        VM,
        of_vms(lambda vm: vm.ready_s),
    ),
    Metric("vnet_vm_cpus", GAUGE, "Processors that the VM has.", VM, of_vms(lambda vm: vm.cpus)),
    Metric(
        "vnet_vm_resident_memory_bytes",
        GAUGE,
        "Memory that the host spends on the VM; pages that clones share are counted in each.",
        VM,
        of_vms(lambda vm: vm.resident_bytes),
    ),
    Metric("vnet_vm_memory_bytes", GAUGE, "Memory that the VM has.", VM, of_vms(lambda vm: vm.memory_bytes)),
    Metric(
        "vnet_vm_committed_memory_bytes",
        GAUGE,
        "Memory that the host has promised the VM, its QEMU's own included; 0 when it does not run.",
        VM,
        of_vms(lambda vm: vm.committed_bytes),
    ),
    Metric(
        "vnet_vm_swapped_memory_bytes",
        GAUGE,
        "Memory of the VM that lies in the host's swap.",
        VM,
        of_vms(lambda vm: vm.swapped_bytes),
    ),
    Metric(
        "vnet_vm_pressure_seconds_total",
        COUNTER,
        "How long something in the VM's control group waited for cpu, memory, io; 0 without version 2.",
        (*VM, "resource"),
        pressures,
    ),
    Metric(
        "vnet_vm_uptime_seconds",
        GAUGE,
        "How long the VM's QEMU has run; 0 when it does not.",
        VM,
        of_vms(lambda vm: round(vm.uptime_s, 1)),
    ),
)
_PORT_METRICS = (
    Metric(
        "vnet_port_up", GAUGE, "1 when the port's link has a carrier.", PORT, of_ports(lambda nic: nic.up)
    ),
    Metric(
        "vnet_port_receive_packets_total",
        COUNTER,
        "Packets that the port received from its VM.",
        PORT,
        of_ports(lambda nic: nic.traffic.sent_packets),
    ),
    Metric(
        "vnet_port_receive_bytes_total",
        COUNTER,
        "Bytes that the port received from its VM.",
        PORT,
        of_ports(lambda nic: nic.traffic.sent_bytes),
    ),
    Metric(
        "vnet_port_receive_drops_total",
        COUNTER,
        "Packets that the port received from its VM and that were lost, for whatever reason.",
        PORT,
        of_ports(lambda nic: nic.traffic.sent_dropped),
    ),
    Metric(
        "vnet_port_transmit_packets_total",
        COUNTER,
        "Packets that the port sent to its VM.",
        PORT,
        of_ports(lambda nic: nic.traffic.received_packets),
    ),
    Metric(
        "vnet_port_transmit_bytes_total",
        COUNTER,
        "Bytes that the port sent to its VM.",
        PORT,
        of_ports(lambda nic: nic.traffic.received_bytes),
    ),
    Metric(
        "vnet_port_transmit_drops_total",
        COUNTER,
        "Packets that the port should have sent to its VM and that were too long for it.",
        PORT,
        of_ports(lambda nic: nic.traffic.received_dropped),
    ),
    Metric(
        "vnet_port_connections",
        GAUGE,
        "Connections that count against the port's quota.",
        PORT,
        of_ports(lambda nic: nic.connections),
    ),
    Metric(
        "vnet_port_connections_limit",
        GAUGE,
        "How many connections the port may have at once.",
        PORT,
        of_ports(lambda nic: nic.connection_quota),
    ),
    Metric(
        "vnet_port_macs",
        GAUGE,
        "MAC addresses that were learnt from the port.",
        PORT,
        of_ports(lambda nic: nic.macs),
    ),
    Metric(
        "vnet_port_macs_limit",
        GAUGE,
        "How many MAC addresses may be learnt from the port.",
        PORT,
        of_ports(lambda nic: nic.mac_quota),
    ),
    Metric(
        "vnet_port_rate_into_vm_bits",
        GAUGE,
        "How many bits a second the VM is sent at most; 0 = no rate.",
        PORT,
        of_ports(lambda nic: nic.inward_bps),
    ),
    Metric(
        "vnet_port_rate_out_of_vm_bits",
        GAUGE,
        "How many bits a second the VM may send; 0 = no rate.",
        PORT,
        of_ports(lambda nic: nic.outward_bps),
    ),
)
_UPLINK_METRICS = (
    Metric(
        "vnet_uplink_up",
        GAUGE,
        "1 when the uplink's interface is there and its link has a carrier.",
        UPLINK,
        of_uplinks(lambda uplink: uplink.link == LinkState.UP),
    ),
    Metric(
        "vnet_uplink_receive_packets_total",
        COUNTER,
        "Packets that came in by the uplink.",
        UPLINK,
        of_uplinks(lambda uplink: uplink.traffic.sent_packets),
    ),
    Metric(
        "vnet_uplink_receive_bytes_total",
        COUNTER,
        "Bytes that came in by the uplink.",
        UPLINK,
        of_uplinks(lambda uplink: uplink.traffic.sent_bytes),
    ),
    Metric(
        "vnet_uplink_receive_drops_total",
        COUNTER,
        "Packets that came in by the uplink and were lost, for whatever reason.",
        UPLINK,
        of_uplinks(lambda uplink: uplink.traffic.sent_dropped),
    ),
    Metric(
        "vnet_uplink_transmit_packets_total",
        COUNTER,
        "Packets that left by the uplink.",
        UPLINK,
        of_uplinks(lambda uplink: uplink.traffic.received_packets),
    ),
    Metric(
        "vnet_uplink_transmit_bytes_total",
        COUNTER,
        "Bytes that left by the uplink.",
        UPLINK,
        of_uplinks(lambda uplink: uplink.traffic.received_bytes),
    ),
)
METRICS = (
    *_DAEMON_METRICS,
    *_HOST_METRICS,
    *_FABRIC_METRICS,
    *_VM_METRICS,
    *GUEST_METRICS,
    *_PORT_METRICS,
    *_UPLINK_METRICS,
)
