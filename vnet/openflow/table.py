"""Flow tables. What? The slow interpreter that says what flows mean; the dataplane must do the same.

A packet is looked up in table 0: of all flows whose match holds, the one with the highest priority is
carried out, found by trying them in order. No classifier, no cache, no compilation: read it as the
definition (OpenFlow 1.3.5, section 5; `ct`, `resubmit`, registers and moves as ovs-actions(7) says).

What the standard leaves open, or does otherwise:
- Two flows of the highest priority match: undefined there. Here the smaller match (`Match` is ordered) wins,
  and the step names the rivals (`Step.rivals`), so that a test can refuse the case.
- A table without a matching flow drops the packet, and the action set with it (section 5.4).
- An action set that outputs nowhere drops the packet. Output to the ingress port is left out unless it says
  IN_PORT.
- `ct(table=N)` forks: a copy with the ct fields, registers, metadata and action set of that moment enters
  table N at once, as in Open vSwitch's datapath (`dp_execute_cb`), so that what it commits is seen by what
  follows. Then the rest of the flow goes on with the packet as it was (translated, if `nat` did so). After
  any `ct` the rest sees ct fields of 0.
- `resubmit` searches with another in_port, but actions see the old one; all else that the found flows change
  stays changed. A miss there, or behind a goto from there, only ends the detour.
- A field that the packet has not is not matched by any value, and reads as 0 in a move; writing it
  changes nothing. What popping or pushing uncovers or hides is read again.
- An expired TTL ends the packet, with its action set; in a bucket, the bucket's copy of it.
- NORMAL takes every port for a trunk of all VLANs; a frame of VID 0 belongs to VLAN 0, tagged or not.

How Open vSwitch (3.1) differs, by design:
- it corrects "checksums" inside the payload of later IPv4 fragments; here they have no layer 4;
- a label's TC is taken from the DSCP there, its value is 2 before IPv6, its TTL 64 before what is no IP;
- a pushed tag has VID 0 and priority 0 there, also in front of another;
- EtherType, protocol and bottom of stack are not written there;
- a frame that loses a label may get too short for Ethernet there;
- a popped tag uncovers only what it has parsed (one tag with vlan-limit=1): then it goes on with the type
  it saw before;
- an action set that pops the only tag and writes the VID pushes one there;
- after an expired TTL the calling table of a `resubmit` and the action set are still carried out there;
- NORMAL removes a tag of VID 0 there, and drops more group addresses than those 802.1Q reserves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from vnet.base.drop import DropReason
from vnet.openflow import cookie, packet, rewrite
from vnet.openflow.action_set import check_set, ordered, put
from vnet.openflow.answer import advertised, answer
from vnet.openflow.conntrack import Tracker, connection_ends, original_fields
from vnet.openflow.fdb import MULTICAST, RESERVED, Fdb
from vnet.openflow.fields import FIELDS, REGISTERS, CtState
from vnet.openflow.flow import (
    Action,
    Advertise,
    Conntrack,
    ConntrackClear,
    CopyTtlIn,
    CopyTtlOut,
    DecIpTtl,
    DecMplsTtl,
    Flow,
    IcmpError,
    Instructions,
    Match,
    Move,
    Output,
    OutputField,
    PopMpls,
    PopVlan,
    Port,
    PushMpls,
    PushVlan,
    Reject,
    Resubmit,
    SetField,
    SetIpTtl,
    SetMplsTtl,
    ToGroup,
    rejects,
)
from vnet.openflow.group import ANY_GROUP, Band, BandType, Bucket, Group, GroupType
from vnet.openflow.message import PacketInReason

MAX_LOOKUPS = 64
"""Table lookups one packet is allowed, recirculations included; beyond it is dropped as a loop."""
MAX_GROUP_DEPTH = 8
"""Groups within groups; beyond the bucket is dropped as a loop."""

PIPELINE_FIELDS = ("metadata", "tunnel_id", *REGISTERS)
UNTRACKED: Mapping[str, int] = {
    **dict.fromkeys(("ct_state", "ct_zone", "ct_mark", "ct_label"), 0),
    **original_fields(None),
}
"""The fields of connections before a packet is tracked, and after."""


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
    """A packet-in with the whole frame, as packets are never buffered (section 7.4.1)."""

    table: int
    cookie: int
    frame: bytes
    fields: Mapping[str, int]
    reason: PacketInReason

    @property
    def miss(self) -> bool:
        """Whether a table-miss flow sent it, and not an explicit action."""
        return self.reason is PacketInReason.NO_MATCH


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one packet: `drop` is None if it was output anywhere.

    Of a packet that was rejected the answer to its sender is the only output, and `drop` says why.
    """

    outputs: tuple[tuple[int, bytes], ...] = ()
    """(port, frame) in the order in which they left."""
    to_controller: tuple[ToController, ...] = ()
    drop: DropReason | None = None
    trail: tuple[Step, ...] = ()
    detail: str = ""
    """Why a packet is malformed."""
    failure: DropReason | None = None
    """Why some copy of the packet was lost, though another may have been output; the first cause."""

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


Meters = Callable[[int, int, float], Band | None]
"""(meter, bytes of the packet, now in seconds) -> the band that acts on the packet, None if it passes."""
Chooser = Callable[[Group, Sequence[int], Mapping[str, int]], int]
"""(SELECT group, positions of its live buckets with a weight, the packet's fields) -> one of them."""


def unmetered(_meter: int, _length: int, _now_s: float) -> None:
    """The policy of meters whose rate is never exceeded."""


def first(_group: Group, live: Sequence[int], _fields: Mapping[str, int]) -> int:
    """The chooser that always takes the first bucket."""
    return live[0]


@dataclass(frozen=True, slots=True)
class _Translated:
    """What the tracker of a zone made of a packet: the frame before and after, and SNAT or DNAT."""

    zone: int
    before: bytes
    after: bytes
    bits: int


@dataclass(slots=True)
class _Walk:
    """One packet (or a copy that `ct` made) on its way: its bytes and what it carries beside them."""

    in_port: int
    frame: bytes
    table: int = 0
    registers: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PIPELINE_FIELDS, 0))
    tracked: dict[str, int] = field(default_factory=lambda: dict(UNTRACKED))
    action_set: dict[object, Action] = field(default_factory=dict)
    flow: Flow | None = None
    """Whose actions are being carried out."""
    translated: _Translated | None = None
    """By the last tracker that it passed."""

    def fields(self) -> dict[str, int]:
        """All that a match can see now."""
        parsed = packet.parse(self.frame).fields
        return {**parsed, "in_port": self.in_port, **self.registers, **self.tracked}

    def copy(self) -> _Walk:
        return _Walk(
            self.in_port,
            self.frame,
            self.table,
            dict(self.registers),
            dict(self.tracked),
            dict(self.action_set),
            self.flow,
            self.translated,
        )

    def write(self, name: str, value: int, mask: int) -> None:
        """Write the bits under `mask` of one field."""
        value = self.fields().get(name, 0) & ~mask | value & mask
        if name in self.registers:
            self.registers[name] = value
        else:
            self.frame = rewrite.set_field(self.frame, name, value)

    def ttl_left(self, name: str) -> bool:
        """Count one TTL down, if the packet has it; False when that would end it."""
        ttl = self.fields().get(name)
        if ttl is None:
            return True
        if ttl <= 1:
            return False
        self.frame = rewrite.set_field(self.frame, name, ttl - 1)
        return True


@dataclass(slots=True)
class _Run:
    """What one received packet has caused so far."""

    now_s: float
    outputs: list[tuple[int, bytes]] = field(default_factory=list)
    to_controller: list[ToController] = field(default_factory=list)
    trail: list[Step] = field(default_factory=list)
    rejected: Reject | None = None
    """What the sender is told if it is lost."""
    failure: DropReason | None = None
    """Why the packet is lost if nothing was output; the first cause stays, SAME_PORT if there is no other."""

    def fail(self, reason: DropReason) -> None:
        if self.failure in (None, DropReason.SAME_PORT):
            self.failure = reason

    def outcome(self, in_port: int, frame: bytes) -> Outcome:
        """What became of the frame that came in by a port."""
        lost = not self.outputs and not self.to_controller
        told = answer(frame, self.rejected.error) if lost and self.rejected else None
        return Outcome(
            outputs=((in_port, told),) if told else tuple(self.outputs),
            to_controller=tuple(self.to_controller),
            drop=self._reason() if lost else None,
            trail=tuple(self.trail),
            failure=self.failure,
        )

    def _reason(self) -> DropReason:
        if self.failure:
            return self.failure
        last = next((step.flow for step in reversed(self.trail) if step.flow), None)
        return cookie.reason(last.cookie) if last else DropReason.TABLE_MISS


class _Lost(Exception):
    """This walk ends here, with its action set."""

    def __init__(self, reason: DropReason) -> None:
        self.reason = reason


class SlowSwitch:
    """Flows, groups and ports of one switch, its connections and the addresses it has learnt.

    `meters` and `choose` decide what a test wants decided; `tell_ttl` says whether any controller wants
    packets whose TTL has expired.

    Raises: ValueError for a flow or group whose actions this interpreter does not carry out.
    """

    def __init__(
        self,
        flows: Iterable[Flow],
        ports: Mapping[int, PortState],
        tracker: Tracker | None = None,
        *,
        groups: Iterable[Group] = (),
        meters: Meters = unmetered,
        choose: Chooser = first,
        fdb: Fdb | None = None,
        tell_ttl: bool = True,
    ) -> None:
        self.flows = tuple(flows)
        self.ports = ports
        self.tracker = tracker or Tracker()
        self.groups = {group.number: group for group in groups}
        self.meters, self.choose, self.tell_ttl = meters, choose, tell_ttl
        self.fdb = fdb or Fdb()
        self._tables: dict[int, list[Flow]] = {}
        for flow in self.flows:
            check(flow)
            self._tables.setdefault(flow.table, []).append(flow)
        for group in self.groups.values():
            check_group(group)

    def receive(self, in_port: int, frame: bytes, now_s: float) -> Outcome:
        """What the switch does with a frame that came in by `in_port` at `now_s` (seconds, any epoch)."""
        port = self.ports.get(in_port)
        if port is None or not port.up:
            return Outcome(drop=DropReason.PORT_CLOSED)
        try:
            packet.parse(frame)
        except packet.Malformed as malformed:
            return Outcome(drop=DropReason.MALFORMED, detail=str(malformed))
        self.tracker.arrived()
        run = _Run(now_s)
        self._follow(run, _Walk(in_port, frame))
        return run.outcome(in_port, frame)

    # -- pipeline ---------------------------------------------------------------------------------

    def _follow(self, run: _Run, walk: _Walk) -> None:
        try:
            if not self._pipeline(run, walk, walk.in_port):
                raise _Lost(DropReason.TABLE_MISS)
            for action in ordered(walk.action_set):
                self._act(run, walk, action)
        except _Lost as lost:
            run.fail(lost.reason)
        except packet.Malformed:
            run.fail(DropReason.MALFORMED)

    def _pipeline(self, run: _Run, walk: _Walk, in_port: int) -> bool:
        """From the walk's table on, as far as gotos lead; `in_port` is what the first search sees.

        Returns: False after a miss.
        """
        while True:
            flow = walk.flow = self._look_up(run, walk, in_port)
            if flow is None:
                return False
            goto = self._carry_out(run, walk, flow)
            if goto is None:
                return True
            walk.table, in_port = goto, walk.in_port

    def _look_up(self, run: _Run, walk: _Walk, in_port: int) -> Flow | None:
        if len(run.trail) == MAX_LOOKUPS:
            raise _Lost(DropReason.LOOP)
        fields = {**walk.fields(), "in_port": in_port}
        flow, rivals = find(self._tables.get(walk.table, ()), fields)
        run.trail.append(Step(walk.table, flow, fields, rivals))
        return flow

    def _carry_out(self, run: _Run, walk: _Walk, flow: Flow) -> int | None:
        instructions = flow.instructions
        if instructions.meter is not None:
            self._meter(run, walk, instructions.meter)
        for action in instructions.apply:
            self._act(run, walk, action)
        if instructions.clear:
            walk.action_set.clear()
        for action in instructions.write:
            put(walk.action_set, action)
        if instructions.metadata:
            value, mask = instructions.metadata
            walk.write("metadata", value, mask)
        return instructions.goto

    def _meter(self, run: _Run, walk: _Walk, meter: int) -> None:
        band = self.meters(meter, len(walk.frame), run.now_s)
        if band and band.kind is BandType.DROP:
            raise _Lost(DropReason.RATE)
        if band:
            walk.frame = rewrite.raise_drop_precedence(walk.frame, band.precedence)

    def _act(self, run: _Run, walk: _Walk, action: Action, depth: int = 0) -> None:
        match action:
            case Output():
                self._output(run, walk, action)
            case OutputField(field, offset, bits):
                held = walk.fields().get(field, 0) >> offset
                self._output(run, walk, Output(held if bits is None else held & (1 << bits) - 1))
            case ToGroup():
                self._group(run, walk, action.group, depth)
            case DecIpTtl(error):
                self._count_down(run, walk, "nw_ttl", error)
            case DecMplsTtl():
                self._count_down(run, walk, "mpls_ttl")
            case Resubmit():
                self._resubmit(run, walk, action)
            case Conntrack():
                self._conntrack(run, walk, action)
            case Reject():
                run.rejected = action
            case _:
                _change(walk, action)

    def _count_down(self, run: _Run, walk: _Walk, name: str, error: IcmpError | None = None) -> None:
        if walk.ttl_left(name):
            return
        if error is not None:
            run.rejected = Reject(error)
        elif self.tell_ttl:
            run.to_controller.append(_packet_in(walk, PacketInReason.INVALID_TTL))
        raise _Lost(DropReason.TTL)

    def _resubmit(self, run: _Run, walk: _Walk, action: Resubmit) -> None:
        flow, table = walk.flow, walk.table
        walk.table = table if action.table is None else action.table
        self._pipeline(run, walk, walk.in_port if action.port is None else action.port)
        walk.flow, walk.table = flow, table

    # -- groups -----------------------------------------------------------------------------------

    def _group(self, run: _Run, walk: _Walk, number: int, depth: int) -> None:
        walk.fields()  # what cannot be read is lost here
        group = self.groups.get(number)
        if depth == MAX_GROUP_DEPTH:
            raise _Lost(DropReason.LOOP)
        buckets = self._buckets(group, walk) if group else ()
        if not buckets:
            run.fail(DropReason.NO_BUCKET)
        for bucket in buckets:
            self._bucket(run, walk.copy(), bucket, depth + 1)

    def _bucket(self, run: _Run, walk: _Walk, bucket: Bucket, depth: int) -> None:
        actions: dict[object, Action] = {}
        for action in bucket.actions:
            put(actions, action)
        try:
            for action in ordered(actions):
                self._act(run, walk, action, depth)
        except _Lost as lost:
            run.fail(lost.reason)
        except packet.Malformed:
            run.fail(DropReason.MALFORMED)

    def _buckets(self, group: Group, walk: _Walk) -> tuple[Bucket, ...]:
        """Those that the packet takes (section 5.6.1)."""
        if group.kind in (GroupType.ALL, GroupType.INDIRECT):
            return group.buckets
        live = [number for number, bucket in enumerate(group.buckets) if self._alive(bucket)]
        if group.kind is GroupType.FAST_FAILOVER:
            return tuple(group.buckets[number] for number in live[:1])
        weighty = [number for number in live if group.buckets[number].weight]
        return (group.buckets[self.choose(group, weighty, walk.fields())],) if weighty else ()

    def _alive(self, bucket: Bucket, depth: int = 0) -> bool:
        if bucket.watch_port == Port.ANY and bucket.watch_group == ANY_GROUP:
            return True
        port, group = self.ports.get(bucket.watch_port), self.groups.get(bucket.watch_group)
        if port and port.up:
            return True
        if group is None or depth == MAX_GROUP_DEPTH:
            return False
        return any(self._alive(watched, depth + 1) for watched in group.buckets)

    # -- output -----------------------------------------------------------------------------------

    def _output(self, run: _Run, walk: _Walk, action: Output) -> None:
        if action.port == Port.CONTROLLER:
            run.to_controller.append(_packet_in(walk))
        elif action.port in (Port.ALL, Port.FLOOD):
            self._flood(run, walk, only_flood=action.port == Port.FLOOD)
        elif action.port == Port.NORMAL:
            self._normal(run, walk)
        elif action.port == Port.IN_PORT:
            self._send(run, walk, walk.in_port)
        elif action.port == walk.in_port:
            run.fail(DropReason.SAME_PORT)
        else:
            self._send(run, walk, action.port)

    def _normal(self, run: _Run, walk: _Walk) -> None:
        """Learn and forward as a bridge (IEEE 802.1Q, 8.7 and 8.8)."""
        fields = walk.fields()
        source, target, vlan = fields["eth_src"], fields["eth_dst"], fields["vlan_vid"] & 0xFFF
        if target in RESERVED:
            return
        self.fdb = self.fdb.learn(vlan, source, walk.in_port, run.now_s)
        port = None if target & MULTICAST else self.fdb.find(vlan, target, run.now_s)
        if port is None:
            self._flood(run, walk, only_flood=True)
        else:
            self._output(run, walk, Output(port))

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

    # -- connections ------------------------------------------------------------------------------

    def _conntrack(self, run: _Run, walk: _Walk, action: Conntrack) -> None:
        zone = action.zone if action.zone_field is None else _part(walk, *action.zone_field)
        action = _with_moves(walk, action)
        known = _known_translation(walk, zone)
        frame = known.before if known else walk.frame
        passed = self.tracker.send(packet.parse(frame), zone, run.now_s, action)
        if isinstance(passed, DropReason):
            raise _Lost(passed)
        bits = passed.tracked.state & (CtState.SNAT | CtState.DNAT)
        if known:
            bits = known.bits
        else:
            walk.translated = _Translated(zone, frame, passed.frame, bits) if bits else None
            walk.frame = passed.frame
        if action.table is not None:
            fork = walk.copy()
            fork.table = action.table
            fork.tracked = {
                "ct_state": passed.tracked.state | bits,
                "ct_zone": zone,
                "ct_mark": passed.tracked.mark,
                "ct_label": passed.tracked.label,
                **original_fields(passed.tracked.original),
            }
            self._follow(run, fork)
        _forget(walk)


def _with_moves(walk: _Walk, action: Conntrack) -> Conntrack:
    """The action with what it copies as what it writes."""
    if not action.moves:
        return action
    written = {"ct_mark": action.mark or (0, 0), "ct_label": action.label or (0, 0)}
    fields = walk.fields()
    for name, (value, mask) in written.items():
        fields[name] = fields[name] & ~mask | value & mask
    for move in action.moves:
        moved = fields.get(move.source, 0) >> move.source_offset << move.target_offset
        value, mask = fields[move.target], move.target_mask
        fields[move.target] = value & ~mask | moved & mask
        written[move.target] = 0, written[move.target][1] | mask
    mark, label = ((fields[name], mask) for name, (_, mask) in written.items())
    return replace(action, mark=mark, label=label, moves=())


def _known_translation(walk: _Walk, zone: int) -> _Translated | None:
    """What the zone's tracker made of the packet, if it was the last and nobody changed the packet since."""
    made = walk.translated
    if made is None or made.zone != zone or connection_ends(made.after) != connection_ends(walk.frame):
        return None
    return made


def _forget(walk: _Walk) -> None:
    walk.tracked = dict(UNTRACKED)


def _change(walk: _Walk, action: Action) -> None:
    """Carry out an action that concerns this packet only."""
    match action:
        case PushVlan():
            walk.frame = rewrite.push_vlan(walk.frame, action.ethertype)
        case PopVlan():
            walk.frame = rewrite.pop_vlan(walk.frame)
        case PushMpls():
            walk.frame = rewrite.push_mpls(walk.frame, action.ethertype)
        case PopMpls():
            walk.frame = rewrite.pop_mpls(walk.frame, action.ethertype)
        case SetMplsTtl():
            walk.frame = rewrite.set_field(walk.frame, "mpls_ttl", action.ttl)
        case SetIpTtl():
            walk.frame = rewrite.set_field(walk.frame, "nw_ttl", action.ttl)
        case CopyTtlOut():
            walk.frame = rewrite.copy_ttl_out(walk.frame)
        case CopyTtlIn():
            walk.frame = rewrite.copy_ttl_in(walk.frame)
        case SetField():
            full = FIELDS[action.field].full_mask
            walk.write(action.field, action.value, full if action.mask is None else action.mask)
        case Move():
            value = _part(walk, action.source, action.source_offset, action.bits)
            walk.write(action.target, value << action.target_offset, action.target_mask)
        case Advertise(mac):
            walk.frame = advertised(walk.frame, mac)
        case ConntrackClear():
            walk.translated = None
            _forget(walk)
        case _:
            raise AssertionError(action)


def _part(walk: _Walk, name: str, offset: int, bits: int) -> int:
    return walk.fields().get(name, 0) >> offset & (1 << bits) - 1


def check(flow: Flow) -> None:
    """Raise ValueError if the interpreter cannot carry the flow out."""
    instructions = flow.instructions
    if instructions.goto is not None and instructions.goto <= flow.table:
        raise ValueError(f"table {flow.table}: goto {instructions.goto} does not lead forward")
    if rejects(instructions.apply) and instructions != Instructions(apply=instructions.apply[:1]):
        raise ValueError(f"table {flow.table}: a flow that rejects does nothing else")
    _check_targets(instructions.apply + instructions.write)
    check_set(instructions.write)


def check_group(group: Group) -> None:
    """The same for a group's buckets."""
    for bucket in group.buckets:
        _check_targets(bucket.actions)
        check_set(bucket.actions)


def _check_targets(actions: Iterable[Action]) -> None:
    for action in actions:
        match action:
            case SetField(name, value, mask):
                fits = FIELDS[name].takes(value, FIELDS[name].full_mask if mask is None else mask)
            case Move(target=name):
                fits = FIELDS[name].writable and not FIELDS[name].reshapes
            case _:
                continue
        if not fits:
            raise ValueError(f"cannot write {name} here")


def _packet_in(walk: _Walk, reason: PacketInReason | None = None) -> ToController:
    flow = walk.flow
    assert flow is not None
    by_miss = flow.priority == 0 and not flow.match.entries
    return ToController(
        table=flow.table,
        cookie=flow.cookie,
        frame=walk.frame,
        fields=walk.fields(),
        reason=reason or (PacketInReason.NO_MATCH if by_miss else PacketInReason.ACTION),
    )
