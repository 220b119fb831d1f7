"""Flow tables. What? The slow interpreter that says what flows mean; the dataplane must do the same.

A packet is looked up in table 0: of all flows whose match holds, the one with the highest priority is
carried out, found by trying them in order. No classifier, no cache, no compilation: read it as the
definition (OpenFlow 1.3.5, section 5; `ct`, registers and moves as ovs-actions(7) says).

What the standard leaves open, or does otherwise:
- Two flows of the highest priority match: undefined there. Here the smaller match (`Match` is ordered) wins,
  and the step names the rivals (`Step.rivals`), so that a test can refuse the case.
- A table without a matching flow drops the packet, and the action set with it (section 5.4).
- An action set that outputs nowhere drops the packet. Output to the ingress port is left out unless it says
  IN_PORT.
- `ct(table=N)` forks: the rest of the flow goes on with the packet as it was, then a copy with the ct
  fields, registers, metadata and action set of that moment enters table N. After any `ct` the rest sees
  ct fields of 0.
- A field that the packet has not is not matched by any value, and reads as 0 in a move.
- Writing a VLAN field of an untagged packet changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vnet.base.drop import DropReason
from vnet.openflow import cookie, packet
from vnet.openflow.conntrack import Tracker
from vnet.openflow.fields import FIELDS, REGISTERS
from vnet.openflow.flow import (
    Action,
    Conntrack,
    Flow,
    Match,
    Move,
    Output,
    OutputField,
    PopVlan,
    Port,
    PushVlan,
    SetField,
)

MAX_LOOKUPS = 16
"""Table lookups one packet is allowed, recirculations included; beyond it is dropped as a loop."""

PIPELINE_FIELDS = ("metadata", *REGISTERS)
CT_FIELDS = ("ct_state", "ct_zone", "ct_mark")
MAC_FIELDS = ("eth_dst", "eth_src")
WRITABLE = frozenset({*PIPELINE_FIELDS, *MAC_FIELDS, "vlan_vid", "vlan_pcp"})
"""What SetField and Move may write here: what vnet's own pipeline needs."""

ACTION_SET_ORDER = (PopVlan, PushVlan, SetField, Output)
"""The order in which an action set is carried out (section 5.10)."""


@dataclass(frozen=True, slots=True)
class PortState:
    """A port as the interpreter needs it. `flood` False excludes it from FLOOD (but not from ALL)."""

    up: bool = True
    flood: bool = True


@dataclass(frozen=True, slots=True)
class Step:
    """One lookup: the fields as they were then, the flow that was chosen (None = miss), its equals."""

    table: int
    flow: Flow | None
    fields: Mapping[str, int]
    rivals: tuple[Flow, ...] = ()


@dataclass(frozen=True, slots=True)
class ToController:
    """A packet-in: the frame cut to `max_len`. `miss` tells a table-miss flow from an explicit action."""

    table: int
    cookie: int
    frame: bytes
    total_len: int
    fields: Mapping[str, int]
    miss: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one packet: `drop` is None if it was output anywhere."""

    outputs: tuple[tuple[int, bytes], ...] = ()
    """(port, frame) in the order in which they left."""
    to_controller: tuple[ToController, ...] = ()
    drop: DropReason | None = None
    trail: tuple[Step, ...] = ()
    detail: str = ""
    """Why a packet is malformed."""

    @property
    def ambiguous(self) -> bool:
        """Whether some lookup had several flows of equal priority: then another switch may differ."""
        return any(step.rivals for step in self.trail)


def find(flows: Iterable[Flow], fields: Mapping[str, int]) -> tuple[Flow | None, tuple[Flow, ...]]:
    """The flow that a packet with these fields takes, and others of the same priority that match too."""
    fitting = [flow for flow in flows if matches(flow.match, fields)]
    if not fitting:
        return None, ()
    best = max(flow.priority for flow in fitting)
    chosen, *rivals = sorted((f for f in fitting if f.priority == best), key=lambda flow: flow.match)
    return chosen, tuple(rivals)


def matches(match: Match, fields: Mapping[str, int]) -> bool:
    """Whether every entry of the match holds; a field the packet has not holds for none."""
    return all(name in fields and fields[name] & mask == value for name, value, mask in match)


@dataclass(slots=True)
class _Walk:
    """One packet (or a copy that `ct` made) on its way: its bytes and what it carries beside them."""

    in_port: int
    frame: bytes
    table: int | None = 0
    registers: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PIPELINE_FIELDS, 0))
    tracked: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CT_FIELDS, 0))
    action_set: dict[object, Action] = field(default_factory=dict)

    def fields(self) -> dict[str, int]:
        """All that a match can see now."""
        parsed = packet.parse(self.frame).fields
        return {**parsed, "in_port": self.in_port, **self.registers, **self.tracked}

    def copy_to(self, table: int, tracked: dict[str, int]) -> _Walk:
        return _Walk(self.in_port, self.frame, table, dict(self.registers), tracked, dict(self.action_set))

    def write(self, name: str, value: int, mask: int) -> None:
        """Write the bits under `mask` of one field."""
        value = self.fields().get(name, 0) & ~mask | value & mask
        if name in self.registers:
            self.registers[name] = value
        elif name in MAC_FIELDS:
            self.frame = packet.set_mac(self.frame, name, value)
        elif name == "vlan_vid":
            self.frame = packet.set_vlan(self.frame, vid=value & 0xFFF)
        else:
            self.frame = packet.set_vlan(self.frame, pcp=value)


@dataclass(slots=True)
class _Run:
    """What one received packet has caused so far."""

    now_s: float
    pending: list[_Walk]
    outputs: list[tuple[int, bytes]] = field(default_factory=list)
    to_controller: list[ToController] = field(default_factory=list)
    trail: list[Step] = field(default_factory=list)
    failure: DropReason | None = None
    """Why the packet is lost if nothing was output; the first cause stays."""

    def fail(self, reason: DropReason) -> None:
        self.failure = self.failure or reason

    def outcome(self) -> Outcome:
        lost = not self.outputs and not self.to_controller
        return Outcome(
            outputs=tuple(self.outputs),
            to_controller=tuple(self.to_controller),
            drop=self._reason() if lost else None,
            trail=tuple(self.trail),
        )

    def _reason(self) -> DropReason:
        if self.failure:
            return self.failure
        last = self.trail[-1].flow
        return cookie.reason(last.cookie) if last else DropReason.TABLE_MISS


class _Lost(Exception):
    """This walk ends here, with its action set."""

    def __init__(self, reason: DropReason) -> None:
        self.reason = reason


class SlowSwitch:
    """Flows and ports of one switch, and its connections.

    Raises: ValueError for a flow whose actions this interpreter does not carry out.
    """

    def __init__(
        self, flows: Iterable[Flow], ports: Mapping[int, PortState], tracker: Tracker | None = None
    ) -> None:
        self.flows = tuple(flows)
        self.ports = ports
        self.tracker = tracker or Tracker()
        self._tables: dict[int, list[Flow]] = {}
        for flow in self.flows:
            check(flow)
            self._tables.setdefault(flow.table, []).append(flow)

    def receive(self, in_port: int, frame: bytes, now_s: float) -> Outcome:
        """What the switch does with a frame that came in by `in_port` at `now_s` (seconds, any epoch)."""
        port = self.ports.get(in_port)
        if port is None or not port.up:
            return Outcome(drop=DropReason.PORT_CLOSED)
        try:
            packet.parse(frame)
        except packet.Malformed as malformed:
            return Outcome(drop=DropReason.MALFORMED, detail=str(malformed))
        run = _Run(now_s, [_Walk(in_port, frame)])
        while run.pending:
            self._follow(run, run.pending.pop(0))
        return run.outcome()

    def _follow(self, run: _Run, walk: _Walk) -> None:
        try:
            while walk.table is not None:
                self._look_up(run, walk, walk.table)
            for action in _ordered(walk.action_set):
                self._act(run, walk, action)
        except _Lost as lost:
            run.fail(lost.reason)
        except packet.Malformed:
            run.fail(DropReason.MALFORMED)

    def _look_up(self, run: _Run, walk: _Walk, table: int) -> None:
        if len(run.trail) == MAX_LOOKUPS:
            raise _Lost(DropReason.LOOP)
        fields = walk.fields()
        flow, rivals = find(self._tables.get(table, ()), fields)
        run.trail.append(Step(table, flow, fields, rivals))
        if flow is None:
            raise _Lost(DropReason.TABLE_MISS)
        self._carry_out(run, walk, flow)

    def _carry_out(self, run: _Run, walk: _Walk, flow: Flow) -> None:
        instructions = flow.instructions
        for action in instructions.apply:
            self._act(run, walk, action)
        if instructions.clear:
            walk.action_set.clear()
        for action in instructions.write:
            walk.action_set[_slot(action)] = action
        if instructions.metadata:
            value, mask = instructions.metadata
            walk.write("metadata", value, mask)
        walk.table = instructions.goto

    def _act(self, run: _Run, walk: _Walk, action: Action) -> None:
        match action:
            case Output():
                self._output(run, walk, action)
            case OutputField():
                self._output(run, walk, Output(walk.fields().get(action.field, 0)))
            case PushVlan():
                walk.frame = packet.push_vlan(walk.frame, action.ethertype)
            case PopVlan():
                walk.frame = packet.pop_vlan(walk.frame)
            case SetField():
                full = FIELDS[action.field].full_mask
                walk.write(action.field, action.value, full if action.mask is None else action.mask)
            case Move():
                _move(walk, action)
            case Conntrack():
                self._conntrack(run, walk, action)

    def _output(self, run: _Run, walk: _Walk, action: Output) -> None:
        if action.port == Port.CONTROLLER:
            run.to_controller.append(_packet_in(run.trail[-1], walk, action.max_len))
            return
        if action.port in (Port.ALL, Port.FLOOD):
            self._flood(run, walk, only_flood=action.port == Port.FLOOD)
        elif action.port == Port.IN_PORT:
            self._send(run, walk, walk.in_port)
        elif action.port == walk.in_port:
            run.fail(DropReason.SAME_PORT)
        else:
            self._send(run, walk, action.port)

    def _flood(self, run: _Run, walk: _Walk, only_flood: bool) -> None:
        for number, port in sorted(self.ports.items()):
            if number != walk.in_port and port.up and (port.flood or not only_flood):
                self._send(run, walk, number)

    def _send(self, run: _Run, walk: _Walk, number: int) -> None:
        port = self.ports.get(number)
        if port is None or not port.up:
            run.fail(DropReason.NO_PORT)
        else:
            run.outputs.append((number, walk.frame))

    def _conntrack(self, run: _Run, walk: _Walk, action: Conntrack) -> None:
        parsed = packet.parse(walk.frame)
        tracked = self.tracker.track(parsed, action.zone, run.now_s)
        if tracked is None:
            raise _Lost(DropReason.FRAGMENT)
        mark = tracked.mark
        if action.commit:
            if not self.tracker.commit(parsed, action.zone, run.now_s, action.mark, action.force):
                raise _Lost(DropReason.CT_FULL)
            again = self.tracker.track(parsed, action.zone, run.now_s)
            mark = again.mark if again else mark
        if action.table is not None:
            now = {"ct_state": tracked.state, "ct_zone": action.zone, "ct_mark": mark}
            run.pending.append(walk.copy_to(action.table, now))
        walk.tracked = dict.fromkeys(CT_FIELDS, 0)


def check(flow: Flow) -> None:
    """Raise ValueError if the interpreter cannot carry the flow out."""
    instructions = flow.instructions
    if instructions.goto is not None and instructions.goto <= flow.table:
        raise ValueError(f"table {flow.table}: goto {instructions.goto} does not lead forward")
    for action in instructions.apply + instructions.write:
        target = {SetField: "field", Move: "target"}.get(type(action))
        if target and getattr(action, target) not in WRITABLE:
            raise ValueError(f"cannot write {getattr(action, target)} here")
    for action in instructions.write:
        if type(action) not in ACTION_SET_ORDER:
            raise ValueError(f"{type(action).__name__} has no place in an action set")


def _slot(action: Action) -> object:
    """An action set holds one action of each kind, and one SetField of each field."""
    return (SetField, action.field) if isinstance(action, SetField) else type(action)


def _ordered(action_set: Mapping[object, Action]) -> list[Action]:
    return sorted(action_set.values(), key=lambda action: ACTION_SET_ORDER.index(type(action)))


def _move(walk: _Walk, action: Move) -> None:
    bits = (1 << action.bits) - 1
    value = walk.fields().get(action.source, 0) >> action.source_offset & bits
    walk.write(action.target, value << action.target_offset, bits << action.target_offset)


def _packet_in(step: Step, walk: _Walk, max_len: int) -> ToController:
    flow = step.flow
    assert flow is not None
    return ToController(
        table=flow.table,
        cookie=flow.cookie,
        frame=walk.frame[:max_len],
        total_len=len(walk.frame),
        fields=walk.fields(),
        miss=flow.priority == 0 and not flow.match.entries,
    )
