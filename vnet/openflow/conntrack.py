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
may open a connection forgets the old one and is new. From CLOSED both sides' ACKs (without SYN, FIN and RST)
lead back, to ESTABLISHED or as far as FINs were seen: the reset was none. States only choose the timeout and
admit these restarts. Tracking refreshes the timeout, an ICMP error or an invalid packet does not.

`commit` of an invalid packet does nothing. Of a related one, or of a known connection, it writes the
connection's mark and label only (so does Open vSwitch, conntrack.c: process_one), unless `force` is given and
the packet is a reply, or related as if it were one: then the connection is forgotten, and the packet is new
if it may open one, else inv.

A later fragment has no ports. It belongs to the connection of its datagram's first fragment, if that was
seen by this zone in the last 30 s, and is refused before: `track` answers None and the switch drops it.
Nothing is put together or held back. Once two fragments hold the same byte all of the datagram is inv
(RFC 5722). It says nothing about the state of TCP. A refused fragment leaves no trace.

`nat` of a commit chooses how the new connection is translated; every packet that is sent through `ct(nat)`
is then translated as its connection says, replies and quoted packets back, and snat or dnat tell which of
its addresses that was. The own port is kept if it is allowed and free, else the next free one is taken;
without a range SNAT stays among 1-511, 600-1023 or 1024-65535 as the own port, and DNAT keeps the port.
The identifier of an echo is the port of the side that asks. Where all are taken the packet is refused (the
dataplane gives up after 64 that follow each other), as is one whose replies another connection's translation
has taken.

How Open vSwitch's userspace tracker (3.1) differs, by design:
- it picks up TCP in mid-stream: an ACK that belongs to no connection is new there, inv here;
- it checks sequence numbers, checksums and lengths; here the guest's own stack does, and a reset that it did
  not take is undone as told above;
- a TCP packet of a committed connection that is no SYN is est there even before the responder was heard;
- a SYN from the responder of an unanswered connection (simultaneous open) is new without rpl there;
- ICMP timestamp and information requests are tracked there, inv here;
- fragments are reassembled before they are tracked there;
- an invalid packet of a known connection is translated there;
- where no translation is left the packet goes on as it is, and uncommitted, there;
- where a range leaves a choice, a hash makes it there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import chain

from vnet.base.drop import DropReason
from vnet.base.protocols import PORT_PROTOCOLS
from vnet.openflow.fields import ETH_IPV4, ETH_IPV6, ICMP, ICMPV6, SCTP, TCP, UDP, CtState
from vnet.openflow.flow import Conntrack, Nat
from vnet.openflow.packet import FRAG_LATER, Packet, embedded, is_icmp_error, parse
from vnet.openflow.rewrite import write

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
    """Echo only: 8 for the side that asks, 0 for the one that answers and has no port."""


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
    """As the opener sends."""
    reply: Direction
    """As the responder sends: to the translated source, from the translated target."""
    state: State
    last_seen_s: float
    answered: bool = False
    finished: frozenset[bool] = frozenset()
    going_on: frozenset[bool] = frozenset()
    """The directions that have gone on since the last reset; with both it was none."""
    mark: int = 0
    label: int = 0


@dataclass(frozen=True, slots=True)
class Tracked:
    """What the tracker says of one packet."""

    state: int
    mark: int = 0
    label: int = 0
    original: Direction | None = None
    """How its connection's opener sends, or would; of an invalid one None."""


@dataclass(frozen=True, slots=True)
class Passed:
    """A packet that went through `ct`: what is known of it, and its bytes, perhaps translated."""

    tracked: Tracked
    frame: bytes


DatagramKey = tuple[int, int, int, int, int, int]
"""(zone, family, source, target, protocol, identification)."""
FRAGMENT_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class Datagram:
    """What was learnt from the first fragment of a datagram, and which bytes came since.

    `way` is None where the first one could not be attributed: then `opens` is meaningless.
    """

    way: Direction | None
    opens: bool
    at_s: float
    pieces: tuple[tuple[int, int], ...] = ()
    overlaps: bool = False

    def add(self, start: int, end: int) -> Datagram:
        """With one more fragment."""
        overlaps = any(start < other_end and other_start < end for other_start, other_end in self.pieces)
        return replace(self, pieces=(*self.pieces, (start, end)), overlaps=self.overlaps or overlaps)


Spread = Callable[[Direction, int], int]
"""(tuple, n) -> where among n addresses or ports the search for a free one begins."""


def at_first(_way: Direction, _count: int) -> int:
    """The spread that always begins at the first."""
    return 0


@dataclass(slots=True)
class Tracker:
    """All zones' connections. `capacity` bounds their number; commit beyond it is refused."""

    timeouts_s: Mapping[State, int] = field(default_factory=lambda: TIMEOUTS_S)
    capacity: int | None = None
    spread: Spread = at_first
    _connections: dict[Direction, Connection] = field(default_factory=dict)
    """By both directions."""
    _datagrams: dict[DatagramKey, Datagram] = field(default_factory=dict)
    _noted: set[DatagramKey] = field(default_factory=set)
    """Datagrams in which the packet at hand was noted: it may be tracked several times."""

    def copy(self) -> Tracker:
        """One that goes its own way from here."""
        return replace(
            self,
            _connections=dict(self._connections),
            _datagrams=dict(self._datagrams),
            _noted=set(self._noted),
        )

    def arrived(self) -> None:
        """Tell that the next calls are about another packet; needed for fragments only."""
        self._noted.clear()

    def send(self, packet: Packet, zone: int, now_s: float, action: Conntrack) -> Passed | DropReason:
        """Send a packet through `ct`; its table is the caller's affair. Returns why it is lost, if it is."""
        tracked = self.track(packet, zone, now_s)
        if tracked is None:
            return DropReason.FRAGMENT
        if action.commit and action.force:
            tracked = self._start_anew(packet, zone, now_s, tracked)
        if action.commit and not self.commit(
            packet, zone, now_s, action.mark, action.force, label=action.label, nat=action.nat
        ):
            return DropReason.NAT_FULL if action.nat else DropReason.CT_FULL
        found = self._belongs(packet, zone, now_s)
        if found is None or tracked.state & CtState.INV:
            return Passed(tracked, packet.frame)
        known, way = found
        tracked = replace(tracked, mark=known.mark, label=known.label)
        if action.nat is None:
            return Passed(tracked, packet.frame)
        related = embedded(packet) if tracked.state & CtState.REL else None
        return Passed(
            replace(tracked, state=tracked.state | _translation(known, way)),
            _translate(packet, related, known, way),
        )

    def track(self, packet: Packet, zone: int, now_s: float) -> Tracked | None:
        """The packet's state in `zone`, and what it tells about its connection is noted.

        Returns: None for a later fragment of which no first one is known.
        """
        datagram = self._note(packet, zone, now_s)
        if datagram is None and packet.get("ip_frag") == FRAG_LATER:
            return None
        if datagram and datagram.overlaps:
            return Tracked(INVALID)
        if is_icmp_error(packet):
            return self._related(packet, zone, now_s)
        way = self._way(packet, zone)
        if way is None or _contradicts(packet.get("tcp_flags")):
            return Tracked(INVALID)
        opens = datagram.opens if datagram else _may_open(packet)
        known = self._find(way, now_s)
        if known and known.state in OVER and opens:
            self._forget(known)
            known = None
        if known is None:
            return Tracked(CtState.TRK | CtState.NEW, original=way) if opens else Tracked(INVALID)
        return self._advance(known, way, packet, now_s)

    def commit(
        self,
        packet: Packet,
        zone: int,
        now_s: float,
        mark: tuple[int, int] | None = None,
        force: bool = False,
        *,
        label: tuple[int, int] | None = None,
        nat: Nat | None = None,
    ) -> bool:
        """Enter the packet's connection into the zone. Returns False if there is no room for it."""
        tracked = self.track(packet, zone, now_s)
        if force and tracked:
            tracked = self._start_anew(packet, zone, now_s, tracked)
        found = self._belongs(packet, zone, now_s)
        if tracked and tracked.state & CtState.REL and found:
            self._write(found[0], mark, label)
        way = self._way(packet, zone)
        if tracked is None or way is None or tracked.state & (CtState.INV | CtState.REL):
            return True
        known = self._find(way, now_s)
        if known is None:
            reply = self._reply(way, nat, now_s)
            if reply is None or self._is_full(now_s):
                return False
            known = Connection(way, reply, _first_state(way), now_s)
        self._write(known, mark, label)
        return True

    def _start_anew(self, packet: Packet, zone: int, now_s: float, tracked: Tracked) -> Tracked:
        """Forget the connection of a reply: what the packet is without it."""
        if not tracked.state & CtState.RPL:
            return tracked
        known, _ = self._belongs(packet, zone, now_s) or (None, None)
        assert known
        self._forget(known)
        return self.track(packet, zone, now_s) or Tracked(INVALID)

    def _write(self, known: Connection, mark: tuple[int, int] | None, label: tuple[int, int] | None) -> None:
        self._enter(replace(known, mark=_masked(known.mark, mark), label=_masked(known.label, label)))

    def connections(self, now_s: float) -> tuple[Connection, ...]:
        """Those that have not timed out, in order of their tuples."""
        alive = {c.original: c for c in self._connections.values() if not self._expired(c, now_s)}
        return tuple(alive[way] for way in sorted(alive))

    def flush(self) -> None:
        """Forget all."""
        self._connections.clear()
        self._datagrams.clear()

    # -- table ------------------------------------------------------------------------------------

    def _is_full(self, now_s: float) -> bool:
        return self.capacity is not None and len(self.connections(now_s)) >= self.capacity

    def _enter(self, connection: Connection) -> None:
        self._connections[connection.original] = self._connections[connection.reply] = connection

    def _forget(self, connection: Connection) -> None:
        del self._connections[connection.original]
        self._connections.pop(connection.reply, None)

    def _expired(self, connection: Connection, now_s: float) -> bool:
        return now_s > connection.last_seen_s + self.timeouts_s[connection.state]

    def _find(self, way: Direction, now_s: float) -> Connection | None:
        known = self._connections.get(way)
        if known and self._expired(known, now_s):
            self._forget(known)
            return None
        return known

    def _way(self, packet: Packet, zone: int) -> Direction | None:
        """The packet's tuple, or that of its datagram."""
        datagram = self._datagrams.get(_datagram_key(packet, zone)) if packet.fragment else None
        return datagram.way if datagram else direction(packet, zone)

    def _belongs(self, packet: Packet, zone: int, now_s: float) -> tuple[Connection, Direction] | None:
        """The connection that a packet or the one it quotes is of, and as which of its directions it goes."""
        if is_icmp_error(packet):
            way = self._answered_by(packet, zone)
        else:
            way = self._way(packet, zone)
        known = self._find(way, now_s) if way else None
        return (known, way) if known and way else None

    # -- states -----------------------------------------------------------------------------------

    def _answered_by(self, packet: Packet, zone: int) -> Direction | None:
        """The direction in which an ICMP error goes: against the packet that it quotes."""
        quoted = embedded(packet)
        way = direction(quoted, zone) if quoted else None
        if way is None or way.source.address != _addresses(packet)[1]:
            return None
        return way.reversed()

    def _related(self, packet: Packet, zone: int, now_s: float) -> Tracked:
        way = self._answered_by(packet, zone)
        known = self._find(way, now_s) if way else None
        if known is None:
            return Tracked(INVALID)
        reply = CtState.RPL if way == known.reply else 0
        return Tracked(RELATED | reply, known.mark, known.label, known.original)

    def _advance(self, known: Connection, way: Direction, packet: Packet, now_s: float) -> Tracked:
        reply = way != known.original
        after = replace(known, last_seen_s=now_s, answered=known.answered or reply)
        flags = packet.get("tcp_flags")
        if flags is not None:
            after = _tcp(after, flags, reply)
        elif way.protocol != TCP:
            after = _other(after)
        self._enter(after)
        state = CtState.EST if after.answered else CtState.NEW
        reply_bit = CtState.RPL if reply else 0
        return Tracked(CtState.TRK | state | reply_bit, after.mark, after.label, after.original)

    # -- fragments --------------------------------------------------------------------------------

    def _note(self, packet: Packet, zone: int, now_s: float) -> Datagram | None:
        """What is known of the datagram of a fragment, this one included."""
        if packet.fragment is None:
            return None
        key = _datagram_key(packet, zone)
        known = self._datagrams.get(key)
        if known and now_s > known.at_s + FRAGMENT_TIMEOUT_S:
            known = None
        if key in self._noted:
            return known
        if known is None and packet.get("ip_frag") != FRAG_LATER:
            opens = not _contradicts(packet.get("tcp_flags")) and _may_open(packet)
            known = Datagram(direction(packet, zone), opens, now_s)
        if known is None:
            self._datagrams.pop(key, None)
            return None
        known = self._datagrams[key] = known.add(packet.fragment.start, packet.fragment.end)
        self._noted.add(key)
        return known

    # -- translation ------------------------------------------------------------------------------

    def _reply(self, way: Direction, nat: Nat | None, now_s: float) -> Direction | None:
        """What a new connection's responder will send; None if no translation is left."""
        replies = _replies(way, nat, self.spread)
        return next((reply for reply in replies if not self._find(reply, now_s)), None)


def _replies(way: Direction, nat: Nat | None, spread: Spread) -> Iterator[Direction]:
    """The tuples that the responder may be given to send, the preferred first."""
    plain = way.reversed()
    if nat is None or nat.source is None:
        yield plain
        return
    own = way.source if nat.source else way.target
    first, last = nat.addresses or (own.address, own.address)
    ports = _ports(way, own, nat)
    for address in _rotated(range(first, last + 1), spread(way, last - first + 1)):
        kept = () if nat.ports else (own.port,)
        begin = ports.index(own.port) if own.port in ports else spread(way, len(ports)) if nat.ports else 0
        for port in chain(kept, _rotated(ports, begin)):
            end = replace(own, address=address, port=port)
            yield replace(plain, target=end) if nat.source else replace(plain, source=end)


def _rotated(values: range, begin: int) -> Iterator[int]:
    yield from values[begin:]
    yield from values[:begin]


PRIVILEGED, RESERVED, OTHERS = range(1, 512), range(600, 1024), range(1024, 65536)
"""Ports among which SNAT stays, as Linux and Open vSwitch do."""


def _ports(way: Direction, own: Endpoint, nat: Nat) -> range:
    if way.protocol not in (TCP, UDP, SCTP) and own.role != ASKS:
        return range(own.port, own.port + 1)
    if nat.ports:
        return range(nat.ports[0], nat.ports[1] + 1)
    if not nat.source:
        return range(own.port, own.port + 1)
    return PRIVILEGED if own.port < 512 else RESERVED if own.port < 1024 else OTHERS


def _translated(known: Connection, way: Direction) -> Direction:
    """The tuple that a packet of one direction has when it leaves."""
    return (known.reply if way == known.original else known.original).reversed()


def _translation(known: Connection, way: Direction) -> int:
    """SNAT or DNAT, as the packet's source or target is changed."""
    after = _translated(known, way)
    return (CtState.SNAT if after.source != way.source else 0) | (
        CtState.DNAT if after.target != way.target else 0
    )


def _translate(packet: Packet, quoted: Packet | None, known: Connection, way: Direction) -> bytes:
    """The frame with the tuple that it has behind the translation; a quoted packet as its sender knows it."""
    after = _translated(known, way)
    if quoted is None:
        return write(packet, _values(packet, way, after))
    frame = write(quoted, _values(quoted, way.reversed(), after.reversed()))
    outer = {name: value for name, value in _values(packet, way, after).items() if name.startswith("ip")}
    return write(replace(packet, frame=frame), outer)


def _values(packet: Packet, before: Direction, after: Direction) -> dict[str, int]:
    """The fields in which two tuples differ."""
    version = "ipv4" if before.family == ETH_IPV4 else "ipv6"
    protocol = PORT_PROTOCOLS.get(before.protocol)
    values = {}
    for side, old, new in (("src", before.source, after.source), ("dst", before.target, after.target)):
        if new.address != old.address:
            values[f"{version}_{side}"] = new.address
        if new.port != old.port:
            values[f"{protocol}_{side}" if protocol else "icmp_id"] = new.port
    return values


def _masked(value: int, change: tuple[int, int] | None) -> int:
    if change is None:
        return value
    return value & ~change[1] | change[0] & change[1]


def _datagram_key(packet: Packet, zone: int) -> DatagramKey:
    assert packet.fragment
    family, protocol = packet.fields["eth_type"], packet.fields["ip_proto"]
    return (zone, family, *_addresses(packet), protocol, packet.fragment.identification)


ASKS = 8
"""The role of the side of an echo that asks."""


def direction(packet: Packet, zone: int) -> Direction | None:
    """The packet's tuple; None for what is not IP, a later fragment, or ICMP that is no echo."""
    family, protocol = packet.get("eth_type"), packet.get("ip_proto")
    if family not in (ETH_IPV4, ETH_IPV6) or protocol is None or packet.get("ip_frag") == FRAG_LATER:
        return None
    ends = _endpoints(packet, protocol)
    return Direction(zone, family, protocol, *ends) if ends else None


def original_fields(way: Direction | None) -> dict[str, int]:
    """What can be matched of a connection's original direction (`vnet.openflow.fields.ORIGINAL`)."""
    if way is None:
        return {"ct_nw_proto": 0, "ct_tp_src": 0, "ct_tp_dst": 0}
    version = "nw" if way.family == ETH_IPV4 else "ipv6"
    ports = way.source.port, way.target.port
    if way.protocol == (ICMP if way.family == ETH_IPV4 else ICMPV6):
        ports = (8 if way.protocol == ICMP else 128), 0
    return {
        "ct_nw_proto": way.protocol,
        f"ct_{version}_src": way.source.address,
        f"ct_{version}_dst": way.target.address,
        "ct_tp_src": ports[0],
        "ct_tp_dst": ports[1],
    }


def connection_ends(frame: bytes) -> tuple[int | None, ...]:
    """Addresses and ports: a packet with others is another connection's."""
    fields = parse(frame).fields
    names = ("src", "dst")
    families = [f"{name}_{side}" for name in ("ipv4", "ipv6", *PORT_PROTOCOLS.values()) for side in names]
    return tuple(fields.get(name) for name in families)


def _addresses(packet: Packet) -> tuple[int, int]:
    version = "ipv4" if packet.fields["eth_type"] == ETH_IPV4 else "ipv6"
    return packet.fields[f"{version}_src"], packet.fields[f"{version}_dst"]


def _endpoints(packet: Packet, protocol: int) -> tuple[Endpoint, Endpoint] | None:
    source, target = _addresses(packet)
    name = PORT_PROTOCOLS.get(protocol)
    if name:
        ports = packet.fields[f"{name}_src"], packet.fields[f"{name}_dst"]
        return Endpoint(source, ports[0]), Endpoint(target, ports[1])
    if _echo(packet) is not None and packet.icmp_id is not None:
        asks, answers = (source, target) if _echo(packet) else (target, source)
        ends = Endpoint(asks, packet.icmp_id, ASKS), Endpoint(answers, 0)
        return ends if _echo(packet) else ends[::-1]
    if protocol == (ICMP if packet.fields["eth_type"] == ETH_IPV4 else ICMPV6):
        return None
    return Endpoint(source, 0), Endpoint(target, 0)


def _echo(packet: Packet) -> bool | None:
    """True for an echo request, False for a reply, None for anything else."""
    kind = packet.get("icmpv4_type"), packet.get("icmpv6_type")
    if packet.get("icmpv4_code") or packet.get("icmpv6_code"):
        return None
    return {(8, None): True, (0, None): False, (None, 128): True, (None, 129): False}.get(kind)


def _may_open(packet: Packet) -> bool:
    """Whether a packet that belongs to no connection may start one."""
    flags = packet.get("tcp_flags")
    if flags is not None:
        return flags & (SYN | ACK | RST | FIN) == SYN
    return _echo(packet) is not False


def _contradicts(flags: int | None) -> bool:
    """TCP flags that no stack sends together."""
    if flags is None:
        return False
    if flags & SYN:
        return bool(flags & (RST | FIN))
    return not flags & (ACK | RST) or not flags & ACK and bool(flags & (FIN | PSH | URG))


def _first_state(way: Direction) -> State:
    return State.SYN_SENT if way.protocol == TCP else State.OPENING


def _other(connection: Connection) -> Connection:
    return replace(connection, state=State.ANSWERED if connection.answered else State.OPENING)


FINISHED = (State.ESTABLISHED, State.FIN_WAIT, State.TIME_WAIT)
"""By the number of directions that sent FIN."""


def _after_reset(connection: Connection) -> Connection:
    """Once both sides have gone on, the reset was none."""
    if len(connection.going_on) < 2:
        return connection
    return replace(connection, state=FINISHED[len(connection.finished)])


def _tcp(connection: Connection, flags: int, reply: bool) -> Connection:
    """The connection after a segment with these flags (RFC 9293, section 3.3.2, as a bystander sees it)."""
    if flags & RST:
        return replace(connection, state=State.CLOSED, going_on=frozenset())
    if connection.state is State.CLOSED and flags & (SYN | ACK | FIN) == ACK:
        return _after_reset(replace(connection, going_on=connection.going_on | {reply}))
    if connection.state in OVER:
        return connection
    if flags & FIN:
        finished = connection.finished | {reply}
        return replace(connection, state=FINISHED[len(finished)], finished=finished)
    if connection.state is State.SYN_SENT and reply and flags & SYN and flags & ACK:
        return replace(connection, state=State.SYN_RECEIVED)
    if connection.state is State.SYN_RECEIVED and not reply and flags & ACK and not flags & SYN:
        return replace(connection, state=State.ESTABLISHED)
    return connection
