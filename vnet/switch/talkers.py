"""Which connections carried most between two looks at the map of connections: pure, on its bytes.

With 65,536 connections a look costs some 30 ms, so it is for those who ask, not for every snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import nlargest

from vnet.openflow.conntrack import Direction
from vnet.switch import abi
from vnet.switch.connections import direction

MOST = 50
"""Connections that are told of."""
_WORDS = 20
"""64-bit words of a slot; a test compares it and the places with `abi.Conn`."""
_SENT, _RECEIVED, _GEN = 14, 15, 18


@dataclass(frozen=True, slots=True)
class Talker:
    """One connection, as its client's packets go, and what its client sent and got in between, in bytes."""

    connection: Direction
    port: int
    sent_bytes: int
    received_bytes: int


@dataclass(frozen=True, slots=True)
class Look:
    """What all connections had carried at a moment; `at_s` is of a clock that nobody can set."""

    at_s: float = 0.0
    raw: bytes = b""

    def column(self, word: int) -> list[int]:
        """One word of every slot."""
        return memoryview(self.raw).cast("Q")[word::_WORDS].tolist() if self.raw else []


def talkers(before: Look, now: Look) -> tuple[Talker, ...]:
    """Those that carried most, the most first. One that is new since then counts from its beginning."""
    grown = nlargest(MOST, _grown(before, now))
    return tuple(_talker(now.raw, slot, sent, received) for total, slot, sent, received in grown if total)


def _grown(before: Look, now: Look) -> Iterator[tuple[int, int, int, int]]:
    """Sum, slot, sent, received of each connection that there is; its generation tells it from another's."""
    old = dict(enumerate(zip(*(before.column(word) for word in (_GEN, _SENT, _RECEIVED)), strict=True)))
    nothing = (0, 0, 0)
    columns = (now.column(word) for word in (_GEN, _SENT, _RECEIVED))
    for slot, (gen, sent, received) in enumerate(zip(*columns, strict=True)):
        if gen & 1:
            old_gen, old_sent, old_received = old.get(slot, nothing)
            if gen & 0xFFFFFFFF == old_gen & 0xFFFFFFFF:
                sent, received = sent - old_sent, received - old_received
            yield sent + received, slot, sent, received


def _talker(raw: bytes, slot: int, sent: int, received: int) -> Talker:
    conn = abi.Conn.from_buffer_copy(raw, slot * 8 * _WORDS)
    return Talker(direction(conn.key[0]), int(conn.port), sent, received)
