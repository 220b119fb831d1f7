"""What `vnet top -o json` writes: one object for each moment, the same values as on the screen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from vnet.cli.top_view import Row, Seen, View, chosen, connections
from vnet.fabric.numbers import HostNumbers
from vnet.fabric.rates import TrafficRate, Waits
from vnet.fabric.readiness import unready


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
        "uptime_s": round(vm.uptime_s, 1),
        **_traffic(row.rate.traffic),
        "reason": row.rate.reason,
        "connections": sum(nic.connections for nic in vm.nics),
    }


def _traffic(traffic: TrafficRate) -> Mapping[str, float]:
    return {name: round(value, 3) for name, value in asdict(traffic).items()}
