"""What `vnet top -o json` writes: one object for each moment, the same values as on the screen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from vnet.cli.top_form import Row, Seen, View
from vnet.cli.top_view import chosen, connections
from vnet.fabric.disk_rates import KINDS, PERCENTILES, DiskRate
from vnet.fabric.numbers import HostNumbers
from vnet.fabric.rates import TrafficRate, Waits
from vnet.fabric.readiness import unready
from vnet.hv.latency import Latencies


def sample(seen: Seen, view: View) -> Mapping[str, Any]:
    """One moment: VMs that the filter lets through in the view's order, totals of all."""
    now, rates = seen.now, seen.last
    reasons = [asdict(each) for each in unready(now)]
    return {
        "time": datetime.fromtimestamp(now.time_ns / 1e9, UTC).isoformat(timespec="milliseconds"),
        "span_s": round(rates.span_s, 3),
        "ready": not reasons,
        "reasons": reasons,
        "total": _traffic(rates.total),
        "drops_pps": {reason: round(pps, 3) for reason, pps in rates.drops_pps.items()},
        "lost_events_ps": round(rates.lost_events_ps, 3),
        "host": _host(now.host, now.running_vcpus, rates.host),
        "daemon": asdict(now.daemon),
        "warnings": [asdict(each) for each in seen.warnings],
        "vms": [_vm(row) for row in chosen(seen, view)],
        **({"connections": [asdict(each) for each in connections(seen, view)]} if view.connections else {}),
    }


def _host(host: HostNumbers, vcpus: int, waits: Waits) -> Mapping[str, Any]:
    return {
        "cpus": host.cpus,
        "running_vcpus": vcpus,
        "memory_bytes": host.memory_bytes,
        "available_bytes": host.available_bytes,
        "waits_percent": _percent(waits),
    }


def _percent(waits: Waits) -> Mapping[str, float]:
    return {what: round(100 * share, 1) for what, share in asdict(waits).items()}


def _vm(row: Row) -> Mapping[str, Any]:
    vm = row.vm
    return {
        "fabric": row.fabric,
        "vm": vm.name,
        "state": vm.state,
        "cpu_percent": round(100 * row.rate.cpu, 1),
        "ready_percent": round(100 * row.rate.ready, 1),
        "resident_bytes": vm.resident_bytes,
        "swapped_bytes": vm.swapped_bytes,
        "committed_bytes": vm.committed_bytes,
        "waits_percent": _percent(row.rate.waits),
        "ballooned_bytes": vm.ballooned_bytes,
        "guest_memory": _memory(row),
        "disks": [_disk(each) for each in row.rate.disks],
        "qemu_silent_s": vm.vitals.silent_s,
        "uptime_s": round(vm.uptime_s, 1),
        **_traffic(row.rate.traffic),
        "reason": row.rate.reason,
        "connections": sum(nic.connections for nic in vm.nics),
    }


def _memory(row: Row) -> Mapping[str, Any] | None:
    memory = row.vm.vitals.memory
    if memory is None:
        return None
    more = {"used_bytes": memory.used_bytes, "swapping_bytes_ps": round(row.rate.swapping_bytes_ps, 1)}
    return {**asdict(memory), **more}


def _disk(rate: DiskRate) -> Mapping[str, Any]:
    numbers = {name: value for name, value in asdict(rate).items() if name not in KINDS}
    latencies = {kind: _percentiles(getattr(rate, kind)) for kind in KINDS}
    return {
        **{name: value if isinstance(value, str) else round(value, 3) for name, value in numbers.items()},
        "latency_ms": latencies,
    }


def _percentiles(answers: Latencies) -> Mapping[str, float] | None:
    """None when there were none."""
    if not answers.count:
        return None
    return {f"p{each}": round(answers.percentile_s(each) * 1000, 3) for each in PERCENTILES}


def _traffic(traffic: TrafficRate) -> Mapping[str, float]:
    return {name: round(value, 3) for name, value in asdict(traffic).items()}
