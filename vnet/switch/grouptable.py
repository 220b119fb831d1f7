"""What a group may be (OpenFlow 1.3.5, sections 5.6 and 6.5), as far as that needs no dataplane.

Where the standard leaves the code of an error open, it is the one that Open vSwitch answers with. Unlike
there, groups in buckets of groups are refused, and what a bucket watches must be something that could be
live.
"""

from __future__ import annotations

from collections.abc import Iterator

from vnet.openflow.flow import Port, ToGroup
from vnet.openflow.group import ANY_GROUP, MAX_GROUP, Bucket, Group, GroupType
from vnet.openflow.message import ErrorType, GroupModFailed
from vnet.switch.datapath import GroupKey, Refused
from vnet.switch.numbered import NumberedTable

MAX_GROUPS = 4095
"""Of all types together."""
MAX_BUCKETS = 64
"""Per group."""

_WATCHING = (GroupType.SELECT, GroupType.FAST_FAILOVER)

GroupTable = NumberedTable[Group]


def check_new(groups: GroupTable, group: Group) -> None:
    """Raise Refused if the group cannot be added."""
    if group.number > MAX_GROUP:
        raise _refused(GroupModFailed.INVALID_GROUP, group, "a reserved number")
    if group.number in groups:
        raise _refused(GroupModFailed.GROUP_EXISTS, group, "exists")
    if len(groups) >= MAX_GROUPS:
        raise _refused(GroupModFailed.OUT_OF_GROUPS, group, f"the switch has {MAX_GROUPS} already")
    _check(groups, group)


def check_known(groups: GroupTable, group: Group) -> None:
    """Raise Refused if the group cannot replace the one in force under its number."""
    if group.number not in groups:
        raise _refused(GroupModFailed.UNKNOWN_GROUP, group, "does not exist")
    _check(groups, group)


def _check(groups: GroupTable, group: Group) -> None:
    n_buckets = len(group.buckets)
    if n_buckets > MAX_BUCKETS:
        raise _refused(GroupModFailed.OUT_OF_BUCKETS, group, f"{n_buckets} buckets; {MAX_BUCKETS} fit")
    if group.kind is GroupType.INDIRECT and n_buckets != 1:
        raise _refused(GroupModFailed.INVALID_GROUP, group, f"{n_buckets} buckets; an indirect one has 1")
    for bucket in group.buckets:
        _check_bucket(group, bucket)
    _check_watched(groups, group)


def _check_bucket(group: Group, bucket: Bucket) -> None:
    watches = bucket.watch_port != Port.ANY or bucket.watch_group != ANY_GROUP
    if bucket.weight and group.kind is not GroupType.SELECT:
        raise _refused(GroupModFailed.INVALID_GROUP, group, "only buckets to select from have weights")
    if watches and group.kind not in _WATCHING:
        raise _refused(GroupModFailed.WATCH_UNSUPPORTED, group, "its type does not watch")
    if not watches and group.kind is GroupType.FAST_FAILOVER:
        raise _refused(GroupModFailed.INVALID_GROUP, group, "a bucket watches nothing")
    if bucket.watch_port != Port.ANY and not _can_be_live(bucket.watch_port):
        raise _refused(GroupModFailed.BAD_WATCH, group, f"cannot watch port {bucket.watch_port:#x}")
    if any(isinstance(action, ToGroup) for action in bucket.actions):
        raise _refused(GroupModFailed.CHAINING_UNSUPPORTED, group, "a bucket sends to a group")


def _can_be_live(port: int) -> bool:
    """A port that is not attached is only not live now."""
    return 0 < port <= Port.MAX or port == Port.LOCAL


def _check_watched(groups: GroupTable, group: Group) -> None:
    """Groups that are watched must be there, and no liveness may depend on itself."""
    absent = [number for number in _watched(group) if number not in groups and number != group.number]
    if absent:
        raise _refused(GroupModFailed.BAD_WATCH, group, f"watches group {absent[0]}, which is not there")
    pending, seen = list(_watched(group)), set()
    while pending:
        number = pending.pop()
        if number == group.number:
            raise _refused(GroupModFailed.LOOP, group, "its liveness depends on itself")
        known = groups.get(number)
        if known is not None and number not in seen:
            seen.add(number)
            pending += _watched(known.value)


def _watched(group: Group) -> Iterator[int]:
    return (bucket.watch_group for bucket in group.buckets if bucket.watch_group != ANY_GROUP)


def _refused(code: GroupModFailed, group: Group, why: str) -> Refused:
    text = f"group {group.number}: {why}"
    return Refused(ErrorType.GROUP_MOD_FAILED, code, text, GroupKey(group.number))
