"""Table features (OpenFlow 1.3.5, section 7.3.5.5): they are as they are, but tables can be given names."""

from __future__ import annotations

from vnet.openflow.message import (
    BadRequest,
    ErrorType,
    Role,
    TableFeatures,
    TableFeaturesFailed,
    TableFeaturesRequest,
)
from vnet.switch import stats
from vnet.switch.connection import Connection, Request
from vnet.switch.desk import Desk
from vnet.switch.flowtable import N_TABLES

_LISTS = ("match_fields", "masked_fields", "set_fields", "instructions", "actions", "next_tables")


def table_features(desk: Desk, conn: Connection, request: Request, message: TableFeaturesRequest) -> None:
    """A request for no more than there is is granted; the answer tells what is in force, which may be more.

    Tables that it does not list stay: this switch cannot be without them.
    """
    wanted = conn.table_parts.pop(request.xid, ()) + message.tables
    fault = _fault(wanted)
    if wanted and conn.role is Role.SLAVE:
        desk.refuse(conn, request, ErrorType.BAD_REQUEST, BadRequest.IS_SLAVE)
    elif fault is not None:
        desk.refuse(conn, request, ErrorType.TABLE_FEATURES_FAILED, fault)
    elif not message.more:
        desk.table_names |= {table.table: table.name for table in wanted}
        desk.stream(conn, stats.table_feature_parts(dict(desk.table_names), request.xid))
    elif conn.table_parts:
        desk.refuse(conn, request, ErrorType.BAD_REQUEST, BadRequest.MULTIPART_BUFFER_OVERFLOW)
    else:
        conn.table_parts[request.xid] = wanted


def _fault(wanted: tuple[TableFeatures, ...]) -> TableFeaturesFailed | None:
    numbers = [table.table for table in wanted]
    if len(set(numbers)) < len(numbers) or any(number >= N_TABLES for number in numbers):
        return TableFeaturesFailed.BAD_TABLE
    there = stats.table_features({})
    if not all(_is_within(table, there[table.table]) for table in wanted):
        return TableFeaturesFailed.BAD_ARGUMENT
    return None


def _is_within(wanted: TableFeatures, there: TableFeatures) -> bool:
    """Metadata can be matched and written in every bit."""
    if wanted.max_entries > there.max_entries:
        return False
    return all(set(getattr(wanted, name)) <= set(getattr(there, name)) for name in _LISTS)
