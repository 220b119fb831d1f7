"""What the switch tells of itself: descriptions, features and statistics, cut to fit messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from vnet import __version__
from vnet.openflow.codec import encode
from vnet.openflow.fields import FIELDS
from vnet.openflow.message import (
    AggregateReply,
    Capability,
    DescReply,
    FeaturesReply,
    FlowStats,
    FlowStatsReply,
    Message,
    PortDescReply,
    PortDescription,
    PortState,
    PortStats,
    PortStatsReply,
    TableFeatures,
    TableFeaturesReply,
    TableStats,
    TableStatsReply,
)
from vnet.switch import abi
from vnet.switch.datapath import Counter, FlowKey, PortCounter, SwitchPort, TableCounter
from vnet.switch.flowtable import N_TABLES, Entry, FlowTable
from vnet.switch.lower import PLACES, WRITABLE

SECOND_NS = 1_000_000_000
MAX_ENTRIES = abi.RULES - 1
"""Of all tables together; how many masks a table has may end it earlier, refused with TABLE_FULL."""

_ALL_BITS = (1 << 64) - 1
_INSTRUCTIONS = (1, 2, 4, 5)
"""OFPIT_*: goto, write-metadata, apply- and clear-actions."""
_ACTIONS = (0, 17, 18, 25)
"""OFPAT_*: output, push-VLAN, pop-VLAN, set-field."""
_FLOWS_PER_PART, _PORTS_PER_PART, _TABLES_PER_PART = 48, 400, 16
"""So many fit 64 KiB: a flow with every field and 40 actions, a port, a table is at most so large."""


def features(datapath_id: int) -> FeaturesReply:
    """No buffers: every packet-in carries its packet."""
    able = Capability.FLOW_STATS | Capability.TABLE_STATS | Capability.PORT_STATS
    return FeaturesReply(datapath_id, N_TABLES, capabilities=int(able))


def description(name: str) -> DescReply:
    return DescReply("vnet", "eBPF at tc ingress", __version__, "none", name)


def port_description(port: SwitchPort) -> PortDescription:
    state = PortState.LIVE if port.up else PortState.LINK_DOWN
    return PortDescription(port.number, port.mac, port.name, state=int(state))


def table_features() -> tuple[TableFeatures, ...]:
    """Every table can do the same."""
    return tuple(_table_features(table) for table in range(N_TABLES))


def _table_features(table: int) -> TableFeatures:
    return TableFeatures(
        table,
        f"table {table}",
        MAX_ENTRIES,
        _ALL_BITS,
        _ALL_BITS,
        tuple(name for name in FIELDS if name in PLACES),
        tuple(name for name, field in FIELDS.items() if field.maskable and name in PLACES),
        tuple(name for name in FIELDS if name in WRITABLE),
        _INSTRUCTIONS,
        _ACTIONS,
        tuple(range(table + 1, N_TABLES)),
    )


def flow_stats(entry: Entry, counters: Mapping[FlowKey, Counter], now: float) -> FlowStats:
    total = entry.count(counters)
    return FlowStats(entry.flow, age_ns(entry, now), total.packets, total.bytes)


def age_ns(entry: Entry, now: float) -> int:
    """How long the flow has been in force."""
    return max(0, int((now - entry.created_s) * SECOND_NS))


def aggregate(entries: Iterable[Entry], counters: Mapping[FlowKey, Counter]) -> AggregateReply:
    totals = [entry.count(counters) for entry in entries]
    return AggregateReply(sum(t.packets for t in totals), sum(t.bytes for t in totals), len(totals))


def table_stats(flows: FlowTable, counters: Mapping[int, TableCounter]) -> tuple[TableStats, ...]:
    found = ((table, counters.get(table, TableCounter())) for table in range(N_TABLES))
    return tuple(TableStats(table, flows.active(table), c.lookups, c.matched) for table, c in found)


def port_stats(port: int, counter: PortCounter, age: int) -> PortStats:
    rx, tx = counter.rx, counter.tx
    return PortStats(port, rx.packets, tx.packets, rx.bytes, tx.bytes, counter.rx_dropped, duration_ns=age)


# -- in parts -------------------------------------------------------------------------------------


def flow_parts(
    entries: Sequence[Entry], counters: Mapping[FlowKey, Counter], now: float, xid: int
) -> Iterator[bytes]:
    """The whole answer to a flow statistics request, made message by message."""
    stats = (flow_stats(entry, counters, now) for entry in entries)
    return _parts(FlowStatsReply, stats, _FLOWS_PER_PART, xid)


def table_parts(tables: Iterable[TableStats], xid: int) -> Iterator[bytes]:
    return _parts(TableStatsReply, tables, N_TABLES, xid)


def table_feature_parts(xid: int) -> Iterator[bytes]:
    return _parts(TableFeaturesReply, table_features(), _TABLES_PER_PART, xid)


def port_parts(ports: Iterable[PortStats], xid: int) -> Iterator[bytes]:
    return _parts(PortStatsReply, ports, _PORTS_PER_PART, xid)


def port_description_parts(ports: Iterable[SwitchPort], xid: int) -> Iterator[bytes]:
    return _parts(PortDescReply, map(port_description, ports), _PORTS_PER_PART, xid)


def _parts(
    reply: Callable[[tuple[Any, ...], bool], Message], items: Iterable[Any], size: int, xid: int
) -> Iterator[bytes]:
    """At least one message; all but the last say that more follow."""
    rest = iter(items)
    part = tuple(islice(rest, size))
    while following := tuple(islice(rest, size)):
        yield encode(reply(part, True), xid)
        part = following
    yield encode(reply(part, False), xid)
