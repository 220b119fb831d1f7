"""FlowMod, FlowRemoved and flow statistics <-> bytes (OpenFlow 1.3.5, sections 7.3.4.1, 7.4.2, 7.3.5.2)."""

from __future__ import annotations

import struct

from vnet.openflow.codec_consistent import check_consistent
from vnet.openflow.codec_error import CodecError
from vnet.openflow.codec_instruction import decode_instructions, encode_instructions
from vnet.openflow.codec_match import decode_match, encode_fields, encode_match
from vnet.openflow.codec_record import SECOND_NS
from vnet.openflow.flow import NO_BUFFER, Flow, FlowFlag, Instructions
from vnet.openflow.message import (
    BadRequest,
    ErrorType,
    FlowCommand,
    FlowMod,
    FlowModFailed,
    FlowRemoved,
    FlowStats,
)

_FLOW_MOD = struct.Struct("!QQBBHHHIIIHxx")
_MATCH_HEADER = struct.Struct("!HH")
_PADDING = tuple(bytes(-length % 8) for length in range(8))
_FLOW_REMOVED = struct.Struct("!QHBBIIHHQQ")
_FLOW_STATS = struct.Struct("!HBxIIHHHHxxxxQQQ")
_FLAGS = sum(FlowFlag)
_COMMANDS = {int(command): command for command in FlowCommand}
_CHANGES = (FlowCommand.ADD, FlowCommand.MODIFY, FlowCommand.MODIFY_STRICT)


def encode_flow_mod(mod: FlowMod) -> bytes:
    """The body. Written for bulk: no object is made for what a fragment cache holds."""
    flow = mod.flow
    fields = encode_fields(flow.match.entries)
    length = 4 + len(fields)
    fixed = _FLOW_MOD.pack(
        flow.cookie,
        mod.cookie_mask,
        flow.table,
        mod.command,
        flow.idle_timeout_s,
        flow.hard_timeout_s,
        flow.priority,
        mod.buffer_id,
        mod.out_port,
        mod.out_group,
        flow.flags,
    )
    match = _MATCH_HEADER.pack(1, length) + fields + _PADDING[length % 8]
    return fixed + match + encode_instructions(flow.instructions)


def decode_flow_mod(body: bytes) -> FlowMod:
    """Raises: CodecError; of a deletion the instructions are ignored, as the specification says."""
    cookie, cookie_mask, table, number, idle, hard, priority, buffer_id, out_port, out_group, flags = (
        _FLOW_MOD.unpack_from(body)
    )
    command = _COMMANDS.get(number)
    if command is None:
        raise CodecError(ErrorType.FLOW_MOD_FAILED, FlowModFailed.BAD_COMMAND)
    if flags & ~_FLAGS:
        raise CodecError(ErrorType.FLOW_MOD_FAILED, FlowModFailed.BAD_FLAGS)
    match, end = decode_match(body, _FLOW_MOD.size)
    instructions = Instructions()
    if command in _CHANGES:
        instructions = decode_instructions(body[end:])
        check_consistent(match, instructions)
    if command in _CHANGES and buffer_id != NO_BUFFER:
        raise CodecError(ErrorType.BAD_REQUEST, BadRequest.BUFFER_UNKNOWN)
    flow = Flow(table, priority, match, instructions, cookie, idle, hard, flags)
    return FlowMod(command, flow, cookie_mask, out_port, out_group, buffer_id)


def encode_flow_removed(removed: FlowRemoved) -> bytes:
    """The body."""
    flow = removed.flow
    fixed = _FLOW_REMOVED.pack(
        flow.cookie,
        flow.priority,
        removed.reason,
        flow.table,
        *divmod(removed.duration_ns, SECOND_NS),
        flow.idle_timeout_s,
        flow.hard_timeout_s,
        removed.packets,
        removed.bytes,
    )
    return fixed + encode_match(flow.match)


def decode_flow_removed(body: bytes) -> FlowRemoved:
    """Raises: CodecError."""
    cookie, priority, reason, table, seconds, nanoseconds, idle, hard, packets, octets = (
        _FLOW_REMOVED.unpack_from(body)
    )
    match, _ = decode_match(body, _FLOW_REMOVED.size)
    flow = Flow(table, priority, match, cookie=cookie, idle_timeout_s=idle, hard_timeout_s=hard)
    return FlowRemoved(reason, flow, seconds * SECOND_NS + nanoseconds, packets, octets)


def encode_flow_stats(stats: FlowStats) -> bytes:
    """`struct ofp_flow_stats` with its length."""
    flow = stats.flow
    variable = encode_match(flow.match) + encode_instructions(flow.instructions)
    fixed = _FLOW_STATS.pack(
        _FLOW_STATS.size + len(variable),
        flow.table,
        *divmod(stats.duration_ns, SECOND_NS),
        flow.priority,
        flow.idle_timeout_s,
        flow.hard_timeout_s,
        flow.flags,
        flow.cookie,
        stats.packets,
        stats.bytes,
    )
    return fixed + variable


def decode_flow_stats(record: bytes) -> FlowStats:
    """Raises: CodecError."""
    _, table, seconds, nanoseconds, priority, idle, hard, flags, cookie, packets, octets = (
        _FLOW_STATS.unpack_from(record)
    )
    match, end = decode_match(record, _FLOW_STATS.size)
    flow = Flow(table, priority, match, decode_instructions(record[end:]), cookie, idle, hard, flags)
    return FlowStats(flow, seconds * SECOND_NS + nanoseconds, packets, octets)
