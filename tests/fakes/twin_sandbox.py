"""The slow interpreter as a sandbox: a trace without a kernel, for tests of what is said about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from vnet.base.drop import DropReason
from vnet.openflow.conntrack import Connection as Tracked
from vnet.openflow.conntrack import Direction, State, Tracker
from vnet.openflow.fields import TCP, CtState
from vnet.openflow.flow import Conntrack, Flow
from vnet.openflow.table import Outcome, PortState, SlowSwitch
from vnet.switch.abi import NO_SLOT, CtFlag
from vnet.switch.trace import Connection, Step, StepKind, Traced

PORTS = 16
KNOWN = CtState.EST | CtState.RPL | CtState.REL


class TwinSandbox:
    """See `vnet.fabric.asked.Sandbox`. `said` is what really came before: (port, frame)."""

    def __init__(self, flows: Iterable[Flow], said: Iterable[tuple[int, bytes]] = ()) -> None:
        ports = {number: PortState() for number in range(1, PORTS + 1)}
        self._tracker = Tracker()
        self._switch = SlowSwitch(flows, ports, self._tracker)
        for port, frame in said:
            self._switch.receive(port, frame, 0.0)
        self._assumed = False

    @property
    def connections(self) -> tuple[Direction, ...]:
        """Those that live, each as the packets of its client go."""
        return tuple(each.original for each in self._tracker.connections(1.0))

    def run(self, in_port: int, frame: bytes) -> Traced:
        """What would become of a frame."""
        before = set(self.connections)
        outcome = self._switch.receive(in_port, frame, 1.0)
        made = set(self.connections) - before
        steps = tuple(_steps(outcome, bool(before)))
        connection = None
        if made or any(step.kind is StepKind.CT and step.value != NO_SLOT for step in steps):
            one = next(each for each in self._tracker.connections(1.0) if not made or each.original in made)
            packets = (1, 0) if made else (2, 1)
            connection = Connection(
                0, one.original.zone, 2.0, packets, one.mark, 0, in_port, bool(made), self._assumed
            )
        self._assumed |= bool(made)
        reason = outcome.drop or DropReason.NONE
        return Traced(steps, outcome.outputs, reason, 1, connection, bool(outcome.drop and outcome.outputs))

    def forget(self, connection: Connection) -> None:
        """From now on without a connection."""
        self._tracker.flush()

    def assume(self, direction: Direction, mark: int) -> None:
        """Have a connection as if its first packet had just been let through."""
        state = State.SYN_SENT if direction.protocol == TCP else State.OPENING
        self._tracker._enter(Tracked(direction, direction.reversed(), state, 1.0, mark=mark))
        self._assumed = True


def _steps(outcome: Outcome, is_known: bool) -> Iterator[Step]:
    """The lookups, and behind each the ct() of its flow with what the next one saw of it."""
    fields: Mapping[str, int] = {}
    for number, lookup in enumerate(outcome.trail):
        fields = {name: value for name, value in lookup.fields.items() if value}
        yield Step(StepKind.TABLE, lookup.table, 0, fields, lookup.flow)
        for action in lookup.flow.instructions.apply if lookup.flow else ():
            if isinstance(action, Conntrack):
                after = outcome.trail[number + 1].fields if action.table is not None else lookup.fields
                yield _ct(action, {name: value for name, value in after.items() if value}, is_known)
    yield Step(StepKind.END, outcome.drop or 0, 0, fields)


def _ct(action: Conntrack, fields: Mapping[str, int], is_known: bool) -> Step:
    flags = CtFlag.RECIRC if action.table is not None else CtFlag(0)
    flags |= CtFlag.COMMIT if action.commit else CtFlag(0)
    state = fields.get("ct_state", 0)
    has = action.commit or state & KNOWN or (is_known and fields.get("ct_mark", 0))
    return Step(StepKind.CT, action.zone | flags << 16, 0 if has else NO_SLOT, fields)
