"""What the switch tells of itself: descriptions, features and statistics, cut to fit messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from vnet import __version__
from vnet.openflow.codec import encode
from vnet.openflow.fields import FIELDS
from vnet.openflow.group import BandType, Group, GroupType, Meter, MeterFlag
from vnet.openflow.message import (
    AggregateReply,
    Capability,
    DescReply,
    FeaturesReply,
    FlowStats,
    FlowStatsReply,
    GroupCapability,
    GroupDescReply,
    GroupFeaturesReply,
    GroupStats,
    GroupStatsReply,
    Message,
    MeterConfigReply,
    MeterFeaturesReply,
    MeterStats,
    MeterStatsReply,
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
from vnet.switch.datapath import (
    Counter,
    FlowKey,
    GroupCounter,
    MeterCounter,
    PortCounter,
    SwitchPort,
    TableCounter,
)
from vnet.switch.flowtable import N_TABLES, Entry, FlowTable
from vnet.switch.grouptable import MAX_GROUPS
from vnet.switch.metertable import MAX_BANDS, MAX_METERS
from vnet.switch.numbered import Holding
from vnet.switch.places import PLACES, WRITABLE

SECOND_NS = 1_000_000_000
MAX_ENTRIES = abi.RULES - 1
"""Of all tables together; how many masks a table has may end it earlier, refused with TABLE_FULL."""

_ALL_BITS = (1 << 64) - 1
_INSTRUCTIONS = (1, 2, 3, 4, 5, 6)
"""OFPIT_*: goto, write-metadata, write-, apply- and clear-actions, meter."""
_GROUP = 22
_ACTIONS = (0, 11, 12, 15, 16, 17, 18, 19, 20, _GROUP, 23, 24, 25)
"""OFPAT_*: output, copy-TTL-out and -in, set- and dec-MPLS-TTL, push- and pop-VLAN, push- and pop-MPLS,
group, set- and dec-nw-TTL, set-field."""
_FLOWS_PER_PART, _PORTS_PER_PART, _TABLES_PER_PART = 48, 400, 16
_GROUPS_PER_PART, _METERS_PER_PART = 60, 350
"""About so many fit 64 KiB; a part that does not is halved."""


def features(datapath_id: int) -> FeaturesReply:
    """No buffers: every packet-in carries its packet."""
    able = Capability.FLOW_STATS | Capability.TABLE_STATS | Capability.PORT_STATS | Capability.GROUP_STATS
    return FeaturesReply(datapath_id, N_TABLES, capabilities=int(able))


def description(name: str) -> DescReply:
    return DescReply("vnet", "eBPF at tc ingress", __version__, "none", name)


def port_description(port: SwitchPort) -> PortDescription:
    state = PortState.LIVE if port.up else PortState.LINK_DOWN
    return PortDescription(port.number, port.mac, port.name, port.config, int(state))


def table_features(names: Mapping[int, str]) -> tuple[TableFeatures, ...]:
    """Every table can do the same; `names` are those that a controller has given."""
    return tuple(_table_features(table, names.get(table, f"table {table}")) for table in range(N_TABLES))


def _table_features(table: int, name: str) -> TableFeatures:
    return TableFeatures(
        table,
        name,
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
    return FlowStats(entry.flow, age_ns(entry.created_s, now), total.packets, total.bytes)


def age_ns(created_s: float, now: float) -> int:
    """How long something has been in force."""
    return max(0, int((now - created_s) * SECOND_NS))


def aggregate(entries: Iterable[Entry], counters: Mapping[FlowKey, Counter]) -> AggregateReply:
    totals = [entry.count(counters) for entry in entries]
    return AggregateReply(sum(t.packets for t in totals), sum(t.bytes for t in totals), len(totals))


def table_stats(flows: FlowTable, counters: Mapping[int, TableCounter]) -> tuple[TableStats, ...]:
    found = ((table, counters.get(table, TableCounter())) for table in range(N_TABLES))
    return tuple(TableStats(table, flows.active(table), c.lookups, c.matched) for table, c in found)


def port_stats(port: int, counter: PortCounter, age: int) -> PortStats:
    rx, tx = counter.rx, counter.tx
    dropped = counter.rx_dropped, counter.tx_dropped
    return PortStats(port, rx.packets, tx.packets, rx.bytes, tx.bytes, *dropped, duration_ns=age)


def group_features() -> GroupFeaturesReply:
    """All four types, of all of which together there can be MAX_GROUPS."""
    able = GroupCapability.SELECT_WEIGHT | GroupCapability.SELECT_LIVENESS
    actions = sum(1 << number for number in _ACTIONS if number != _GROUP)
    types = sum(1 << kind for kind in GroupType)
    return GroupFeaturesReply(types, int(able), (MAX_GROUPS,) * 4, (actions,) * 4)


def group_stats(
    holding: Holding[Group], ref_count: int, counters: Mapping[int, GroupCounter], now: float
) -> GroupStats:
    group, total = holding.value, counters.get(holding.value.number, GroupCounter())
    return GroupStats(
        group.number,
        ref_count,
        total.total.packets,
        total.total.bytes,
        age_ns(holding.created_s, now),
        _pairs(total.buckets, len(group.buckets)),
    )


def meter_features() -> MeterFeaturesReply:
    bands = sum(1 << kind for kind in BandType)
    return MeterFeaturesReply(MAX_METERS, bands, sum(MeterFlag), MAX_BANDS)


def meter_stats(
    holding: Holding[Meter], flow_count: int, counters: Mapping[int, MeterCounter], now: float
) -> MeterStats:
    meter, total = holding.value, counters.get(holding.value.number, MeterCounter())
    return MeterStats(
        meter.number,
        flow_count,
        total.total.packets,
        total.total.bytes,
        age_ns(holding.created_s, now),
        _pairs(total.bands, len(meter.bands)),
    )


def _pairs(counters: tuple[Counter, ...], size: int) -> tuple[tuple[int, int], ...]:
    """(packets, bytes) of each; of what has not been counted yet 0."""
    counted = (*counters, *(Counter(),) * size)[:size]
    return tuple((counter.packets, counter.bytes) for counter in counted)


# -- in parts -------------------------------------------------------------------------------------


def flow_parts(
    entries: Sequence[Entry], counters: Mapping[FlowKey, Counter], now: float, xid: int
) -> Iterator[bytes]:
    """The whole answer to a flow statistics request, made message by message."""
    stats = (flow_stats(entry, counters, now) for entry in entries)
    return _parts(FlowStatsReply, stats, _FLOWS_PER_PART, xid)


def table_parts(tables: Iterable[TableStats], xid: int) -> Iterator[bytes]:
    return _parts(TableStatsReply, tables, N_TABLES, xid)


def table_feature_parts(names: Mapping[int, str], xid: int) -> Iterator[bytes]:
    return _parts(TableFeaturesReply, table_features(names), _TABLES_PER_PART, xid)


def group_stats_parts(groups: Iterable[GroupStats], xid: int) -> Iterator[bytes]:
    return _parts(GroupStatsReply, groups, _GROUPS_PER_PART, xid)


def group_parts(groups: Iterable[Group], xid: int) -> Iterator[bytes]:
    return _parts(GroupDescReply, groups, _GROUPS_PER_PART, xid)


def meter_stats_parts(meters: Iterable[MeterStats], xid: int) -> Iterator[bytes]:
    return _parts(MeterStatsReply, meters, _METERS_PER_PART, xid)


def meter_parts(meters: Iterable[Meter], xid: int) -> Iterator[bytes]:
    return _parts(MeterConfigReply, meters, _METERS_PER_PART, xid)


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
        yield from _fitting(reply, part, True, xid)
        part = following
    yield from _fitting(reply, part, False, xid)


def _fitting(
    reply: Callable[[tuple[Any, ...], bool], Message], part: tuple[Any, ...], more: bool, xid: int
) -> Iterator[bytes]:
    """One message, or several when it would be too long. One flow, group or meter always fits."""
    try:
        yield encode(reply(part, more), xid)
    except ValueError:
        half = len(part) // 2
        assert half, "longer than a message"
        yield from _fitting(reply, part[:half], True, xid)
        yield from _fitting(reply, part[half:], more, xid)
