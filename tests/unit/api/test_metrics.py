"""Metrics: Prometheus' text format, its naming rules, and the dashboard that reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.fabric.numbers_samples import fabric, nic, numbers, uplink, vitals, vm
from vnet.api.metrics import METRICS, exposition
from vnet.base.drop import DropReason
from vnet.hv.latency import BOUNDS_S

DASHBOARD = Path(__file__).parents[3] / "packaging" / "grafana" / "vnet.json"
SAMPLE = numbers(
    fabric(
        replace(vm("web-1", nic("web-1.eth0", 10, 20, 1), cpu_s=0.25), vitals=vitals(reads=5, slow=2)),
        vm("db", nic("db.eth0"), state="crashed"),
        drops={"POLICY": 10},
        lost_events={"drop": 4},
        flows={"admit": 3},
        enforced=2,
        uplinks=(uplink("campus", sent=7, dropped=2), uplink("lab", "missing")),
    )
)
_LINE = re.compile(
    r'(?P<name>[a-z_]+)(?:\{(?P<labels>[a-z]+="[^"\n]*"(?:,[a-z]+="[^"\n]*")*)\})? (?P<value>\S+)'
)
KNOWN = {metric.name: metric for metric in METRICS}
PARTS = re.compile(r"_(bucket|sum|count)$")
"""How the names of a histogram's samples end."""
ADDED_BY_PROMETHEUS = {"instance", "job"}


def parsed(text: str) -> Iterator[tuple[str, frozenset[tuple[str, str]], float]]:
    """Each sample; every line is one or a comment."""
    for line in text.splitlines():
        if line.startswith("# "):
            continue
        found = _LINE.fullmatch(line)
        assert found, line
        labels = re.findall(r'([a-z]+)="([^"]*)"', found["labels"] or "")
        yield found["name"], frozenset(labels), float(found["value"])


def value(text: str, name: str, **labels: str) -> float:
    """That of the one sample with exactly these labels."""
    wanted = frozenset(labels.items())
    (found,) = [number for which, has, number in parsed(text) if (which, has) == (name, wanted)]
    return found


def test_a_port_receives_what_its_vm_sends() -> None:
    text = exposition(SAMPLE)
    port = {"fabric": "small", "vm": "web-1", "nic": "eth0"}
    assert value(text, "vnet_port_receive_bytes_total", **port) == 1000
    assert value(text, "vnet_port_transmit_packets_total", **port) == 20
    assert value(text, "vnet_port_receive_drops_total", **port) == 1
    assert value(text, "vnet_port_connections_limit", **port) == 16384
    assert value(text, "vnet_vm_cpu_seconds_total", fabric="small", vm="web-1") == 0.25
    assert value(text, "vnet_drops_total", fabric="small", reason="POLICY") == 10


def test_an_uplink_is_up_when_its_link_is() -> None:
    text = exposition(SAMPLE)
    campus, lab = ({"fabric": "small", "uplink": name} for name in ("campus", "lab"))
    assert (value(text, "vnet_uplink_up", **campus), value(text, "vnet_uplink_up", **lab)) == (1, 0)
    assert value(text, "vnet_uplink_receive_bytes_total", **campus) == 700
    assert value(text, "vnet_uplink_receive_drops_total", **campus) == 2


def test_a_vm_is_in_one_state() -> None:
    text = exposition(SAMPLE)
    states = [(dict(labels)["state"], on) for name, labels, on in parsed(text) if name == "vnet_vm_state"]
    assert sorted(state for state, on in states if on) == ["crashed", "ready"]
    assert len(states) == 16


def test_a_histogram_adds_up_and_ends_with_all() -> None:
    text = exposition(SAMPLE)
    disk = {"fabric": "small", "vm": "web-1", "disk": "data"}
    name = "vnet_disk_read_latency_seconds"
    found = [value(text, f"{name}_bucket", **disk, le=f"{bound:g}") for bound in BOUNDS_S]
    assert found == sorted(found)
    assert (found[BOUNDS_S.index(0.001)], found[-1]) == (5, 5)
    assert value(text, f"{name}_bucket", **disk, le="+Inf") == value(text, f"{name}_count", **disk) == 7
    assert value(text, f"{name}_sum", **disk) == pytest.approx(12.005)


def test_what_a_guest_does_not_tell_has_no_series() -> None:
    text = exposition(SAMPLE)
    told = {dict(labels)["vm"] for name, labels, _ in parsed(text) if name.startswith("vnet_vm_guest_")}
    assert told == {"web-1"}
    assert value(text, "vnet_vm_guest_memory_available_bytes", fabric="small", vm="web-1") == 8 << 20
    assert value(text, "vnet_vm_ballooned_memory_bytes", fabric="small", vm="web-1") == 16 << 20


def test_a_fabric_that_is_behind_is_not_ready() -> None:
    assert value(exposition(SAMPLE), "vnet_fabric_ready", fabric="small") == 0
    assert value(exposition(numbers(fabric())), "vnet_fabric_ready", fabric="small") == 1


def test_a_switch_that_does_not_answer_has_no_counters_that_seem_to_begin_anew() -> None:
    (one,) = SAMPLE.fabrics
    text = exposition(replace(SAMPLE, fabrics=(replace(one, unanswered="it is gone"),)))
    assert value(text, "vnet_switch_up", fabric="small") == 0
    assert not [
        name for name, _, _ in parsed(text) if name.startswith(("vnet_port_", "vnet_drops", "vnet_flows"))
    ]


def test_samples_are_where_they_are_announced_and_have_the_labels_they_are_said_to_have() -> None:
    announced = ""
    for line in exposition(SAMPLE).splitlines():
        if line.startswith("# TYPE "):
            announced = line.split()[2]
        elif not line.startswith("#"):
            ((name, labels, _),) = parsed(line)
            known = KNOWN[announced]
            more = ("le",) if name.endswith("_bucket") else ()
            assert (PARTS.sub("", name) if known.kind == "histogram" else name) == announced
            assert tuple(sorted(label for label, _ in labels)) == tuple(sorted((*known.labels, *more)))


def test_no_sample_comes_twice() -> None:
    found = [(name, labels) for name, labels, _ in parsed(exposition(SAMPLE))]
    assert len(found) == len(set(found))


def test_names_are_as_prometheus_wants_them() -> None:
    for metric in METRICS:
        assert metric.name.startswith(("vnet_", "process_"))
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.help.endswith("."), metric.name
        assert not re.search(r"_(ms|kb|mb|percent|count)(_|$)", metric.name)


def test_odd_characters_in_labels_are_escaped() -> None:
    text = exposition(numbers(fabric(name='a"b\\c\nd')))
    assert 'vnet_switch_up{fabric="a\\"b\\\\c\\nd"} 1\n' in text


def test_the_number_of_series_depends_on_nics_reasons_and_tables_only() -> None:
    many = {f"vm-{n}": vm(f"vm-{n}", nic(f"vm-{n}.eth0")) for n in range(200)}
    drops = {reason.name: 1 for reason in DropReason}
    found = list(parsed(exposition(numbers(fabric(*many.values(), drops=drops)))))
    assert len(found) < 200 * 34 + len(DropReason) + 30


# -- the dashboard --------------------------------------------------------------------------------


def queries() -> Iterator[tuple[str, str, str]]:
    """Title, query and legend of each line of each panel, and the queries of its variables."""
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"], target["legendFormat"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["definition"], ""


QUERIES = tuple(queries())


@pytest.mark.parametrize(
    ("title", "query", "legend"), QUERIES, ids=[f"{t}-{n}" for n, (t, *_) in enumerate(QUERIES)]
)
def test_each_query_of_the_dashboard_asks_for_what_there_is(title: str, query: str, legend: str) -> None:
    names = re.findall(r"\b(?:vnet|process)_[a-z_]+\b", query)
    assert names
    shown = {name for name, _, _ in parsed(exposition(SAMPLE))}
    for name in names:
        assert name in shown, f"{title}: {name} is not exported"
        inside = re.search(rf"{name}\{{([^}}]*)\}}", query)
        asked = set(re.findall(r'(\w+)=~?"', inside[1])) if inside else set()
        histogram = PARTS.sub("", name) if name not in KNOWN else ""
        known = set(KNOWN[histogram or name].labels) | ADDED_BY_PROMETHEUS | ({"le"} if histogram else set())
        assert asked <= known, f"{title}: {name} has no {asked - known}"
        by = re.search(r"by \(([^)]*)\)", query)
        kept = {label.strip() for label in by[1].split(",")} if by else known
        assert kept <= known, f"{title}: {name} has no {kept - known}"
        assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= kept, f"{title}: its legend asks for more"


def test_counters_are_asked_for_as_rates_and_gauges_are_not() -> None:
    for title, query, _ in QUERIES:
        rated = set(re.findall(r"(?:rate|increase)\(([a-z_]+)", query))
        for name in re.findall(r"\b(?:vnet|process)_[a-z_]+\b", query):
            assert (name not in KNOWN or KNOWN[name].kind == "counter") == (name in rated), title


def test_every_metric_but_those_of_details_is_on_the_dashboard() -> None:
    asked = {name for _, query, _ in QUERIES for name in re.findall(r"\b(?:vnet|process)_[a-z_]+\b", query)}
    asked |= {PARTS.sub("", name) for name in asked}
    assert {metric.name for metric in METRICS} - asked == {
        "process_open_fds",
        "process_start_time_seconds",
        "vnet_cached_paths_max",
        "vnet_history_stopped",
        "vnet_operations_running",
        "vnet_port_macs",
        "vnet_port_macs_limit",
        "vnet_port_rate_into_vm_bits",
        "vnet_port_rate_out_of_vm_bits",
        "vnet_port_up",
        "vnet_switch_up",
        "vnet_vm_guest_memory_cache_bytes",
        "vnet_vm_guest_major_faults_total",
        "vnet_vm_uptime_seconds",
    }


def test_the_manual_speaks_only_of_metrics_that_there_are() -> None:
    manual = (DASHBOARD.parents[2] / "docs" / "manual" / "watching.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\bvnet_[a-z_]+\b", manual))
    assert len(named) > 20
    assert {name if name in KNOWN else PARTS.sub("", name) for name in named} <= KNOWN.keys()
