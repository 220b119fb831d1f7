"""Makes a failing case small: fewer packets, flows, groups, matches, actions, and bytes that are not zero.

Each step is kept if the same switches still differ. A program that some switch refuses differs in nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import TypeVar

from tests.exams.differential.case import Case
from tests.exams.differential.frames import Frame
from tests.net.twin_generator import Program
from vnet.openflow.flow import Flow, Instructions, Match
from vnet.openflow.group import Bucket, Group

T = TypeVar("T")
Fails = Callable[[Case], bool]
LIMIT_S = 60.0


def shrink(case: Case, fails: Fails, limit_s: float = LIMIT_S) -> Case:
    """The smallest failing case that is found within the time."""
    deadline = time.monotonic() + limit_s

    def worth(candidate: Case) -> bool:
        return time.monotonic() < deadline and fails(candidate)

    for _ in count():
        before = case
        for narrow in (_packets, _flows, _groups, _parts_of_flows, _parts_of_groups, _bytes):
            case = narrow(case, worth)
        if case == before or time.monotonic() > deadline:
            break
    return case


def _packets(case: Case, fails: Fails) -> Case:
    last = case.packets[-1]

    def of(earlier: tuple[Frame, ...]) -> Case:
        return replace(case, packets=(*earlier, last))

    return of(_fewer(case.packets[:-1], lambda earlier: fails(of(earlier))))


def _flows(case: Case, fails: Fails) -> Case:
    def of(flows: tuple[Flow, ...]) -> Case:
        return replace(case, program=Program(flows, case.program.groups))

    return of(_fewer(case.program.flows, lambda flows: fails(of(flows))))


def _groups(case: Case, fails: Fails) -> Case:
    def of(groups: tuple[Group, ...]) -> Case:
        return replace(case, program=Program(case.program.flows, groups))

    return of(_fewer(case.program.groups, lambda groups: fails(of(groups))))


def _fewer(items: tuple[T, ...], fails: Callable[[tuple[T, ...]], bool]) -> tuple[T, ...]:
    """Halves left out, then quarters, down to single ones (delta debugging, Zeller 2002)."""
    size = len(items)
    while size:
        for start in range(0, len(items), size):
            fewer = items[:start] + items[start + size :]
            if len(fewer) < len(items) and fails(fewer):
                items = fewer
                break
        else:
            size //= 2
        size = min(size, len(items))
    return items


def _parts_of_flows(case: Case, fails: Fails) -> Case:
    """Flow by flow, the first simpler form that still fails, as long as there is one."""
    for place in range(len(case.program.flows)):
        case = _simplest(case, lambda c, place=place: _simpler_flows(c, place), fails)
    return case


def _simpler_flows(case: Case, place: int) -> Iterator[Case]:
    flows, groups = case.program.flows, case.program.groups
    for flow in _simpler_flow(flows[place]):
        yield replace(case, program=Program((*flows[:place], flow, *flows[place + 1 :]), groups))


def _simpler_flow(flow: Flow) -> Iterator[Flow]:
    for left_out in range(len(flow.match.entries)):
        yield replace(flow, match=Match(_without(flow.match.entries, left_out)))
    for simpler in _simpler_instructions(flow.instructions):
        yield replace(flow, instructions=simpler)


def _simpler_instructions(given: Instructions) -> Iterator[Instructions]:
    for left_out in range(len(given.apply)):
        yield replace(given, apply=_without(given.apply, left_out))
    for left_out in range(len(given.write)):
        yield replace(given, write=_without(given.write, left_out))
    if given.clear:
        yield replace(given, clear=False)
    if given.metadata:
        yield replace(given, metadata=None)
    if given.goto is not None:
        yield replace(given, goto=None)


def _parts_of_groups(case: Case, fails: Fails) -> Case:
    for place in range(len(case.program.groups)):
        case = _simplest(case, lambda c, place=place: _simpler_groups(c, place), fails)
    return case


def _simpler_groups(case: Case, place: int) -> Iterator[Case]:
    flows, groups = case.program.flows, case.program.groups
    group = groups[place]
    for buckets in _simpler_buckets(group.buckets):
        changed = (*groups[:place], replace(group, buckets=buckets), *groups[place + 1 :])
        yield replace(case, program=Program(flows, changed))


def _simpler_buckets(buckets: tuple[Bucket, ...]) -> Iterator[tuple[Bucket, ...]]:
    for left_out, bucket in enumerate(buckets):
        yield _without(buckets, left_out)
        for action in range(len(bucket.actions)):
            simpler = replace(bucket, actions=_without(bucket.actions, action))
            yield (*buckets[:left_out], simpler, *buckets[left_out + 1 :])


def _simplest(case: Case, simpler: Callable[[Case], Iterator[Case]], fails: Fails) -> Case:
    while True:
        found = next((candidate for candidate in simpler(case) if fails(candidate)), None)
        if found is None:
            return case
        case = found


def _without(items: Sequence[T], left_out: int) -> tuple[T, ...]:
    return (*items[:left_out], *items[left_out + 1 :])


def _bytes(case: Case, fails: Fails) -> Case:
    """The last packet cut short, then its bytes behind the addresses set to zero."""
    last = case.packets[-1]

    def of(data: bytes) -> Case:
        return replace(case, packets=(*case.packets[:-1], replace(last, data=data, marked=False)))

    data = last.data
    for size in (64, 16, 4, 1):
        while len(data) > 14 + size and fails(of(data[:-size])):
            data = data[:-size]
    for size in (16, 8, 4, 2, 1):
        for start in range(0, len(data), size):
            zeroed = data[:start] + bytes(len(data[start : start + size])) + data[start + size :]
            if zeroed != data and fails(of(zeroed)):
                data = zeroed
    return of(data)
