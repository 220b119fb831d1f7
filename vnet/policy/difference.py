"""What turns the flows that a switch has into those wanted, and nothing more than that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from vnet.openflow.fields import FIELDS
from vnet.openflow.flow import Action, DecIpTtl, Flow, FlowFlag, Match, Output, Port, SetField, is_own
from vnet.policy.entry import NOTHING

FlowKey = tuple[int, int, Match]

KEPT_FLAGS = FlowFlag.SEND_FLOW_REM | FlowFlag.NO_PACKET_COUNTS | FlowFlag.NO_BYTE_COUNTS
"""Flags that a switch keeps with the flow; the others only tell how to add it."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What turns the flows there are into those wanted; each in the order of `Flow.key`."""

    added: tuple[Flow, ...] = ()
    changed: tuple[Flow, ...] = ()
    """As wanted; the switch has another flow of the same key."""
    removed: tuple[Flow, ...] = ()
    rewritten: frozenset[FlowKey] = frozenset()
    """Keys of those `changed` that differ in their instructions alone, so that their counters can be kept."""

    @property
    def put(self) -> tuple[Flow, ...]:
        """Flows to add or replace."""
        return self.added + self.changed

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


def diff(current: Iterable[Flow], desired: Iterable[Flow]) -> Difference:
    """The difference between two sets of flows, by `Flow.key`.

    Raises: ValueError if two desired flows have the same key: only one of them can be in a table.
    """
    have, want = {flow.key: normal(flow) for flow in current}, by_key(desired)
    changed = [flow for key, flow in want.items() if key in have and have[key] != flow]
    return Difference(
        added=tuple(flow for key, flow in want.items() if key not in have),
        changed=tuple(changed),
        removed=tuple(sorted((flow for key, flow in have.items() if key not in want), key=order)),
        rewritten=frozenset(
            flow.key
            for flow in changed
            if replace(flow, instructions=have[flow.key].instructions) == have[flow.key]
        ),
    )


def by_key(flows: Iterable[Flow]) -> dict[FlowKey, Flow]:
    """The flows in the form in which a switch returns them, in the order of their keys.

    Raises: ValueError if two have the same key.
    """
    found: dict[FlowKey, Flow] = {}
    for flow in sorted(map(normal, flows), key=order):
        if found.setdefault(flow.key, flow) != flow:
            raise ValueError(f"two flows of table {flow.table}, priority {flow.priority} with the same match")
    return found


def order(flow: Flow) -> tuple[int, int, tuple[tuple[str, int, int], ...]]:
    """To sort by: as `Flow.key`, but comparing two takes no call of Python's."""
    return flow.table, flow.priority, flow.match.entries


def without_answers(flows: Iterable[Flow]) -> Iterator[Flow]:
    """The flows for a switch that is not vnet's: what is rejected is dropped there without an answer."""
    for flow in flows:
        apply = tuple(DecIpTtl() if isinstance(each, DecIpTtl) else each for each in flow.instructions.apply)
        if any(map(is_own, apply)):
            yield replace(flow, instructions=NOTHING)
        else:
            yield replace(flow, instructions=replace(flow.instructions, apply=apply))


def normal(flow: Flow) -> Flow:
    """The flow in the form in which a switch returns it, so that equal meaning compares equal."""
    given, flags = flow.instructions, flow.flags & KEPT_FLAGS
    apply, write = (tuple(map(_normal_action, actions)) for actions in (given.apply, given.write))
    if (apply, write, flags) == (given.apply, given.write, flow.flags):
        return flow
    return replace(flow, instructions=replace(given, apply=apply, write=write), flags=flags)


def _normal_action(action: Action) -> Action:
    if isinstance(action, SetField):
        full = FIELDS[action.field].full_mask
        mask = None if action.mask == full else action.mask
        return SetField(action.field, action.value & (full if mask is None else mask), mask)
    if isinstance(action, Output) and action.port != Port.CONTROLLER:
        return Output(action.port)
    return action
