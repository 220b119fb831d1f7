"""What this switch has none of or lets nobody change: refused by the specified error, or told empty."""

from __future__ import annotations

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
from vnet.switch.desk import Desk
from vnet.switch.flowtable import N_TABLES


def table_mod(desk: Desk, conn: Connection, request: Request, mod: TableMod) -> None:
    """1.3 defines no configuration of tables."""
    if mod.table >= N_TABLES and mod.table != ALL_TABLES:
        desk.refuse(conn, request, ErrorType.TABLE_MOD_FAILED, TableModFailed.BAD_TABLE)
    elif mod.config:
        desk.refuse(conn, request, ErrorType.TABLE_MOD_FAILED, TableModFailed.BAD_CONFIG)


def queue_config(desk: Desk, conn: Connection, request: Request, message: QueueGetConfigRequest) -> None:
    port = message.port
    if port != Port.ANY and port not in desk.ports:
        desk.refuse(conn, request, ErrorType.QUEUE_OP_FAILED, QueueOpFailed.BAD_PORT)
    else:
        desk.reply(conn, request, QueueGetConfigReply(port))


def queue_stats(desk: Desk, conn: Connection, request: Request, message: QueueStatsRequest) -> None:
    port, queue = message.port, message.queue
    if port != Port.ANY and port not in desk.ports:
        desk.refuse(conn, request, ErrorType.QUEUE_OP_FAILED, QueueOpFailed.BAD_PORT)
    elif queue != ALL_QUEUES:
        desk.refuse(conn, request, ErrorType.QUEUE_OP_FAILED, QueueOpFailed.BAD_QUEUE)
    else:
        desk.reply(conn, request, QueueStatsReply())
