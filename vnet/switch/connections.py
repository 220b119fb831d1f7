"""The connections that the dataplane tracks, out of the bytes of their map."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

from vnet.openflow.conntrack import OVER, TIMEOUTS_S, Direction, Endpoint, State
from vnet.openflow.fields import ETH_IPV4, ETH_IPV6, ICMP, ICMPV6
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
            yield _direction(conn.key[0])


def _state(conn: abi.Conn) -> State:
    if conn.tcp_state:
        return _TCP_STATES[conn.tcp_state - 1]
    return State.ANSWERED if conn.seen_reply else State.OPENING


def _direction(key: abi.CtKey) -> Direction:
    source, target = (words[0] << 64 | words[1] for words in (key.src, key.dst))
    ends = Endpoint(source, key.sport), Endpoint(target, key.dport)
    if key.proto in (ICMP, ICMPV6):
        ends = Endpoint(source, key.sport, _ECHO_REQUEST), Endpoint(target, 0)
    return Direction(key.zone, _FAMILIES[key.family], key.proto, *ends)
