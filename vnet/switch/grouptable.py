"""Which groups there can be beside those in force (OpenFlow 1.3.5, sections 5.6 and 6.5).

What a group_mod tells by itself the codec has checked. Unlike in Open vSwitch, groups in buckets of groups
are refused, and what a bucket watches must be something that could be live.
"""

from __future__ import annotations

from collections.abc import Iterator

from vnet.openflow.flow import Port, ToGroup
from vnet.openflow.group import ANY_GROUP, Group
from vnet.openflow.message import BadAction, ErrorType, GroupModFailed
from vnet.switch.datapath import GroupKey, Refused
from vnet.switch.flowtable import MAX_ACTIONS
from vnet.switch.numbered import NumberedTable

MAX_GROUPS = 4095
"""Of all types together."""
MAX_BUCKETS = 64
"""Per group."""

GroupTable = NumberedTable[Group]


def check_new(groups: GroupTable, group: Group) -> None:
    """Raise Refused if the group cannot be added."""
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
    if len(group.buckets) > MAX_BUCKETS:
        why = f"{len(group.buckets)} buckets; {MAX_BUCKETS} fit"
        raise _refused(GroupModFailed.OUT_OF_BUCKETS, group, why)
    if sum(len(bucket.actions) for bucket in group.buckets) > MAX_ACTIONS:
        why = f"group {group.number}: more than {MAX_ACTIONS} actions"
        raise Refused(ErrorType.BAD_ACTION, BadAction.TOO_MANY, why, GroupKey(group.number))
    for bucket in group.buckets:
        if bucket.watch_port != Port.ANY and not _can_be_live(bucket.watch_port):
            raise _refused(GroupModFailed.BAD_WATCH, group, f"cannot watch port {bucket.watch_port:#x}")
        if any(isinstance(action, ToGroup) for action in bucket.actions):
            raise _refused(GroupModFailed.CHAINING_UNSUPPORTED, group, "a bucket sends to a group")
    _check_watched(groups, group)


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
