"""The connections that the dataplane tracks, out of the bytes of their map."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from vnet.openflow.conntrack import OVER, TIMEOUTS_S, Direction, Endpoint, State
from vnet.openflow.fields import ETH_IPV4, ETH_IPV6, ICMP, ICMPV6, SCTP, TCP, UDP
from vnet.switch import abi

_FAMILIES = {4: ETH_IPV4, 6: ETH_IPV6}
_TCP_STATES = (
    State.SYN_SENT,
    State.SYN_RECEIVED,
    State.ESTABLISHED,
    State.FIN_WAIT,
    State.TIME_WAIT,
    State.CLOSED,
)
"""VNET_TCP_*, from 1."""
_ECHO_REQUEST = 8
"""The side of an echo that asks, over IPv6 too; only echoes are tracked of ICMP."""


def live(values: bytes, now_ns: int) -> Iterator[Direction]:
    """The connections that are neither over nor silent for too long, each as its client's packets go.

    Args:
        values: slots of the map `conns`, one behind the other.
        now_ns: CLOCK_MONOTONIC.
    """
    for at in range(0, len(values), ctypes.sizeof(abi.Conn)):
        conn = abi.Conn.from_buffer_copy(values, at)
        state = _state(conn)
        lasts_ns = conn.last_seen_ns + TIMEOUTS_S[state] * 10**9
        if conn.gen & 1 and state not in OVER and now_ns <= lasts_ns:
            yield direction(conn.key[0])


def _state(conn: abi.Conn) -> State:
    if conn.tcp_state:
        return _TCP_STATES[conn.tcp_state - 1]
    return State.ANSWERED if conn.seen_reply else State.OPENING


def direction(key: abi.CtKey) -> Direction:
    """The packets that have this key."""
    source, target = (words[0] << 64 | words[1] for words in (key.src, key.dst))
    ends = Endpoint(source, key.sport), Endpoint(target, key.dport)
    if key.proto in (ICMP, ICMPV6):
        ends = Endpoint(source, key.sport, _ECHO_REQUEST), Endpoint(target, 0)
    return Direction(key.zone, _FAMILIES[key.family], key.proto, *ends)


_CODES = {ctypes.c_uint64: "Q", ctypes.c_uint32: "I", ctypes.c_uint16: "H", ctypes.c_uint8: "B"}


def _flat(name: str, kind: Any) -> Iterator[tuple[str, str]]:
    """The numbers that a C type is made of, each with its name (`key[0].src[1]`) and its code in `struct`."""
    if issubclass(kind, ctypes.Structure):
        for inner, of in kind._fields_:
            yield from _flat(f"{name}.{inner}" if name else inner, of)
    elif issubclass(kind, ctypes.Array):
        for number in range(kind._length_):
            yield from _flat(f"{name}[{number}]", kind._type_)
    else:
        yield name, _CODES[kind]


_FIELDS = dict(_flat("", abi.Conn))
SLOT_BYTES = ctypes.sizeof(abi.Conn)
_SLOT = struct.Struct("<" + "".join(_FIELDS.values()))
"""`struct vnet_conn`: read ten times as fast as through ctypes, which a test compares it with."""
assert _SLOT.size == SLOT_BYTES
_CREATED = [*_FIELDS].index("created_ns")
_KEY = ["src[0]", "src[1]", "dst[0]", "dst[1]", "sport", "dport", "zone", "proto", "family"]
_REST = [
    "created_ns",
    "last_seen_ns",
    "packets[0]",
    "packets[1]",
    "bytes[0]",
    "bytes[1]",
    "label[0]",
    "label[1]",
    "gen",
    "mark",
    "port",
    "tcp_state",
    "seen_reply",
    "nat",
]
_wanted = itemgetter(*map([*_FIELDS].index, (*(f"key[0].{name}" for name in _KEY), *_REST)))
"""These of a slot's numbers, in this order."""


@dataclass(frozen=True, slots=True)
class Tracked:
    """One slot of the table of connections: a connection there is, or what is left of one that was.

    The client is who committed it. Times are CLOCK_MONOTONIC; `packets` and `octets` are from the client and
    back. `port` is the one the client's packets came in by. Of an echo `client_port` is its identifier.
    `occupancy` goes up whenever the slot is taken, freed or its mark changes.
    """

    slot: int
    is_there: bool
    zone: int
    version: int
    protocol: int
    client: int
    client_port: int
    server: int
    server_port: int
    created_ns: int
    last_seen_ns: int
    packets: tuple[int, int]
    octets: tuple[int, int]
    label: int
    mark: int
    port: int
    state: State
    occupancy: int
    nat: int

    @property
    def service_port(self) -> int | None:
        """The server's port; of ICMP the type that asks; None for protocols without any."""
        if self.protocol in (ICMP, ICMPV6):
            return _ECHO_REQUEST if self.protocol == ICMP else _ECHO_REQUEST_V6
        return self.server_port if self.protocol in _WITH_PORTS else None

    def is_silent(self, now_ns: int) -> bool:
        """Whether no packet came for so long that the switch takes it for ended."""
        return now_ns > self.last_seen_ns + TIMEOUTS_S[self.state] * 10**9


_ECHO_REQUEST_V6 = 128
_WITH_PORTS = frozenset({TCP, UDP, SCTP})


def tracked(values: bytes, first: int = 0) -> Iterator[Tracked]:
    """All that was ever tracked in these slots, as far as it is still known.

    Args:
        values: slots of the map `conns`, one behind the other; first: the number of the first of them.
    """
    for slot, words in enumerate(_SLOT.iter_unpack(values), first):
        if not words[_CREATED]:
            continue
        wanted = _wanted(words)
        high, low, to_high, to_low, client_port, server_port, zone, protocol, version = wanted[: len(_KEY)]
        created_ns, seen_ns, sent, got, octets, octets_back, label_high, label_low, *state = wanted[
            len(_KEY) :
        ]
        gen, mark, port, tcp_state, seen_reply, nat = state
        opened = State.ANSWERED if seen_reply else State.OPENING
        yield Tracked(
            slot,
            bool(gen & 1),
            zone,
            version,
            protocol,
            high << 64 | low,
            client_port,
            to_high << 64 | to_low,
            server_port,
            created_ns,
            seen_ns,
            (sent, got),
            (octets, octets_back),
            label_high << 64 | label_low,
            mark,
            port,
            _TCP_STATES[tcp_state - 1] if tcp_state else opened,
            gen,
            nat,
        )


def learnt(entries: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[int, int, int, int]]:
    """Addresses that OFPP_NORMAL learnt: VLAN, MAC, port and CLOCK_MONOTONIC of the last frame."""
    for key, value in entries:
        (word,) = struct.unpack("<Q", key)
        port, _, seen_ns = struct.unpack("<IIQ", value)
        yield word & 0xFFFF, word >> 16, port, seen_ns
