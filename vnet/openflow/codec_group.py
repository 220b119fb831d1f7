"""Groups and their statistics <-> bytes (OpenFlow 1.3.5, sections 7.3.4.2 and 7.3.5.8 to 7.3.5.10)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from vnet.openflow.codec_action import decode_actions, encode_actions
from vnet.openflow.codec_error import CodecError, bad_length
from vnet.openflow.codec_record import SECOND_NS
from vnet.openflow.flow import Port
from vnet.openflow.group import ANY_GROUP, MAX_GROUP, Bucket, Group, GroupType
from vnet.openflow.message import (
    ErrorType,
    GroupCommand,
    GroupFeaturesReply,
    GroupMod,
    GroupModFailed,
    GroupStats,
)

_MOD = struct.Struct("!HBxI")
_BUCKET = struct.Struct("!HHII4x")
_DESC = struct.Struct("!HBxI")
_STATS = struct.Struct("!H2xII4xQQII")
_COUNTER = struct.Struct("!QQ")
_FEATURES = struct.Struct("!10I")
_KINDS = {int(kind): kind for kind in GroupType}
_COMMANDS = {int(command): command for command in GroupCommand}


def _bad(code: GroupModFailed) -> CodecError:
    return CodecError(ErrorType.GROUP_MOD_FAILED, code)


def _encode_bucket(bucket: Bucket) -> bytes:
    actions = encode_actions(bucket.actions)
    length = _BUCKET.size + len(actions)
    return _BUCKET.pack(length, bucket.weight, bucket.watch_port, bucket.watch_group) + actions


def _encode_buckets(group: Group) -> bytes:
    return b"".join(map(_encode_bucket, group.buckets))


def _decode_buckets(data: bytes) -> Iterator[Bucket]:
    offset = 0
    while offset < len(data):
        if offset + _BUCKET.size > len(data):
            raise _bad(GroupModFailed.BAD_BUCKET)
        length, weight, watch_port, watch_group = _BUCKET.unpack_from(data, offset)
        end = offset + length
        if length < _BUCKET.size or end > len(data):
            raise _bad(GroupModFailed.BAD_BUCKET)
        if length % 8:
            raise bad_length()
        yield Bucket(decode_actions(data[offset + _BUCKET.size : end]), weight, watch_port, watch_group)
        offset = end


# -- changing groups ------------------------------------------------------------------------------


def encode_group_mod(mod: GroupMod) -> bytes:
    """The body."""
    group = mod.group
    return _MOD.pack(mod.command, group.kind, group.number) + _encode_buckets(group)


def decode_group_mod(body: bytes) -> GroupMod:
    """Raises: CodecError with the code that Open vSwitch answers.

    Which groups there are is not known here.
    """
    number, kind, group = _MOD.unpack_from(body)
    if kind not in _KINDS:
        raise _bad(GroupModFailed.BAD_TYPE)
    command = _COMMANDS.get(number)
    if command is None:
        raise _bad(GroupModFailed.BAD_COMMAND)
    mod = GroupMod(command, Group(group, _KINDS[kind], tuple(_decode_buckets(body[_MOD.size :]))))
    _check(mod)
    return mod


def _check(mod: GroupMod) -> None:
    group = mod.group
    if mod.command == GroupCommand.DELETE:
        if group.buckets:
            raise _bad(GroupModFailed.INVALID_GROUP)
        return
    if mod.command == GroupCommand.ADD and group.number > MAX_GROUP:
        raise _bad(GroupModFailed.INVALID_GROUP)
    if group.kind == GroupType.INDIRECT and len(group.buckets) != 1:
        raise _bad(GroupModFailed.INVALID_GROUP)
    for bucket in group.buckets:
        _check_bucket(group.kind, bucket)


def _check_bucket(kind: GroupType, bucket: Bucket) -> None:
    """Weights are for SELECT; only SELECT and FAST_FAILOVER look at liveness, the latter always."""
    watches = bucket.watch_port != Port.ANY or bucket.watch_group != ANY_GROUP
    if bucket.weight and kind != GroupType.SELECT:
        raise _bad(GroupModFailed.INVALID_GROUP)
    if kind == GroupType.FAST_FAILOVER and not watches:
        raise _bad(GroupModFailed.INVALID_GROUP)
    if watches and kind in (GroupType.ALL, GroupType.INDIRECT):
        raise _bad(GroupModFailed.WATCH_UNSUPPORTED)


# -- telling of groups ----------------------------------------------------------------------------


def encode_group(group: Group) -> bytes:
    """`struct ofp_group_desc`."""
    buckets = _encode_buckets(group)
    return _DESC.pack(_DESC.size + len(buckets), group.kind, group.number) + buckets


def decode_group(record: bytes) -> Group:
    """Raises: CodecError."""
    _, kind, number = _DESC.unpack_from(record)
    if kind not in _KINDS:
        raise _bad(GroupModFailed.BAD_TYPE)
    return Group(number, _KINDS[kind], tuple(_decode_buckets(record[_DESC.size :])))


def encode_group_stats(stats: GroupStats) -> bytes:
    """`struct ofp_group_stats`."""
    counters = b"".join(_COUNTER.pack(*bucket) for bucket in stats.buckets)
    length = _STATS.size + len(counters)
    duration = divmod(stats.duration_ns, SECOND_NS)
    fixed = _STATS.pack(length, stats.group, stats.ref_count, stats.packets, stats.bytes, *duration)
    return fixed + counters


def decode_group_stats(record: bytes) -> GroupStats:
    """Raises: struct.error for a wrong length."""
    _, group, ref_count, packets, octets, seconds, nanoseconds = _STATS.unpack_from(record)
    buckets = tuple(_COUNTER.iter_unpack(record[_STATS.size :]))
    return GroupStats(group, ref_count, packets, octets, seconds * SECOND_NS + nanoseconds, buckets)


def encode_group_features(reply: GroupFeaturesReply) -> bytes:
    """The body."""
    return _FEATURES.pack(reply.types, reply.capabilities, *reply.max_groups, *reply.actions)


def decode_group_features(body: bytes, more: bool) -> GroupFeaturesReply:
    """Raises: struct.error for a wrong length."""
    types, capabilities, *fours = _FEATURES.unpack(body)
    most, actions = fours[:4], fours[4:]
    return GroupFeaturesReply(
        types,
        capabilities,
        (most[0], most[1], most[2], most[3]),
        (actions[0], actions[1], actions[2], actions[3]),
        more,
    )
