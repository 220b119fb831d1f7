"""What flows do to whole sets of packets at once.

`Walk(flows).leaves(region, state)` splits a set of packets by what becomes of them: each leaf is a
set whose packets take the same flows. A single packet is a set too, so this is also a plain evaluator.
The connection tracker is not run but assumed: `state` is the `ct_state` that it answers.

It follows what vnet's flows are made of (apply-actions and goto; registers, moves, ct, push, pop and
output) and refuses the rest with `Unfollowable` rather than decide on a guess.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import itemgetter

from vnet.base.drop import DropReason
from vnet.base.errors import VnetError
from vnet.openflow import cookie
from vnet.openflow.fields import FIELDS, REGISTERS, VLAN_PRESENT
from vnet.openflow.flow import (
    Action,
    Advertise,
    Conntrack,
    DecIpTtl,
    Flow,
    Instructions,
    Move,
    Output,
    OutputField,
    PopVlan,
    Port,
    PushVlan,
    Reject,
    SetField,
    SetIpTtl,
    rejects,
)
from vnet.policy.entry import NOTHING
from vnet.policy.space import Cube, Region

ADDRESSES = frozenset({"eth_dst", "ipv4_dst", "ipv6_dst"})
EVERYWHERE = (Port.ALL, Port.FLOOD, Port.NORMAL)


class Unfollowable(VnetError):
    """A flow does something this evaluator has no arithmetic for; nothing can be proved about it."""


@dataclass(frozen=True, slots=True)
class Slice:
    """The low `bits` bits of a rewritten field are those of a header field, its other bits are `above`."""

    source: str
    bits: int
    above: int = 0


Binding = int | Slice
"""What a field holds that the header does not (any more) say: a number, or part of another field."""
Bindings = Mapping[str, Binding]

ADVERTISED: Bindings = dict.fromkeys(("ipv6_src", "ipv6_dst", "icmpv6_type"), 0)
"""A neighbour's answer is asked for by no flow: it leaves at once."""
LOWERED: Binding = Slice("nw_ttl", 0, -1)
"""What a TTL is that was counted down: one that no flow may ask for any more."""

START: Bindings = dict.fromkeys((*REGISTERS, "metadata", "ct_state", "ct_zone", "ct_mark"), 0)


@dataclass(frozen=True, slots=True)
class Leaf:
    """Packets of one fate: `trail` the flows they took, `outputs` the ports they left by (none: dropped)."""

    region: Region
    trail: tuple[Flow, ...]
    outputs: tuple[int, ...]
    missed: bool = False
    """Whether no flow of the last table took them."""

    @property
    def drop(self) -> DropReason | None:
        """Why they were lost; None if they left by some port."""
        if self.outputs:
            return None
        return DropReason.TABLE_MISS if self.missed else cookie.reason(self.trail[-1].cookie)

    def reaches(self, port: int) -> bool:
        """Whether the packets leave by this port."""
        return port in self.outputs or any(where in self.outputs for where in EVERYWHERE)


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """Packets about to be looked up in a table; equal to others that fare the same, however they came."""

    table: int
    region: Region
    bindings: Bindings = field(default_factory=lambda: START)
    trail: tuple[Flow, ...] = ()
    outputs: tuple[int, ...] = ()

    @property
    def _key(self) -> Hashable:
        return self.table, self.region.key, frozenset(self.bindings.items()), self.outputs

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Step) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked: in which state of the connection, up to which tables, lost packets too or not."""

    state: int
    mark: int = 0
    stop: frozenset[int] = frozenset()
    lost: bool = True


@dataclass(slots=True)
class _Course:
    """One flow being carried out."""

    bindings: dict[str, Binding]
    in_port: int | None
    outputs: list[int] = field(default_factory=list)
    onward: list[tuple[int, Bindings]] = field(default_factory=list)


class Walk:
    """The flows of a switch, ready to be asked."""

    def __init__(self, flows: Iterable[Flow]) -> None:
        by_table: dict[int, list[Flow]] = defaultdict(list)
        for flow in flows:
            by_table[flow.table].append(flow)
        self._tables = {number: _Table(table) for number, table in by_table.items()}
        self._ahead: dict[tuple[int, int], frozenset[str]] = {}
        self._addressed = frozenset(n for n, table in self._tables.items() if table.reads(ADDRESSES))

    def leaves(self, region: Region, state: int, mark: int = 0) -> Iterator[Leaf]:
        """The fates of the packets of `region`, which must fix `in_port`; no leaf is empty.

        Args:
            mark: the `ct_mark` of their connection.
        """
        yield from _leaves(self._onward(Step(0, region), _Question(state, mark)))

    def begin(self, region: Region) -> tuple[Step, ...]:
        """As far as packets get before a table looks at their destination: shared by all destinations.

        What is lost on the way is left out.
        """
        question = _Question(0, stop=self._addressed, lost=False)
        steps = tuple(self._onward(Step(0, region), question))
        if not all(isinstance(step, Step) for step in steps):
            raise Unfollowable("packets leave before their destination was looked at")
        return tuple(step for step in steps if isinstance(step, Step))

    def finish(self, begun: Iterable[Step], narrow: Narrow, state: int) -> Iterator[Leaf]:
        """Those packets of `begin`, of what `narrow` leaves of each set, that leave by some port."""
        for step in begun:
            rest = narrow(step.region)
            if rest is not None and rest.some() is not None:
                yield from _leaves(self._onward(replace(step, region=rest), _Question(state, lost=False)))

    def told_apart(self, begun: Iterable[Step], states: Iterable[int]) -> Alike:
        """The steps without what their regions say of fields that no flow ahead looks at: equal for senders
        of one identity in one network, say.

        There may be more packets in them than in the steps, never fewer: holes in such fields are filled, and
        without `in_port` a packet is also sent to where it came from, which otherwise it is not.
        """
        asked = tuple(states)
        return frozenset(self._without_the_rest(step, asked) for step in begun)

    def _without_the_rest(self, step: Step, states: Iterable[int]) -> Step:
        fields = frozenset().union(*(self._fields_ahead(step.table, state) for state in states))
        cube = {name: bits for name, bits in step.region.cube.items() if name in fields}
        return replace(step, region=Region(cube, tuple(h for h in step.region.holes if h.keys() <= fields)))

    def are_lost(self, steps: Alike, narrow: Narrow, state: int) -> bool:
        """Whether no packet leaves by any port, of what `narrow` leaves of what was not told apart."""
        return next(self.finish(steps, narrow, state), None) is None

    def _fields_ahead(self, table: int, state: int) -> frozenset[str]:
        """What the flows of a table and of all those behind it look at, in this state of the connection."""
        if (table, state) not in self._ahead:
            seen, waiting, fields = {table}, [table], set[str]()
            while waiting:
                looked = self._tables.get(waiting.pop(), _NO_TABLE)
                fields |= looked.fields(state)
                waiting += looked.next - seen
                seen |= looked.next
            self._ahead[table, state] = frozenset(fields)
        return self._ahead[table, state]

    def _onward(self, step: Step, question: _Question) -> Iterator[Leaf | Step]:
        if step.table in question.stop:
            yield step
            return
        left = step.region
        table = self._tables.get(step.table)
        for flow, cube in table.candidates(step) if table else ():
            taken = left.meet(cube) if question.lost or not _drops(step, flow) else None
            if taken is not None and taken.some() is not None:
                yield from self._carry_out(flow, step, taken, question)
            rest = left.minus(cube)
            if rest is None:
                return
            left = rest
        if (question.lost or step.outputs) and left.some() is not None:
            yield Leaf(left, step.trail, step.outputs, missed=True)

    def _carry_out(self, flow: Flow, step: Step, taken: Region, question: _Question) -> Iterator[Leaf | Step]:
        course = _Course(dict(step.bindings), _fixed(step, "in_port", taken.cube))
        try:
            _apply(course, flow.instructions, question)
        except Unfollowable as error:
            raise Unfollowable(f"{error} ({_place(flow)})") from None
        trail, outputs = (*step.trail, flow), (*step.outputs, *course.outputs)
        if not course.onward:
            if question.lost or outputs:
                yield Leaf(taken, trail, outputs)
        elif len(course.onward) == 1:
            table, bindings = course.onward[0]
            yield from self._onward(Step(table, taken, bindings, trail, outputs), question)
        else:
            raise Unfollowable(f"table {flow.table}: a flow both goes on and resumes after ct")


def _place(flow: Flow) -> str:
    return f"the flow of table {flow.table} with priority {flow.priority} and cookie {flow.cookie:#x}"


def _drops(step: Step, flow: Flow) -> bool:
    """Whether packets that take the flow are lost: nothing is done with them, then or before."""
    instructions = flow.instructions
    return (instructions == NOTHING or rejects(instructions.apply)) and not step.outputs


def _leaves(fates: Iterable[Leaf | Step]) -> Iterator[Leaf]:
    for fate in fates:
        assert isinstance(fate, Leaf), "nothing stops where no stop was asked for"
        yield fate


def _apply(course: _Course, instructions: Instructions, question: _Question) -> None:
    if instructions.write or instructions.clear or instructions.meter:
        raise Unfollowable("write-actions, clear-actions and meters are not followed")
    for action in instructions.apply:
        _act(course, action, question)
    if instructions.metadata:
        value, mask = instructions.metadata
        _act(course, SetField("metadata", value, mask), question)
    if instructions.goto is not None:
        course.onward.append((instructions.goto, course.bindings))


def _act(course: _Course, action: Action, question: _Question) -> None:
    match action:
        case Output(port):
            _output(course, port)
        case OutputField(name, 0, None):
            _output(course, _number(course.bindings, name))
        case PushVlan():
            course.bindings["vlan_vid"] = VLAN_PRESENT
        case PopVlan():
            course.bindings["vlan_vid"] = 0
        case SetField(name, value, mask):
            full = FIELDS[name].full_mask
            partial = mask is not None and mask != full
            kept = _number(course.bindings, name) & ~(mask or 0) if partial else 0
            course.bindings[name] = kept | value & (full if mask is None else mask)
        case Move():
            _move(course.bindings, action)
        case Advertise():
            course.bindings |= ADVERTISED
        case DecIpTtl():
            course.bindings["nw_ttl"] = LOWERED
        case SetIpTtl(ttl):
            course.bindings["nw_ttl"] = ttl
        case Reject():
            pass  # to the sender goes an answer, to the receiver nothing
        case Conntrack(zone=zone, table=table, nat=None, zone_field=None):
            if table is not None and question.stop:
                raise Unfollowable("a connection is asked for before a table has looked at the destination")
            if table is not None:
                tracked = {"ct_state": question.state, "ct_zone": zone, "ct_mark": question.mark}
                course.onward.append((table, {**course.bindings, **tracked}))
        case _:
            raise Unfollowable(f"{type(action).__name__} is not followed")


def _output(course: _Course, port: int) -> None:
    if port == Port.IN_PORT and course.in_port is not None:
        course.outputs.append(course.in_port)
    elif port not in (course.in_port, Port.CONTROLLER):
        course.outputs.append(port)


def _number(bindings: Bindings, name: str) -> int:
    held = bindings.get(name)
    if not isinstance(held, int):
        raise Unfollowable(f"{name} does not hold a known number")
    return held


def _move(bindings: dict[str, Binding], move: Move) -> None:
    """A whole field or its low part to the low bits of one that holds a known number; or known numbers."""
    held = bindings.get(move.source, Slice(move.source, FIELDS[move.source].bits))
    room = (1 << move.bits) - 1
    if isinstance(held, int):
        kept = _number(bindings, move.target) & ~(room << move.target_offset)
        bindings[move.target] = kept | (held >> move.source_offset & room) << move.target_offset
        return
    if move.source_offset or move.target_offset or held.above & room:
        raise Unfollowable(f"moving part of {move.source} to {move.target}")
    whole = move.bits == FIELDS[move.target].bits
    above = 0 if whole else _number(bindings, move.target) & ~room
    bindings[move.target] = Slice(held.source, min(held.bits, move.bits), above)


def _fixed(step: Step, name: str, cube: Cube) -> int | None:
    held = step.bindings.get(name)
    if isinstance(held, int):
        return held
    value, mask = cube.get(name, (0, 0))
    return value if mask == FIELDS[name].full_mask else None


Alike = frozenset[Step]
Narrow = Callable[[Region], Region | None]

Shape = tuple[tuple[str, int], ...]
"""The fields that a flow matches, and under which masks."""
_NAME_AND_MASK = itemgetter(0, 2)
_VALUE = itemgetter(1)


class _Table:
    """Flows by shape (which bits they match), so that known bits find them without trying each."""

    def __init__(self, flows: Sequence[Flow]) -> None:
        self._flows = flows
        self._shapes: dict[Shape, list[Flow]] = defaultdict(list)
        for flow in flows:
            self._shapes[tuple(map(_NAME_AND_MASK, flow.match.entries))].append(flow)
        self._indexes: dict[tuple[Shape, tuple[int, ...]], Mapping[object, Sequence[Flow]]] = {}

    @property
    def next(self) -> frozenset[int]:
        """The tables that its flows lead to."""
        return self._uses[0]

    @cached_property
    def _uses(self) -> tuple[frozenset[int], frozenset[str]]:
        """Where its flows lead, and the fields that they move."""
        tables, moved = set[int | None](), set[str]()
        for flow in self._flows:
            tables.add(flow.instructions.goto)
            for action in flow.instructions.apply:
                if isinstance(action, Conntrack):
                    tables.add(action.table)
                elif isinstance(action, Move):
                    moved.add(action.source)
        return frozenset(number for number in tables if number is not None), frozenset(moved)

    def fields(self, state: int) -> frozenset[str]:
        """What its flows look at, apart from those that are for connections of another state."""
        found = set(self._uses[1])
        for shape, flows in self._shapes.items():
            names = [name for name, _ in shape]
            if "ct_state" not in names or any(_is_for(flow, state) for flow in flows):
                found.update(names)
        return frozenset(found)

    def reads(self, fields: frozenset[str]) -> bool:
        """Whether some flow matches on one of the fields."""
        return any(name in fields for shape in self._shapes for name, _ in shape)

    def candidates(self, step: Step) -> list[tuple[Flow, Cube]]:
        """The flows that can take some packet of the step, highest first, with what they demand of it."""
        found = []
        for shape in self._shapes:
            for flow in self._of_shape(shape, step):
                cube = _demand(flow, step.bindings)
                if cube is not None:
                    found.append((flow, cube))
        return sorted(found, key=lambda pair: (-pair[0].priority, pair[0].match.entries))

    def _of_shape(self, shape: Shape, step: Step) -> Sequence[Flow]:
        known = [_known(name, mask, step) for name, mask in shape]
        places = tuple(place for place, value in enumerate(known) if value is not None)
        if not places:
            return self._shapes[shape]
        key = tuple(known[place] for place in places)
        return self._index(shape, places).get(key if len(key) > 1 else key[0], ())

    def _index(self, shape: Shape, places: tuple[int, ...]) -> Mapping[object, Sequence[Flow]]:
        """The flows of a shape by the values (one: by it) that they demand at some places of it."""
        index = self._indexes.get((shape, places))
        if index is None:
            found: dict[object, list[Flow]] = defaultdict(list)
            chosen = itemgetter(*places)
            for flow in self._shapes[shape]:
                entries = chosen(flow.match.entries)
                found[tuple(map(_VALUE, entries)) if len(places) > 1 else entries[1]].append(flow)
            index = self._indexes[shape, places] = found
        return index


_NO_TABLE = _Table(())


def _is_for(flow: Flow, state: int) -> bool:
    """Whether packets of this state, or of none yet, can take the flow."""
    value, mask = flow.match.get("ct_state") or (0, 0)
    return value in (state & mask, 0)


def _known(name: str, mask: int, step: Step) -> int | None:
    """The value of a field's bits under `mask`, when the step fixes all of them."""
    held = step.bindings.get(name)
    if isinstance(held, int):
        return held & mask
    if held == LOWERED:
        return None
    source, bits = (held.source, mask & (1 << held.bits) - 1) if held else (name, mask)
    value, fixed = step.region.cube.get(source, (0, 0))
    above = held.above & mask if held else 0
    return above | value & bits if not bits & ~fixed else None


def _demand(flow: Flow, bindings: Bindings) -> Cube | None:
    """What the flow's match demands of the header, or None when what is bound rules it out."""
    cube: dict[str, tuple[int, int]] = {}
    for name, value, mask in flow.match:
        held = bindings.get(name)
        if isinstance(held, int):
            if held & mask != value:
                return None
            continue
        if held == LOWERED:
            raise Unfollowable("a TTL that was counted down is asked for")
        source, bits = (held.source, (1 << held.bits) - 1) if held else (name, FIELDS[name].full_mask)
        if held and (value ^ held.above) & mask & ~bits:
            return None
        known, fixed = cube.get(source, (0, 0))
        if (known ^ value) & fixed & mask & bits:
            return None
        cube[source] = known | value & bits, fixed | mask & bits
    return cube
