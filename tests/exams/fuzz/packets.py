"""Packets into the loaded program: what the flow cache remembers is what the tables would decide anew.

Two switches have the same flows and see the same packets in the same order. One remembers, the other is made
to forget before each packet. So also what depends on the past, connections and learnt addresses, must come
out the same, and in the end so must all counters: of ports, flows, groups, tables and reasons. Many packets
differ from one before only where no rule looks: these share an entry of the cache.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from tests.bpf.bench import Bench
from tests.exams.differential.connections import connected
from tests.exams.differential.frames import Frame, frames
from tests.exams.differential.switches import too_short_to_run
from tests.exams.fuzz.case import Steps
from tests.net.twin_generator import PORTS, Program, programs
from vnet.base.drop import DropReason
from vnet.openflow.codec import decode, encode
from vnet.openflow.flow import Flow, Instructions, Output, Port, match
from vnet.openflow.message import FlowCommand, FlowMod, GroupCommand, GroupMod
from vnet.switch import abi
from vnet.switch.datapath import Refused
from vnet.switch.live.datapath import PACKET_OUT_BYTES

SHOT, REDIRECT = 2, 7
"""TC_ACT_*: what the program may answer."""
_LONGEST = PACKET_OUT_BYTES
_BASES, _SEQUENCE = 12, 100
"""Packets that others are made of; packets of a case."""
_NEVER = (DropReason.ACTION_FAILED,)
"""Reasons that whole packets give no cause for."""


class Packets:
    """The part."""

    name: ClassVar[str] = "packets"

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack as stack:
            self._remembers = stack.enter_context(Bench(len(PORTS)))
            self._forgets = stack.enter_context(Bench(len(PORTS)))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *details: object) -> None:
        self._stack.close()

    def steps(self, dice: random.Random) -> Steps:
        program, sequence = _play(dice)
        flows = [encode(FlowMod(FlowCommand.ADD, flow), 0) for flow in program.flows]
        groups = [encode(GroupMod(GroupCommand.ADD, group), 0) for group in program.groups]
        return (
            ("watch", *map(str, dice.sample(PORTS, dice.choice((0, 0, 0, 1, 2, 4))))),
            *(("rule", data.hex()) for data in (*groups, *flows)),
            *(("packet", str(frame.port), frame.data.hex()) for frame in sequence),
        )

    def fault(self, steps: Steps) -> str | None:
        benches = self._remembers, self._forgets
        packets = [(int(step[1]), bytes.fromhex(step[2])) for step in steps if step[0] == "packet"]
        try:
            for bench in benches:
                _load(bench, steps)
        except Refused:
            return None  # a group was left out that a flow needs
        before = [_Counted.of(bench) for bench in benches]
        for number, (port, frame) in enumerate(packets):
            forget(self._forgets)
            remembered, anew = (_decide(bench, port, frame) for bench in benches)
            if (what := _difference(remembered, anew)) is not None:
                return f"packet {number}: {what}"
        counts = [_Counted.of(bench).since(first) for bench, first in zip(benches, before, strict=True)]
        return _miscounted(counts[0], counts[1]) or _unaccounted(counts[0], packets)


def _load(bench: Bench, steps: Steps) -> None:
    messages = [decode(bytes.fromhex(step[1]))[1] for step in steps if step[0] == "rule"]
    flows = [message.flow for message in messages if isinstance(message, FlowMod)]
    bench.load(flows, [message.group for message in messages if isinstance(message, GroupMod)])
    bench.forget_connections()
    bench.datapath.flush_addresses()
    bench.datapath.watch(frozenset(int(port) for step in steps if step[0] == "watch" for port in step[1:]))


def forget(bench: Bench) -> None:
    """Make a switch forget what it remembers, by a new version: two steps on, the same banks are in force."""
    datapath = bench.datapath
    datapath._image.version += 2
    datapath._control[0] += 2


# -- one packet -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Decision:
    """All that can be seen of what became of a packet; the order between ports cannot."""

    verdict: int
    out: bytes
    """What the last redirect took, if there was one."""
    port: int
    drop: int
    seen: tuple[tuple[object, ...], ...]


def _let_tell(bench: Bench, port: int) -> None:
    """Let a port report as if it had reported nothing: how much it may depends on the time that passes."""
    states = bench.datapath._map["port_state"]
    state = abi.PortStateMap.from_buffer_copy(states.index(port) or b"")
    state.events = 0
    states.set(port, bytes(state))


def _decide(bench: Bench, port: int, frame: bytes) -> _Decision:
    _let_tell(bench, port)
    bench.datapath.read_events()
    verdict, packet, after = bench.datapath.run(port, frame)
    events = bench.datapath.read_events()
    seen = (
        (event.point, event.port, event.dropped, event.reason, event.rules, event.cookie, event.data)
        for event in events
    )
    redirected = verdict == REDIRECT
    out = packet if redirected else b""
    return _Decision(verdict, out, after.cb[0] * redirected, after.cb[1], tuple(sorted(seen)))


def _difference(remembered: _Decision, anew: _Decision) -> str | None:
    if remembered != anew:
        return f"remembered {_distinct(remembered, anew)}, decided anew {_distinct(anew, remembered)}"
    if remembered.verdict not in (SHOT, REDIRECT):
        return f"the program answers {remembered.verdict}"
    if remembered.drop in _NEVER:
        return f"dropped as {DropReason(remembered.drop)!r}"
    return None


def _distinct(one: _Decision, other: _Decision) -> str:
    """What it has that the other has not."""
    parts = [f"{name} {getattr(one, name)}" for name in ("verdict", "out", "port", "drop")
             if getattr(one, name) != getattr(other, name)]  # fmt: skip
    return (
        ", ".join([*parts, *(str(event) for event in one.seen if event not in other.seen)]) or "no such event"
    )


# -- counters -------------------------------------------------------------------------------------

Counts = Counter[tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class _Counted:
    """By what is counted: ports, flows, groups, tables, reasons."""

    counts: Mapping[tuple[object, ...], int]

    @classmethod
    def of(cls, bench: Bench) -> _Counted:
        return cls(dict(_counters(bench)))

    def since(self, before: _Counted) -> _Counted:
        return _Counted({key: count - before.counts.get(key, 0) for key, count in self.counts.items()})

    def all(self, *kind: object) -> dict[tuple[object, ...], int]:
        """The counters whose names begin so, that have counted something."""
        return {key: count for key, count in self.counts.items() if key[: len(kind)] == kind and count}


def _counters(bench: Bench) -> Iterator[tuple[tuple[object, ...], int]]:
    datapath = bench.datapath
    for number, port in datapath.port_counters().items():
        yield ("port", "rx", number), port.rx.packets
        yield ("port", "rx bytes", number), port.rx.bytes
        yield ("port", "tx", number), port.tx.packets
        yield ("port", "tx bytes", number), port.tx.bytes
        yield ("port", "rx dropped", number), port.rx_dropped
        yield ("port", "tx dropped", number), port.tx_dropped
    for key, flow in datapath.flow_counters().items():
        yield ("flow", key, "packets"), flow.packets
        yield ("flow", key, "bytes"), flow.bytes
    for number, group in datapath.group_counters().items():
        for bucket, count in enumerate((group.total, *group.buckets), -1):
            yield ("group", number, bucket, "packets"), count.packets
            yield ("group", number, bucket, "bytes"), count.bytes
    for number, table in datapath.table_counters().items():
        yield ("table", number, "lookups"), table.lookups
        yield ("table", number, "matched"), table.matched
    for reason, packets in datapath.drop_counters().items():
        yield ("dropped", reason), packets


def _miscounted(remembered: _Counted, anew: _Counted) -> str | None:
    for key in sorted(remembered.counts.keys() | anew.counts.keys(), key=str):
        mine, other = remembered.counts.get(key, 0), anew.counts.get(key, 0)
        if mine != other:
            return f"counted {key}: {mine} where remembered, {other} where decided anew"
    return None


def _unaccounted(counted: _Counted, packets: list[tuple[int, bytes]]) -> str | None:
    """What came in was counted, and whatever was lost has a reason."""
    came = Counter(port for port, _ in packets)
    for port, count in came.items():
        if counted.counts["port", "rx", port] != count:
            return f"{count} packets came by port {port}, counted {counted.counts['port', 'rx', port]}"
    lost, reasons = sum(counted.all("port", "rx dropped").values()), counted.all("dropped")
    if lost != sum(reasons.values()) or ("dropped", int(DropReason.NONE)) in reasons:
        return f"{lost} packets lost, by reason {reasons}"
    return None


# -- programs and packets -------------------------------------------------------------------------


def _play(dice: random.Random) -> tuple[Program, tuple[Frame, ...]]:
    """A fifth are dialogues."""
    if not dice.randrange(5):
        program, said = connected(dice, _SEQUENCE)
        return program, tuple(_runnable(_sometimes_mutated(dice, said)))
    return _program(dice), tuple(_runnable(_sequence(dice)))


def _program(dice: random.Random) -> Program:
    """Some bridge, some tell a controller; those of the twin's exam do neither."""
    program = programs(dice)
    if dice.randrange(3):
        return program
    action = dice.choice((Output(Port.NORMAL), Output(Port.CONTROLLER), Output(Port.CONTROLLER, 64)))
    flow = Flow(
        dice.randrange(2), dice.randrange(1001, 1100), match(in_port=2), Instructions(apply=(action,))
    )
    return replace(program, flows=(*program.flows, flow))


def _sequence(dice: random.Random) -> Iterator[Frame]:
    """Few packets, again and again, whole, cut off at every byte or changed in a place or two."""
    bases = list(frames(dice, _BASES))
    if not dice.randrange(8):
        base = dice.choice(bases)
        cuts = range(14, min(len(base.data), 14 + _SEQUENCE))
        yield from (Frame(base.port, base.data[:cut], marked=False) for cut in (*cuts, *cuts))
        return
    yield from _sometimes_mutated(dice, dice.choices(bases, k=_SEQUENCE))


def _sometimes_mutated(dice: random.Random, given: list[Frame] | tuple[Frame, ...]) -> Iterator[Frame]:
    for frame in given:
        port = frame.port if dice.randrange(8) else dice.choice(PORTS)
        data = _mutated(dice, frame.data) if dice.randrange(2) else frame.data
        yield Frame(port, data, marked=False)


def _mutated(dice: random.Random, frame: bytes) -> bytes:
    """Some bytes changed, mostly of headers; at times it is shorter, longer or as long as can be."""
    changed = bytearray(frame)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        at = dice.randrange(dice.choice((len(frame), min(len(frame), 60))))
        changed[at] = dice.choice((changed[at] ^ 1 << dice.randrange(8), dice.randrange(256), 0, 255))
    kind = dice.randrange(16)
    if kind == 0:
        del changed[dice.randrange(14, len(changed)) :]
    elif kind == 1:
        changed += dice.randbytes(dice.randrange(1, 40))
    elif kind == 2:
        changed += bytes(_LONGEST - len(changed))
    return bytes(changed)


def _runnable(given: Iterator[Frame]) -> Iterator[Frame]:
    return (frame for frame in given if not too_short_to_run(frame.data))
