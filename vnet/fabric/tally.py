"""What was seen, summed up by the minute until it is written: the bounded part of the history in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from vnet.fabric.seen import DecidedBy, Verdict
from vnet.fabric.store import Source

MINUTE_NS = 60 * 10**9
KINDS_PER_MINUTE = 2000
"""Of one fabric. Of what is beyond, addresses and ports are left out: a scan costs no more than that."""


class Kind(NamedTuple):
    """What packets that are summed up have in common: see `vnet.fabric.seen.Seen`.

    `sender` is the NIC that sent what was dropped, `state` what the tracker said of it (`+trk+new`).
    `is_folded`: these are of many destinations and ports, which were not kept apart.
    """

    verdict: Verdict
    reason: str
    by: DecidedBy | None
    source: str | None
    source_address: IPv4Address | IPv6Address | None
    destination: str | None
    destination_address: IPv4Address | IPv6Address | None
    network: str
    protocol: int | None
    port: int | None
    sender: str | None = None
    state: str = ""
    is_folded: bool = False

    @property
    def folded(self) -> Kind:
        """The same for all addresses and ports."""
        return self._replace(
            source_address=None, destination=None, destination_address=None, port=None, is_folded=True
        )


@dataclass(frozen=True, slots=True, eq=False)
class Era:
    """A generation as long as it is in force, under one text of the topology. Compared by identity."""

    fabric: str
    generation: int
    since_ns: int
    source: Source


@dataclass(frozen=True, slots=True)
class Sample:
    """A packet: when it was reported, its size on the wire, its first bytes."""

    time_ns: int
    length: int
    data: bytes


@dataclass(slots=True)
class Sum:
    """What was seen of a kind in a minute. Times are nanoseconds since 1970."""

    packets: int
    octets: int
    connections: int
    first_ns: int
    last_ns: int
    sample: Sample | None

    def add(self, other: Sum) -> None:
        """More of the same."""
        self.packets += other.packets
        self.octets += other.octets
        self.connections += other.connections
        self.first_ns = min(self.first_ns, other.first_ns)
        self.last_ns = max(self.last_ns, other.last_ns)
        self.sample = self.sample or other.sample


class Entry(NamedTuple):
    """One line of what is to be written; `minute` counts from 1970."""

    minute: int
    era: Era
    kind: Kind
    sum: Sum


class Tally:
    """See the module."""

    def __init__(self, kinds: int = KINDS_PER_MINUTE) -> None:
        self._kinds = kinds
        self._sums: dict[tuple[int, Era, Kind], Sum] = {}
        self._count = Counter[int]()
        """By minute: kinds met, whether written already or not."""
        self.lost = 0
        """Packets of which not even that found room."""

    def see(self, era: Era, kind: Kind, seen: Sum) -> None:
        """Count it in the minute of its last packet."""
        minute = seen.last_ns // MINUTE_NS
        for each, room in ((kind, self._kinds), (kind.folded, 2 * self._kinds)):
            key = minute, era, each
            known = self._sums.get(key)
            if known is not None:
                known.add(seen)
                return
            if self._count[minute] < room:
                self._count[minute] += 1
                self._sums[key] = seen
                return
        self.lost += seen.packets

    def drain(self) -> Iterator[Entry]:
        """Take out what is there."""
        sums, self._sums = self._sums, {}
        if sums:
            newest = max(minute for minute, _, _ in sums)
            self._count = Counter({m: n for m, n in self._count.items() if m >= newest - 1})
        return (Entry(minute, era, kind, seen) for (minute, era, kind), seen in sums.items())
