"""Connection tracker. What? The slow, obviously right one that the dataplane's is compared with.

A connection is an entry of one zone, made by `commit` from the packet that opened it. It is found by the
five-tuple of either direction: for TCP, UDP and SCTP the ports; for ICMP and ICMPv6 echo the identifier
(request and reply are the two directions); for other IP protocols the addresses alone.

`track` answers with `ct_state` (`vnet.openflow.fields.CtState`); TRK is always set in the answer:

| state | when                                                                                        |
|-------|---------------------------------------------------------------------------------------------|
| new   | no connection is known and the packet may open one; or the connection is known and its       |
|       | responder has not been heard yet                                                             |
| est   | the connection is known and a reply has been seen, this packet included                      |
| rpl   | with est or rel: the packet travels from the responder to the opener                         |
| rel   | an ICMP error about a packet of a known connection, sent to the packet's sender; then        |
|       | neither new nor est is set. rpl as if the error came from the packet's destination.          |
| inv   | anything else: no other bit is set                                                           |

A packet may open a connection if it is a TCP segment with SYN and without ACK, RST and FIN, an ICMP or
ICMPv6 echo request, or of another IP protocol. TCP flags that no stack sends together (SYN with RST or FIN;
neither SYN, ACK nor RST; FIN, PSH or URG without ACK) are inv in every state.

TCP moves SYN_SENT -> SYN_RECEIVED (SYN and ACK from the responder) -> ESTABLISHED (ACK from the opener) ->
FIN_WAIT (one FIN) -> TIME_WAIT (both); RST leads to CLOSED from anywhere. In TIME_WAIT and CLOSED a SYN that
may open a connection forgets the old one and is new. States only choose the timeout and admit that restart.
Tracking refreshes the timeout, an ICMP error or an invalid packet does not.

`commit` of an invalid or related packet does nothing; of a known connection it writes the mark only, unless
`force` is given and the packet is a reply: then the connection starts anew in the packet's direction.
A later fragment has no ports and cannot be attributed: `track` answers None and the switch drops it.

How Open vSwitch's userspace tracker (3.1) differs, by design:
- it picks up TCP in mid-stream: an ACK that belongs to no connection is new there, inv here;
- it checks sequence numbers, checksums and lengths; here the guest's own stack does;
- a TCP packet of a committed connection that is no SYN is est there even before the responder was heard;
- a SYN from the responder of an unanswered connection (simultaneous open) is new without rpl there;
- ICMP timestamp and information requests are tracked there, inv here;
- fragments are reassembled before they are tracked there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from vnet.openflow.fields import ETH_IPV4, ETH_IPV6, ICMP, ICMPV6, SCTP, TCP, UDP, CtState
from vnet.openflow.packet import FRAG_LATER, ICMP_ERRORS, ICMPV6_ERRORS, Packet, embedded

FIN, SYN, RST, PSH, ACK, URG = (1 << bit for bit in range(6))

INVALID = CtState.TRK | CtState.INV
RELATED = CtState.TRK | CtState.REL


class State(Enum):
    """How far a connection has come; TCP uses all, other protocols OPENING and ANSWERED."""

    OPENING = "opening"
    ANSWERED = "answered"
    SYN_SENT = "syn-sent"
    SYN_RECEIVED = "syn-received"
    ESTABLISHED = "established"
    FIN_WAIT = "fin-wait"
    TIME_WAIT = "time-wait"
    CLOSED = "closed"


OVER = frozenset({State.TIME_WAIT, State.CLOSED})
"""States in which a SYN may open the same tuple again."""

TIMEOUTS_S: Mapping[State, int] = {
    State.OPENING: 30,
    State.ANSWERED: 120,
    State.SYN_SENT: 120,
    State.SYN_RECEIVED: 60,
    State.ESTABLISHED: 86400,
    State.FIN_WAIT: 120,
    State.TIME_WAIT: 120,
    State.CLOSED: 10,
}
"""Seconds without a packet after which a connection is forgotten: as the dataplane (conntrack.h), those of
Linux (nf_conntrack-sysctl), but Open vSwitch's for ESTABLISHED."""


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """One side: its address and what tells its connections apart (port; echo id; 0)."""

    address: int
    port: int
    role: int = 0
    """Echo only: 8 for the side that asks, 0 for the one that answers."""


@dataclass(frozen=True, slots=True, order=True)
class Direction:
    """The tuple of packets from `source` to `target`; `family` is the EtherType."""

    zone: int
    family: int
    protocol: int
    source: Endpoint
    target: Endpoint

    def reversed(self) -> Direction:
        """The tuple of the packets that go the other way."""
        return replace(self, source=self.target, target=self.source)


@dataclass(frozen=True, slots=True)
class Connection:
    """A committed connection. `finished` holds the directions that sent FIN (True = reply)."""

    original: Direction
    state: State
    last_seen_s: float
    answered: bool = False
    finished: frozenset[bool] = frozenset()
    mark: int = 0


@dataclass(frozen=True, slots=True)
class Tracked:
    """What the tracker says of one packet."""

    state: int
    mark: int = 0


@dataclass(slots=True)
class Tracker:
    """All zones' connections. `capacity` bounds their number; commit beyond it is refused."""

    timeouts_s: Mapping[State, int] = field(default_factory=lambda: TIMEOUTS_S)
    capacity: int | None = None
    _connections: dict[Direction, Connection] = field(default_factory=dict)

    def track(self, packet: Packet, zone: int, now_s: float) -> Tracked | None:
        """The packet's state in `zone`, and what it tells about its connection is noted.

        Returns: None for a later fragment.
        """
        if packet.get("ip_frag") == FRAG_LATER:
            return None
        if _is_error(packet):
            return self._related(packet, zone, now_s)
        way = direction(packet, zone)
        if way is None or _contradicts(packet.tcp_flags):
            return Tracked(INVALID)
        known = self._find(way, now_s)
        if known and known.state in OVER and _may_open(packet):
            del self._connections[known.original]
            known = None
        if known is None:
            return Tracked(CtState.TRK | CtState.NEW if _may_open(packet) else INVALID)
        return self._advance(known, way, packet, now_s)

    def commit(
        self,
        packet: Packet,
        zone: int,
        now_s: float,
        mark: tuple[int, int] | None = None,
        force: bool = False,
    ) -> bool:
        """Enter the packet's connection into the zone. Returns False if there is no room for it."""
        tracked = self.track(packet, zone, now_s)
        way = direction(packet, zone)
        if tracked is None or way is None or tracked.state & (CtState.INV | CtState.REL):
            return True
        known = self._find(way, now_s)
        if known and force and way != known.original:
            del self._connections[known.original]
            known = None
        if known is None:
            if self.capacity is not None and len(self.connections(now_s)) >= self.capacity:
                return False
            known = Connection(way, _first_state(packet), now_s)
        if mark is not None:
            value, mask = mark
            known = replace(known, mark=known.mark & ~mask | value & mask)
        self._connections[known.original] = known
        return True

    def connections(self, now_s: float) -> tuple[Connection, ...]:
        """Those that have not timed out, in order of their tuples."""
        alive = (c for c in self._connections.values() if not self._expired(c, now_s))
        return tuple(sorted(alive, key=lambda connection: connection.original))

    def flush(self) -> None:
        """Forget all."""
        self._connections.clear()

    def _expired(self, connection: Connection, now_s: float) -> bool:
        return now_s > connection.last_seen_s + self.timeouts_s[connection.state]

    def _find(self, way: Direction, now_s: float) -> Connection | None:
        for candidate in (way, way.reversed()):
            known = self._connections.get(candidate)
            if known and self._expired(known, now_s):
                del self._connections[candidate]
            elif known:
                return known
        return None

    def _related(self, packet: Packet, zone: int, now_s: float) -> Tracked:
        quoted = embedded(packet)
        way = direction(quoted, zone) if quoted else None
        if way is None or way.source.address != _addresses(packet)[1]:
            return Tracked(INVALID)
        known = self._find(way, now_s)
        if known is None:
            return Tracked(INVALID)
        return Tracked(RELATED | (CtState.RPL if way == known.original else 0), known.mark)

    def _advance(self, known: Connection, way: Direction, packet: Packet, now_s: float) -> Tracked:
        reply = way != known.original
        after = replace(known, last_seen_s=now_s, answered=known.answered or reply)
        after = _tcp(after, packet.tcp_flags, reply) if packet.tcp_flags is not None else _other(after)
        self._connections[known.original] = after
        state = CtState.EST if after.answered else CtState.NEW
        return Tracked(CtState.TRK | state | (CtState.RPL if reply else 0), after.mark)


def direction(packet: Packet, zone: int) -> Direction | None:
    """The packet's tuple; None for what is not IP, a later fragment, or ICMP that is no echo."""
    family, protocol = packet.get("eth_type"), packet.get("ip_proto")
    if family not in (ETH_IPV4, ETH_IPV6) or protocol is None or packet.get("ip_frag") == FRAG_LATER:
        return None
    ends = _endpoints(packet, protocol)
    return Direction(zone, family, protocol, *ends) if ends else None


def _addresses(packet: Packet) -> tuple[int, int]:
    version = "ipv4" if packet.fields["eth_type"] == ETH_IPV4 else "ipv6"
    return packet.fields[f"{version}_src"], packet.fields[f"{version}_dst"]


def _endpoints(packet: Packet, protocol: int) -> tuple[Endpoint, Endpoint] | None:
    source, target = _addresses(packet)
    name = {TCP: "tcp", UDP: "udp", SCTP: "sctp"}.get(protocol)
    if name:
        ports = packet.fields[f"{name}_src"], packet.fields[f"{name}_dst"]
        return Endpoint(source, ports[0]), Endpoint(target, ports[1])
    if _echo(packet) is not None and packet.icmp_id is not None:
        asks, answers = (8, 0) if _echo(packet) else (0, 8)
        return Endpoint(source, packet.icmp_id, asks), Endpoint(target, packet.icmp_id, answers)
    if protocol == (ICMP if packet.fields["eth_type"] == ETH_IPV4 else ICMPV6):
        return None
    return Endpoint(source, 0), Endpoint(target, 0)


def _echo(packet: Packet) -> bool | None:
    """True for an echo request, False for a reply, None for anything else."""
    kind = packet.get("icmpv4_type"), packet.get("icmpv6_type")
    return {(8, None): True, (0, None): False, (None, 128): True, (None, 129): False}.get(kind)


def _is_error(packet: Packet) -> bool:
    return packet.get("icmpv4_type") in ICMP_ERRORS or packet.get("icmpv6_type") in ICMPV6_ERRORS


def _may_open(packet: Packet) -> bool:
    """Whether a packet that belongs to no connection may start one."""
    if packet.tcp_flags is not None:
        return packet.tcp_flags & (SYN | ACK | RST | FIN) == SYN
    return _echo(packet) is not False


def _contradicts(flags: int | None) -> bool:
    """TCP flags that no stack sends together."""
    if flags is None:
        return False
    if flags & SYN:
        return bool(flags & (RST | FIN))
    return not flags & (ACK | RST) or not flags & ACK and bool(flags & (FIN | PSH | URG))


def _first_state(packet: Packet) -> State:
    return State.OPENING if packet.tcp_flags is None else State.SYN_SENT


def _other(connection: Connection) -> Connection:
    return replace(connection, state=State.ANSWERED if connection.answered else State.OPENING)


def _tcp(connection: Connection, flags: int, reply: bool) -> Connection:
    """The connection after a segment with these flags (RFC 9293, section 3.3.2, as a bystander sees it)."""
    if flags & RST:
        return replace(connection, state=State.CLOSED)
    if connection.state in OVER:
        return connection
    if flags & FIN:
        finished = connection.finished | {reply}
        state = State.TIME_WAIT if len(finished) == 2 else State.FIN_WAIT
        return replace(connection, state=state, finished=finished)
    if connection.state is State.SYN_SENT and reply and flags & SYN and flags & ACK:
        return replace(connection, state=State.SYN_RECEIVED)
    if connection.state is State.SYN_RECEIVED and not reply and flags & ACK and not flags & SYN:
        return replace(connection, state=State.ESTABLISHED)
    return connection
