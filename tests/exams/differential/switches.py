"""The three switches side by side: same program, same packets, and what differs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from types import TracebackType
from typing import Self

from tests.bpf.bench import Bench, Decision
from tests.exams.differential.by_design import (
    OTHER_CONNECTIONS,
    REOPENED,
    explain,
    is_opening,
    tracked,
)
from tests.exams.differential.case import tail
from tests.exams.differential.frames import Frame
from tests.net.twin_generator import PORTS, Program
from tests.net.twin_outcomes import outcomes
from tests.ovs import OpenVSwitch
from vnet.base.drop import DropReason
from vnet.openflow import packet
from vnet.openflow.conntrack import OVER
from vnet.openflow.flow import Conntrack
from vnet.openflow.group import GroupType
from vnet.openflow.table import Outcome, PortState, SlowSwitch

TAGS = (b"\x81\x00", b"\x88\xa8")
CHOICES = 256
"""Outcomes of one packet that are compared; a program whose SELECT groups leave more, nested in
loops of resubmit, is left there."""
AT_ONCE = 64
"""Frames that Open vSwitch is given without waiting for each."""

Sent = tuple[tuple[int, bytes], ...]


def too_short_to_run(frame: bytes) -> bool:
    """What the kernel refuses to run, or to take a tag from.

    BPF_PROG_TEST_RUN wants the whole IP header (net/bpf/test_run.c, 6.18), and `skb_vlan_pop` takes the
    next tag off the data too (net/core/skbuff.c), so that one may not be cut off.
    """
    if frame[12:14] in TAGS and frame[16:18] in TAGS:
        return len(frame) < 22
    return len(frame) < {b"\x08\x00": 34, b"\x86\xdd": 54}.get(frame[12:14], 15)


def agrees(ours: Decision, twin: Outcome) -> bool:
    """What left by each port, what the controllers are sent, and the reason for a drop.

    The order between ports cannot be observed.
    """
    told = sorted((event.reason_code, event.data) for event in ours.to_controller)
    return (
        sorted(ours.frames) == sorted(twin.outputs)
        and ours.drop == twin.drop
        and told == sorted((int(sent.reason), sent.frame) for sent in twin.to_controller)
    )


@dataclass(frozen=True, slots=True)
class Difference:
    """One packet on which switches differ without a known reason; `between` names them."""

    between: str
    at: int
    """The packet's position among those since the program was loaded."""
    story: str


@dataclass(slots=True)
class _Tried:
    """A packet that the interpreter and the eBPF agree on, and what may become of it."""

    at: int
    frame: Frame
    possible: tuple[Outcome, ...]
    known: str | None
    """Why Open vSwitch may do otherwise."""


@dataclass(slots=True)
class Verdicts:
    """What a program's packets came to."""

    same: int = 0
    by_design: dict[str, int] = field(default_factory=dict)
    difference: Difference | None = None


class Switches:
    """A context with all three (or, without `ovs`, the first two) of four ports each."""

    def __init__(self, ovs: bool = True) -> None:
        self._stack = ExitStack()
        self._ovs: OpenVSwitch | None = OpenVSwitch() if ovs else None
        self._cpus = os.sched_getaffinity(0)

    def __enter__(self) -> Self:
        with self._stack as stack:
            if self._ovs:
                stack.enter_context(self._ovs)
                for number in PORTS:
                    self._ovs.add_port(f"p{number}", number)
                self._ovs.ofctl("set-frags", "nx-match")
                self._ovs.stop_clock()
            self._ebpf = stack.enter_context(Bench(ports=len(PORTS)))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def play(self, program: Program, frames: Sequence[Frame]) -> Verdicts:
        """Load a program and try packets until one makes an unexplained difference."""
        return _Play(self._ebpf, self._ovs, program).all(frames)


class _Play:
    """One program on all switches.

    Where connections matter, Open vSwitch is asked before a difference by design can have any consequence,
    and after one all switches forget their connections.
    """

    def __init__(self, ebpf: Bench, ovs: OpenVSwitch | None, program: Program) -> None:
        self.ebpf, self.ovs, self.program = ebpf, ovs, program
        self.tracks = any(
            isinstance(action, Conntrack) for flow in program.flows for action in flow.instructions.apply
        )
        self.chooses = any(group.kind is GroupType.SELECT for group in program.groups)
        self.slow = SlowSwitch(program.flows, dict.fromkeys(PORTS, PortState()), groups=program.groups)
        self.verdicts, self.waiting = Verdicts(), list[_Tried]()
        ebpf.load(program.flows, program.groups)
        ebpf.watch()
        if ovs:
            ovs.replace_all(program.flows, program.groups)
        self._forget()

    def all(self, frames: Sequence[Frame]) -> Verdicts:
        for at, frame in enumerate(frames):
            if too_short_to_run(frame.data):
                continue
            if self._must_ask_before(frame):
                self._ask()
            if not self.verdicts.difference and not self._decide(at, frame):
                break
            if self.verdicts.difference:
                return self.verdicts
        self._ask()
        return self.verdicts

    def _must_ask_before(self, frame: Frame) -> bool:
        """Whether those waiting and this one cannot go in together."""
        if not self.waiting:
            return False
        last = self.waiting[-1]
        alone = not frame.marked or not last.frame.marked
        return (
            alone
            or len(self.waiting) == AT_ONCE
            or (self.tracks and (last.known is not None or last.frame.port != frame.port))
        )

    def _decide(self, at: int, frame: Frame) -> bool:
        """Interpreter and eBPF; False if the specification leaves more choices than can be tried."""
        over = any(one.state in OVER or one.going_on for one in self.slow.tracker.connections(0.0))
        ours = self.ebpf.decide_next(frame.port, frame.data)
        possible = self._possible(frame)
        if len(possible) > CHOICES:
            return False
        assert not any(outcome.ambiguous for outcome in possible), "two flows of the same priority match"
        twin = next((outcome for outcome in possible if agrees(ours, outcome)), None)
        if twin is None:
            self.verdicts.difference = Difference("eBPF and twin", at, _story(frame, ours, possible[0]))
        elif self.ovs and self.tracks and _held(frame.data, twin):
            self._ask()
            self._count("tracked fragment")  # it would be held, and let go at any time
            self._forget()
        else:
            self.waiting.append(_Tried(at, frame, possible, self._known(frame.data, possible, over)))
        return True

    def _known(self, frame: bytes, possible: Sequence[Outcome], over: bool) -> str | None:
        """Why Open vSwitch may do otherwise; `over` tells that some connection has ended."""
        if not self.ovs:
            return None
        names = (explain(frame, one, self.program.groups) for one in possible)
        return next(filter(None, names), None) or (REOPENED if over and is_opening(frame) else None)

    def _possible(self, frame: Frame) -> tuple[Outcome, ...]:
        if self.chooses:
            return tuple(islice(outcomes(self.slow, frame.port, frame.data), CHOICES + 1))
        return (self.slow.receive(frame.port, frame.data, 0.0),)

    def _ask(self) -> None:
        """Open vSwitch, about those waiting."""
        tried, self.waiting = self.waiting, []
        if not self.ovs or not tried:
            self.verdicts.same += len(tried)
            return
        for one, sent in self._answers(self.ovs, tried):
            same = any(sorted(outcome.outputs) == sorted(sent) for outcome in one.possible)
            if not same and not one.known:
                story = _ovs_story(one.frame, one.possible[0], sent)
                self.verdicts.difference = Difference("Open vSwitch and twin", one.at, story)
                return
            self.verdicts.same += same
            if not same and one.known:
                self._count(one.known)
            if self.tracks and one.known and not (same and one.known not in OTHER_CONNECTIONS):
                self._forget()

    def _answers(self, ovs: OpenVSwitch, tried: Sequence[_Tried]) -> Iterator[tuple[_Tried, Sent]]:
        sent = ovs.inject_all([(one.frame.port, one.frame.data) for one in tried])
        if len(tried) == 1:
            yield tried[0], sent
            return
        by_tail: dict[bytes, list[tuple[int, bytes]]] = {}
        for port, data in sent:
            by_tail.setdefault(tail(data), []).append((port, data))
        for one in tried:
            yield one, tuple(by_tail.pop(tail(one.frame.data), ()))
        if by_tail:
            story = f"{len(tried)} frames\nOpen vSwitch sent what nobody gave it: {by_tail}"
            self.verdicts.difference = Difference("Open vSwitch and twin", tried[-1].at, story)

    def _count(self, name: str) -> None:
        self.verdicts.by_design[name] = self.verdicts.by_design.get(name, 0) + 1

    def _forget(self) -> None:
        self.slow.tracker.flush()
        self.ebpf.forget_connections()
        if self.ovs:
            self.ovs.flush_connections()


def _held(frame: bytes, outcome: Outcome) -> bool:
    """Whether the connection tracker of Open vSwitch waits for the rest of the datagram."""
    try:
        return packet.parse(frame).fragment is not None and tracked(outcome)
    except packet.Malformed:
        return False


def _story(frame: Frame, ours: Decision, twin: Outcome) -> str:
    lines = [f"port {frame.port}, frame {frame.data.hex()}"]
    lines += [f"eBPF {_dropped(ours.drop)} table {ours.table}", *_listed(ours.frames)]
    lines += [f"  controller {event.reason_code}: {event.data.hex()}" for event in ours.to_controller]
    return "\n".join([*lines, *_told(twin)])


def _ovs_story(frame: Frame, twin: Outcome, sent: Sent) -> str:
    return "\n".join([f"port {frame.port}, frame {frame.data.hex()}", "ovs", *_listed(sent), *_told(twin)])


def _told(twin: Outcome) -> list[str]:
    lines = [f"twin {_dropped(twin.drop)} {twin.detail}", *_listed(twin.outputs)]
    lines += [f"  controller {sent.reason}: {sent.frame.hex()}" for sent in twin.to_controller]
    return lines + [f"  table {step.table}: {step.flow and step.flow.priority}" for step in twin.trail]


def _dropped(reason: DropReason | None) -> str:
    return "passes" if reason is None else f"drops: {reason.name}"


def _listed(sent: Sent) -> list[str]:
    return [f"  {port}: {data.hex()}" for port, data in sent]
