"""What this switch has none of or lets nobody change: refused by the specified error, or told empty."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vnet.openflow.flow import ALL_TABLES, Port
from vnet.openflow.message import (
    ALL_QUEUES,
    ErrorType,
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
