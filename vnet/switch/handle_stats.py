"""Descriptions and statistics (OpenFlow 1.3.5, section 7.3.5)."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import Any

from vnet.openflow.flow import Port
from vnet.openflow.group import ALL_GROUPS, ALL_METERS
from vnet.openflow.message import (
    AggregateRequest,
    BadRequest,
    ErrorType,
    FlowStatsRequest,
    GroupStatsRequest,
    Message,
    MeterConfigRequest,
    MeterModFailed,
    MeterStatsRequest,
    PortStats,
    PortStatsRequest,
)
from vnet.switch import stats
from vnet.switch.connection import Connection, Request
from vnet.switch.datapath import PortCounter
from vnet.switch.desk import Desk
from vnet.switch.flowtable import filter_of_request
from vnet.switch.jobs import Answer, Ask, Job, Kind, ReadCounters


def desc(desk: Desk, conn: Connection, request: Request, message: Message) -> None:
    desk.reply(conn, request, stats.description(desk.name))


def port_desc(desk: Desk, conn: Connection, request: Request, message: Message) -> None:
    ports = [port for _, port in sorted(desk.ports.items())]
    desk.stream(conn, stats.port_description_parts(ports, request.xid))


def flow_stats(desk: Desk, conn: Connection, request: Request, message: FlowStatsRequest) -> Job:
    wanted = filter_of_request(message)
    counters = yield from _read(desk, Kind.FLOWS, conn, request)
    if counters is not None:
        entries = desk.tables.flows.select(wanted)
        desk.stream(conn, stats.flow_parts(entries, counters, desk.now, request.xid))


def aggregate(desk: Desk, conn: Connection, request: Request, message: AggregateRequest) -> Job:
    wanted = filter_of_request(message)
    counters = yield from _read(desk, Kind.FLOWS, conn, request)
    if counters is not None:
        desk.reply(conn, request, stats.aggregate(desk.tables.flows.select(wanted), counters))


def table_stats(desk: Desk, conn: Connection, request: Request, message: Message) -> Job:
    counters = yield from _read(desk, Kind.TABLES, conn, request)
    if counters is not None:
        tables = stats.table_stats(desk.tables.flows, counters)
        desk.stream(conn, stats.table_parts(tables, request.xid))


def port_stats(desk: Desk, conn: Connection, request: Request, message: PortStatsRequest) -> Job:
    wanted = message.port
    if wanted != Port.ANY and wanted not in desk.ports:
        desk.refuse(conn, request, ErrorType.BAD_REQUEST, BadRequest.BAD_PORT)
        return
    counters = yield from _read(desk, Kind.PORTS, conn, request)
    if counters is not None:
        desk.stream(conn, stats.port_parts(_port_counters(desk, wanted, counters), request.xid))


def group_stats(desk: Desk, conn: Connection, request: Request, message: GroupStatsRequest) -> Job:
    """Of a group that is not there the answer is empty, as Open vSwitch's is."""
    counters = yield from _read(desk, Kind.GROUPS, conn, request)
    if counters is not None:
        tables, now = desk.tables, desk.now
        found = tuple(
            stats.group_stats(holding, len(tables.flows.of_group(holding.value.number)), counters, now)
            for holding in tables.groups.select(message.group)
        )
        desk.stream(conn, stats.group_stats_parts(found, request.xid))


def group_desc(desk: Desk, conn: Connection, request: Request, message: Message) -> Job:
    """When its turn has come, so that a change under way is either told whole or not at all."""
    groups = [holding.value for holding in desk.tables.groups.select(ALL_GROUPS)]
    desk.stream(conn, stats.group_parts(groups, request.xid))
    yield from ()


def group_features(desk: Desk, conn: Connection, request: Request, message: Message) -> None:
    desk.reply(conn, request, stats.group_features())


def meter_stats(desk: Desk, conn: Connection, request: Request, message: MeterStatsRequest) -> Job:
    if not _has_meter(desk, conn, request, message.meter):
        return
    counters = yield from _read(desk, Kind.METERS, conn, request)
    if counters is not None:
        tables, now = desk.tables, desk.now
        found = tuple(
            stats.meter_stats(holding, len(tables.flows.of_meter(holding.value.number)), counters, now)
            for holding in tables.meters.select(message.meter)
        )
        desk.stream(conn, stats.meter_stats_parts(found, request.xid))


def meter_config(desk: Desk, conn: Connection, request: Request, message: MeterConfigRequest) -> Job:
    """When its turn has come, like `group_desc`."""
    if _has_meter(desk, conn, request, message.meter):
        meters = [holding.value for holding in desk.tables.meters.select(message.meter)]
        desk.stream(conn, stats.meter_parts(meters, request.xid))
    yield from ()


def _has_meter(desk: Desk, conn: Connection, request: Request, meter: int) -> bool:
    """Whether there is the meter that was asked for; if not, the requester is told."""
    if meter == ALL_METERS or meter in desk.tables.meters:
        return True
    desk.refuse(conn, request, ErrorType.METER_MOD_FAILED, MeterModFailed.UNKNOWN_METER)
    return False


def meter_features(desk: Desk, conn: Connection, request: Request, message: Message) -> None:
    desk.reply(conn, request, stats.meter_features())


def _port_counters(desk: Desk, wanted: int, counters: Mapping[int, PortCounter]) -> Iterator[PortStats]:
    for number in sorted(desk.ports) if wanted == Port.ANY else (wanted,):
        age = int((desk.now - desk.ports_since.get(number, desk.now)) * stats.SECOND_NS)
        yield stats.port_stats(number, counters.get(number, PortCounter()), age)


def _read(
    desk: Desk, kind: Kind, conn: Connection, request: Request
) -> Generator[Ask, Answer, Mapping[Any, Any] | None]:
    """Counters, or None after the requester was told why there are none."""
    answer = yield lambda token: ReadCounters(token, kind)
    if answer.refusals:
        desk.refuse(conn, request, answer.refusals[0].error_type, answer.refusals[0].code)
        return None
    return answer.counters
