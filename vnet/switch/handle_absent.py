"""What this switch has none of or lets nobody change: refused by the specified error, or told empty."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vnet.openflow.flow import ALL_TABLES, Port
from vnet.openflow.group import ALL_METERS
from vnet.openflow.message import (
    ALL_QUEUES,
    ErrorType,
    GroupCommand,
    GroupDescReply,
    GroupFeaturesReply,
    GroupMod,
    GroupModFailed,
    GroupStatsReply,
    GroupStatsRequest,
    Message,
    MeterCommand,
    MeterConfigReply,
    MeterConfigRequest,
    MeterFeaturesReply,
    MeterMod,
    MeterModFailed,
    MeterStatsReply,
    MeterStatsRequest,
    PortMod,
    PortModFailed,
    QueueGetConfigReply,
    QueueGetConfigRequest,
    QueueOpFailed,
    QueueStatsReply,
    QueueStatsRequest,
    TableMod,
    TableModFailed,
)
from vnet.switch.connection import Connection, Request
from vnet.switch.flowtable import N_TABLES

if TYPE_CHECKING:
    from vnet.switch.agent import Agent


def group_mod(agent: Agent, conn: Connection, request: Request, mod: GroupMod) -> None:
    """Deleting what is not there is no error, anything else is."""
    if mod.command != GroupCommand.DELETE:
        adds = mod.command == GroupCommand.ADD
        code = GroupModFailed.OUT_OF_GROUPS if adds else GroupModFailed.UNKNOWN_GROUP
        agent.refuse(conn, request, ErrorType.GROUP_MOD_FAILED, code)


def meter_mod(agent: Agent, conn: Connection, request: Request, mod: MeterMod) -> None:
    """Deleting what is not there is no error, anything else is."""
    if mod.command != MeterCommand.DELETE:
        adds = mod.command == MeterCommand.ADD
        code = MeterModFailed.OUT_OF_METERS if adds else MeterModFailed.UNKNOWN_METER
        agent.refuse(conn, request, ErrorType.METER_MOD_FAILED, code)


def port_mod(agent: Agent, conn: Connection, request: Request, mod: PortMod) -> None:
    """Ports are the fabric's to configure; a request that changes nothing is granted."""
    port = agent.ports.get(mod.number)
    if port is None:
        agent.refuse(conn, request, ErrorType.PORT_MOD_FAILED, PortModFailed.BAD_PORT)
    elif port.mac != mod.mac:
        agent.refuse(conn, request, ErrorType.PORT_MOD_FAILED, PortModFailed.BAD_HW_ADDR)
    elif mod.config & mod.mask or mod.advertise:
        agent.refuse(conn, request, ErrorType.PORT_MOD_FAILED, PortModFailed.EPERM)


def table_mod(agent: Agent, conn: Connection, request: Request, mod: TableMod) -> None:
    """1.3 defines no configuration of tables."""
    if mod.table >= N_TABLES and mod.table != ALL_TABLES:
        agent.refuse(conn, request, ErrorType.TABLE_MOD_FAILED, TableModFailed.BAD_TABLE)
    elif mod.config:
        agent.refuse(conn, request, ErrorType.TABLE_MOD_FAILED, TableModFailed.BAD_CONFIG)


def queue_config(agent: Agent, conn: Connection, request: Request, message: QueueGetConfigRequest) -> None:
    port = message.port
    if port != Port.ANY and port not in agent.ports:
        agent.refuse(conn, request, ErrorType.QUEUE_OP_FAILED, QueueOpFailed.BAD_PORT)
    else:
        agent.reply(conn, request, QueueGetConfigReply(port))


def queue_stats(agent: Agent, conn: Connection, request: Request, message: QueueStatsRequest) -> None:
    port, queue = message.port, message.queue
    if port != Port.ANY and port not in agent.ports:
        agent.refuse(conn, request, ErrorType.QUEUE_OP_FAILED, QueueOpFailed.BAD_PORT)
    elif queue != ALL_QUEUES:
        agent.refuse(conn, request, ErrorType.QUEUE_OP_FAILED, QueueOpFailed.BAD_QUEUE)
    else:
        agent.reply(conn, request, QueueStatsReply())


def group_stats(agent: Agent, conn: Connection, request: Request, message: GroupStatsRequest) -> None:
    """Of a group that is not there the answer is empty, as Open vSwitch's is."""
    agent.reply(conn, request, GroupStatsReply())


def group_desc(agent: Agent, conn: Connection, request: Request, message: Message) -> None:
    agent.reply(conn, request, GroupDescReply())


def group_features(agent: Agent, conn: Connection, request: Request, message: Message) -> None:
    agent.reply(conn, request, GroupFeaturesReply())


def meter_stats(agent: Agent, conn: Connection, request: Request, message: MeterStatsRequest) -> None:
    _of_meters(agent, conn, request, message.meter, MeterStatsReply())


def meter_config(agent: Agent, conn: Connection, request: Request, message: MeterConfigRequest) -> None:
    _of_meters(agent, conn, request, message.meter, MeterConfigReply())


def _of_meters(agent: Agent, conn: Connection, request: Request, meter: int, reply: Message) -> None:
    if meter == ALL_METERS:
        agent.reply(conn, request, reply)
    else:
        agent.refuse(conn, request, ErrorType.METER_MOD_FAILED, MeterModFailed.UNKNOWN_METER)


def meter_features(agent: Agent, conn: Connection, request: Request, message: Message) -> None:
    agent.reply(conn, request, MeterFeaturesReply())
