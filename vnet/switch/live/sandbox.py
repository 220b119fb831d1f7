"""Asks the dataplane what it would do with a packet, without doing it.

The program that decides at every port is loaded once more, so that it tells each step and sends nothing
(`bpf/trace.bpf.c`). Of the switch's maps it has those that packets only read: rules, ports, the version
in force. Those that packets write it has as its own, filled with a copy of what is in the switch's; so there
is nothing that a traced packet could change.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from vnet.base.drop import DropReason
from vnet.base.errors import HostError, InputError
from vnet.openflow.conntrack import Direction, Endpoint
from vnet.openflow.fields import ETH_IPV4, ICMP, ICMPV6, TCP, CtState
from vnet.openflow.flow import Flow
from vnet.switch import abi
from vnet.switch.live import bpf
from vnet.switch.live.maps import object_path
from vnet.switch.live.netns import inside
from vnet.switch.places import WORD_MASK
from vnet.switch.trace import (
    FRAMES,
    STEPS,
    Connection,
    Step,
    StepKind,
    Traced,
    TraceFrame,
    TraceLog,
    decode_frame,
    decode_steps,
)

PROGRAM = "vnet_trace"
READ = (
    "control", "entries", "group_entries", "meter_entries", "tables", "masks", "rule_index", "small_index",
    "rules", "actions", "groups", "buckets", "meters", "outputs", "ports", "lines", "port_by_ifindex",
    "port_of",
)  # fmt: skip
"""The switch's maps that the program has: packets only read them (`bpf/maps.h`)."""
COPIED = ("conns", "conn_index", "macs", "port_state", "meter_state", "frags", "ct_control")
"""What packets are decided by and change: each trace begins with a copy of it."""
COUNTED = (
    "rule_counters", "path_counters", "meter_counters", "table_misses", "port_counters", "drop_counters",
    "lost_events", "path_index", "path_rules", "cache", "free_paths",
)  # fmt: skip
"""What decides nothing: the program's own have no room, so nothing is counted or remembered."""
FRAME_BYTES = 3500
"""What BPF_PROG_TEST_RUN takes: a page without head- and tailroom (net/bpf/test_run.c)."""
LEAST_BYTES = 15
_IP_HEADER_ENDS = {b"\x08\x00": 34, b"\x86\xdd": 54}
"""By EtherType: what is shorter is not tried."""
_NO_PREALLOC = 1
_ECHO = 0x0800
_FREE_SLOTS = 8
"""Given to the copy when the table has been full once: more than a packet can take."""


@dataclass(frozen=True, slots=True)
class Source:
    """The switch that is asked: its maps, its namespace, its interfaces by port, its flows by rule.

    `ifindexes` are those by which packets come in that a line has let through.
    """

    maps: Mapping[str, bpf.Map]
    netns: str | None
    ifindexes: Mapping[int, int]
    flows: Mapping[int, Flow]
    meters: tuple[int, ...]
    """The slots of those there are."""


def trace_object() -> Path:
    """The compiled program, beside the switch's."""
    return object_path().with_name("trace.bpf.o")


class Sandbox:
    """A copy of a switch to try packets in; what one leaves behind the next one finds, until `refresh`."""

    def __init__(self, source: Source) -> None:
        self._source = source
        _require_the_same_program(source.maps["control"])
        loaded = bpf.Object(trace_object())
        try:
            for name in READ:
                loaded.reuse(name, source.maps[name].fd)
            for name in COUNTED:
                loaded.resize(name, 1)
            loaded.resize("conn_index", 2 * abi.CONNS, _NO_PREALLOC)
            loaded.load()
            names = (*COPIED, "trace_log", "trace_frames", "free_conns")
            self._map = {name: bpf.Map(loaded.map_fd(name)) for name in names}
            self._program = loaded.program_fd(PROGRAM)
        finally:
            loaded.close()
        self._assumed: set[int] = set()
        """Slots of connections that there are only here."""
        self._forgotten: set[bytes] = set()
        """Tuples of connections that there are none here."""
        self._copy()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free it."""
        os.close(self._program)
        for opened in self._map.values():
            opened.close()

    # state

    def refresh(self) -> None:
        """Forget what was tried, and copy the switch's state anew."""
        for name in ("conn_index", "macs"):
            for key in tuple(self._map[name].keys()):
                self._map[name].delete(key)
        while self._map["free_conns"].pop() is not None:
            pass
        self._assumed.clear()
        self._copy()

    def _copy(self) -> None:
        source, own = self._source.maps, self._map
        for name in ("conn_index", "macs", "port_state", "ct_control"):
            own[name].fill(*source[name].dump())
        for key in self._forgotten:
            own["conn_index"].delete(key)
        for slot in self._source.meters:
            own["meter_state"].set(slot, source["meter_state"].index(slot) or b"")
        self._copy_connections()

    def _copy_connections(self) -> None:
        control = abi.CtControl.from_buffer_copy(self._map["ct_control"].index(0) or b"")
        used = min(control.fresh, abi.CONNS)
        raw = self._source.maps["conns"].first(used) if used else b""
        with self._conns() as window:
            window[: len(raw)] = raw
        if used == abi.CONNS:
            self._give_free_slots(raw)

    def _give_free_slots(self, raw: bytes) -> None:
        """The switch has those that were used before in a queue, which cannot be looked into."""
        size, at = ctypes.sizeof(abi.Conn), abi.Conn.gen.offset
        free = (slot for slot in range(abi.CONNS) if not raw[slot * size + at] & 1)
        for slot, _ in zip(free, range(_FREE_SLOTS), strict=False):
            self._map["free_conns"].push(slot.to_bytes(4, "little"))

    @contextlib.contextmanager
    def _conns(self) -> Iterator[memoryview]:
        window = self._map["conns"].window()
        as_bytes = window.cast("B")
        try:
            yield as_bytes
        finally:
            as_bytes.release()
            window.release()

    def _copy_fragments(self, port: int) -> None:
        slots = self._source.maps["frags"].max_entries // abi.PORTS
        for slot in range(port * slots, (port + 1) * slots):
            self._map["frags"].set(slot, self._source.maps["frags"].index(slot) or b"")

    def forget(self, connection: Connection) -> None:
        """Copy the switch's state anew, from now on without a connection that it has."""
        self._forgotten |= {bytes(key) for key in self._conn(connection.slot).key}
        self.refresh()

    def assume(self, direction: Direction, mark: int) -> None:
        """Have a connection as if its first packet had just been let through.

        Args:
            direction: as the packets of its client go.
        """
        control = abi.CtControl.from_buffer_copy(self._map["ct_control"].index(0) or b"")
        free = self._map["free_conns"].pop()
        slot = control.fresh if free is None else int.from_bytes(free, "little")
        if free is None:
            control.fresh += 1
            self._map["ct_control"].set(0, bytes(control))
        now_ns, keys = time.monotonic_ns(), (_key(direction), _key(direction.reversed()))
        conn = abi.Conn(created_ns=now_ns, last_seen_ns=now_ns, gen=1, mark=mark)
        conn.key[:] = keys
        conn.packets[0] = 1
        conn.tcp_state = int(direction.protocol == TCP)
        size = ctypes.sizeof(abi.Conn)
        with self._conns() as window:
            window[slot * size : (slot + 1) * size] = bytes(conn)
        for reply, key in enumerate(keys):
            self._map["conn_index"].update(bytes(key), struct.pack("<II", slot, reply))
        self._assumed.add(slot)

    # packets

    def run(self, in_port: int, frame: bytes) -> Traced:
        """What would become of a frame that comes in by a port now.

        Raises: InputError for one that the kernel takes none like, HostError.
        """
        least = _IP_HEADER_ENDS.get(frame[12:14], LEAST_BYTES)
        if not least <= len(frame) <= FRAME_BYTES:
            raise InputError(
                f"a packet of {len(frame)} bytes: of this kind the kernel tries {least} to {FRAME_BYTES}"
                + (": a real one this short is dropped as MALFORMED" if len(frame) < least else "")
            )
        if in_port not in self._source.ifindexes:
            raise HostError(f"port {in_port} is not attached to the switch")
        self._copy_fragments(in_port)
        self._map["trace_log"].set(0, bytes(ctypes.sizeof(TraceLog)))
        version = int.from_bytes((self._source.maps["control"].index(0) or b"")[:4], "little")
        with inside(self._source.netns):
            context = bpf.SkBuff(ifindex=self._source.ifindexes[in_port])
            _, _, after, _ = bpf.run(self._program, frame, context)
        traced = self._told(DropReason(after.cb[1]), version)
        if traced.connection is not None and traced.connection.made:
            self._assumed.add(traced.connection.slot)
        return traced

    def _told(self, reason: DropReason, version: int) -> Traced:
        log = TraceLog.from_buffer_copy(self._map["trace_log"].index(0) or b"")
        steps = decode_steps(log, self._source.flows)
        outputs = tuple((step.arg, self._frame(step.value)) for step in steps if step.kind is StepKind.OUTPUT)
        return Traced(
            steps,
            outputs,
            reason,
            version,
            self._connection(steps),
            reason is not DropReason.NONE and bool(outputs),
            max(0, log.n_steps - STEPS),
        )

    def _frame(self, number: int) -> bytes:
        if number >= FRAMES:
            return b""
        return decode_frame(TraceFrame.from_buffer_copy(self._map["trace_frames"].index(number) or b""))

    def _connection(self, steps: tuple[Step, ...]) -> Connection | None:
        """That of the last ct() that gave the packet one. Who finds one is counted: one packet opened it."""
        asked = [step for step in steps if step.kind is StepKind.CT and step.value != abi.NO_SLOT]
        if not asked:
            return None
        slot, now_ns = asked[-1].value, time.monotonic_ns()
        conn, related = self._conn(slot), asked[-1].fields.get("ct_state", 0) & CtState.REL
        return Connection(
            slot,
            conn.key[0].zone,
            max(0, now_ns - conn.created_ns) / 1e9,
            tuple(conn.packets),
            conn.mark,
            conn.tcp_state,
            conn.port,
            tuple(conn.packets) == (1, 0) and not related,
            slot in self._assumed,
        )

    def _conn(self, slot: int) -> abi.Conn:
        size = ctypes.sizeof(abi.Conn)
        with self._conns() as window:
            return abi.Conn.from_buffer_copy(bytes(window[slot * size : (slot + 1) * size]))


def _require_the_same_program(control: bpf.Map) -> None:
    """What runs at the ports must be what is installed: its twin would tell of another program."""
    running = bytes(abi.Control.from_buffer_copy(control.index(0) or b"").digest)
    if object_path().exists() and hashlib.sha256(object_path().read_bytes()).digest() != running:
        raise HostError(
            "the switch runs another program than the one installed since: `vnet serve --stop`, and the next "
            "command exchanges it without losing a packet"
        )


def _key(direction: Direction) -> abi.CtKey:
    """A direction as the table of connections has it; of an echo the answering side is 0x0800."""
    ends = (direction.source, direction.target)
    ports = [_ECHO if _answers(end, direction) else end.port for end in ends]
    family = 4 if direction.family == ETH_IPV4 else 6
    key = abi.CtKey(
        sport=ports[0], dport=ports[1], zone=direction.zone, proto=direction.protocol, family=family
    )
    for words, end in zip((key.src, key.dst), ends, strict=True):
        words[:] = (end.address >> 64, end.address & WORD_MASK)
    return key


def _answers(end: Endpoint, direction: Direction) -> bool:
    return direction.protocol in (ICMP, ICMPV6) and not end.role
