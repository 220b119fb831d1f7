"""Tables 5 and 50: which end of the connection is the client, and how an allowed packet leaves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from vnet.base.drop import DropReason
from vnet.openflow.fields import ETH_IPV4, ETH_IPV6, ICMP, ICMPV6, SCTP, TCP, UDP, CtState
from vnet.openflow.flow import (
    Action,
    Conntrack,
    Move,
    Output,
    OutputField,
    PopVlan,
    Port,
    SetField,
    match,
)
from vnet.policy import origin
from vnet.policy.endpoint import IPAddress
from vnet.policy.entry import ANY_TAG, Entry, entry, miss, vlan
from vnet.policy.identity import OUTSIDE
from vnet.policy.outside import Edge
from vnet.policy.pipeline import (
    ADMITTED,
    APART,
    BOTH_APART,
    CLIENT,
    CLIENT_PEER,
    LOGGED,
    OUT_PORT,
    OUTSIDER,
    SCRATCH,
    SERVER,
    SERVER_PEER,
    SERVICE,
    Stage,
)
from vnet.policy.spans import packed

PORTS = {TCP: ("tcp_src", "tcp_dst"), UDP: ("udp_src", "udp_dst"), SCTP: ("sctp_src", "sctp_dst")}

ECHO = {
    ICMP: (ETH_IPV4, "icmpv4_type", 8, 0),
    ICMPV6: (ETH_IPV6, "icmpv6_type", 128, 129),
}
"""Echo request and reply (RFC 792; RFC 4443, section 4): the only ICMP that makes a connection."""

LOGGED_BYTES = 128
"""How much of a packet the log is sent: the headers."""

_TRK, _RPL, _REL, _INV = CtState.TRK, CtState.RPL, CtState.REL, CtState.INV
REQUEST_STATE = (_TRK, _TRK | _RPL | _REL | _INV)
REPLY_STATE = (_TRK | _RPL, _TRK | _RPL | _REL | _INV)
RELATED_STATE = (_TRK | _REL, _TRK | _REL | _INV)
SWAP = tuple(
    move
    for one, other in ((CLIENT, SERVER), (CLIENT_PEER, SERVER_PEER))
    for move in (Move(one, SCRATCH, 32), Move(other, one, 32), Move(SCRATCH, other, 32))
)


def connection(onward: int) -> Iterator[Entry]:
    """Table 5: invalid packets end here, also errors that `errors` leaves; the rest learns its client.

    Args:
        onward: the table of the first rules.
    """
    yield entry(Stage.CONNECTION, 500, match(**{APART: (BOTH_APART, BOTH_APART)}), origin.APART)
    yield entry(Stage.CONNECTION, 400, match(ct_state=(_TRK | _INV, _TRK | _INV)), origin.INVALID)
    others = origin.fabric("error", "an error about other people's connection", DropReason.INVALID_STATE)
    yield entry(Stage.CONNECTION, 300, match(ct_state=RELATED_STATE), others)
    request = origin.fabric("request", "from the client to the server")
    yield from _with_service(request, REQUEST_STATE, (), 1, onward)
    reply = origin.fabric("reply", "from the server to the client")
    yield from _with_service(reply, REPLY_STATE, SWAP, 0, onward)
    untracked = origin.fabric("connection", "the state is not known", DropReason.INVALID_STATE)
    yield miss(Stage.CONNECTION, untracked)


def errors(addresses: Iterable[IPAddress]) -> Iterator[Entry]:
    """Table 5: an error about a known connection is delivered if one of the two that have it sends it.

    The tracker sees to it that it goes to the other one. Anybody else on the network could end or slow down a
    connection whose ports it guesses (RFC 5927).
    """
    related = origin.fabric("related", "an error about a known connection")
    for address in sorted(set(addresses), key=lambda each: (each.version, each)):
        number = int(address)
        if address.version == 4:
            sent = {"eth_type": ETH_IPV4, "ipv4_src": number}
            ends = "ct_nw_src", "ct_nw_dst"
        else:
            sent = {"eth_type": ETH_IPV6, "ipv6_src": number}
            ends = "ct_ipv6_src", "ct_ipv6_dst"
        for end in ends:
            about = match(ct_state=RELATED_STATE, **sent, **{end: number})
            yield entry(Stage.CONNECTION, 310, about, related, goto=Stage.DELIVER)


def errors_outside() -> Entry:
    """Table 5: an error from outside about a connection with somebody outside is delivered.

    Any router on the way may send it, so it may come from any address there. About other people's connections
    nobody outside has anything to say.
    """
    related = origin.fabric("related outside", "an error about a known connection with the outside")
    about = match(ct_state=RELATED_STATE, ct_mark=(OUTSIDER[1], OUTSIDER[1]), **{CLIENT: OUTSIDE})
    return entry(Stage.CONNECTION, 310, about, related, goto=Stage.DELIVER)


def _with_service(
    why: origin.Origin, state: tuple[int, int], first: tuple[Action, ...], server: int, onward: int
) -> Iterator[Entry]:
    """Flows that note the service: protocol and port `server` (0 source, 1 destination) of the packet."""
    for protocol, fields in PORTS.items():
        note = (SetField(SERVICE, packed(protocol)), Move(fields[server], SERVICE, 16))
        for eth_type in (ETH_IPV4, ETH_IPV6):
            where = match(ct_state=state, eth_type=eth_type, ip_proto=protocol)
            yield entry(Stage.CONNECTION, 200, where, why, *first, *note, goto=onward)
    for protocol, (eth_type, field, request, reply) in ECHO.items():
        where = match(
            ct_state=state, eth_type=eth_type, ip_proto=protocol, **{field: request if server else reply}
        )
        known = SetField(SERVICE, packed(ICMP, request))
        yield entry(Stage.CONNECTION, 200, where, why, *first, known, goto=onward)
        other = match(ct_state=state, eth_type=eth_type, ip_proto=protocol)
        yield entry(Stage.CONNECTION, 150, other, origin.INVALID)
    yield entry(Stage.CONNECTION, 100, match(ct_state=state), why, *first, goto=onward)


def deliver(
    vlans: Iterable[int], zones: Iterable[int], logging: bool = False, edges: Iterable[Edge] = ()
) -> Iterator[Entry]:
    """Table 50: the first packet of a connection commits it; every packet leaves untagged.

    A connection is new until it is answered, so the mark tells its first packet, the one to log, from others.

    Args:
        zones: those of routers: what they carry is committed there, whichever network it goes to.
        logging: whether some rule has `log: true`.
        edges: connections that cross these are marked.
    """
    leave = (PopVlan(), OutputField(OUT_PORT))
    for number in vlans:
        yield from _commit({"vlan_vid": vlan(number)}, number, 200, leave, logging)
    for zone in zones:
        yield from _commit({"ct_zone": zone, "vlan_vid": ANY_TAG}, zone, 220, leave, logging)
    for edge in edges:
        yield from _deliver_outside(edge, leave, logging)
    known = origin.fabric("deliver", "of a known connection")
    yield entry(Stage.DELIVER, 100, match(vlan_vid=ANY_TAG), known, *leave)
    yield miss(Stage.DELIVER, origin.fabric("deliver nowhere", "not in any network", DropReason.NO_DST))


def _deliver_outside(edge: Edge, leave: tuple[Action, ...], logging: bool) -> Iterator[Entry]:
    """Connections with somebody outside are marked as such; by a trunk packets leave with their tag."""
    where: dict[str, int | tuple[int, int]] = {"vlan_vid": vlan(edge.nic.vlan)}
    if edge.is_exit:
        where = {"ct_zone": edge.zone, "vlan_vid": ANY_TAG}
    priority, mark = 260 if edge.is_exit else 240, ADMITTED[1] | OUTSIDER[1]
    yield from _commit(where | {CLIENT: OUTSIDE}, edge.zone, priority, leave, logging, mark)
    if not edge.is_tagged:
        yield from _commit(where | {SERVER: OUTSIDE}, edge.zone, priority, leave, logging, mark)
        return
    there, out = where | {OUT_PORT: edge.nic.port}, (OutputField(OUT_PORT),)
    yield from _commit(there, edge.zone, 280, out, logging, mark)
    known = origin.fabric("deliver tagged", "of a known connection, by a trunk")
    yield entry(Stage.DELIVER, 110, match(**there), known, *out)


def _commit(
    where: Mapping[str, int | tuple[int, int]],
    zone: int,
    priority: int,
    leave: tuple[Action, ...],
    logging: bool,
    mark: int = ADMITTED[1],
) -> Iterator[Entry]:
    """What enters a new connection into a zone, and tells the controller of it if that is wanted."""
    commit = origin.fabric("commit", "a new connection")
    tell = Output(Port.CONTROLLER, LOGGED_BYTES)
    for eth_type in (ETH_IPV4, ETH_IPV6):
        new: dict[str, int | tuple[int, int]] = {
            **where,
            "eth_type": eth_type,
            "ct_state": (_TRK | CtState.NEW, _TRK | CtState.NEW | _RPL | _INV),
        }
        enter = Conntrack(zone=zone, commit=True, mark=(mark, mark))
        yield entry(Stage.DELIVER, priority, match(**new), commit, enter, *leave)
        if logging:
            first = match(**new | {ADMITTED[0]: (0, ADMITTED[1]), LOGGED: 1})
            yield entry(Stage.DELIVER, priority + 10, first, origin.LOGGED, enter, tell, *leave)
