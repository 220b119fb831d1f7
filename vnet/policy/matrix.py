"""Who may open what to whom: the tables of the policies, read as a matrix of identities.

The answer comes from the flows, those that a switch returned or those that a topology is compiled to, and is
exact: what a pair's flows say is worked out for all services at once, as spans of the service register.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from vnet.base.protocols import PORT_PROTOCOLS
from vnet.openflow.fields import ICMP, SCTP, TCP, UDP
from vnet.openflow.flow import Flow
from vnet.policy.identity import OUTSIDE, peer_of, subject_of
from vnet.policy.pipeline import ADMITTED, CLIENT, CLIENT_PEER, SERVER, SERVER_PEER, SERVICE, Stage
from vnet.policy.spans import packed

Spans = tuple[tuple[int, int], ...]
"""Inclusive ranges of the service register, ascending and disjoint."""
NOTHING: Spans = ()
_ECHO = (8, 128)
"""The requests of ICMP and ICMPv6."""
EVERY: Spans = (
    (packed(0), packed(0)),
    *((packed(ICMP, kind), packed(ICMP, kind)) for kind in _ECHO),
    *((packed(protocol), packed(protocol, 0xFFFF)) for protocol in (TCP, UDP, SCTP)),
)
"""All services that a connection can be of."""


@dataclass(frozen=True, slots=True)
class _Row:
    """One flow of a policy table: the services it takes, and where they go on (None: they are lost)."""

    priority: int
    span: tuple[int, int]
    onward: int | None
    cookie: int


class Matrix:
    """The policy tables of some flows, ready to be asked about pairs."""

    def __init__(self, flows: Iterable[Flow], admitted: bool = False) -> None:
        """`admitted` asks for connections that were let in before, instead of new ones."""
        self._rows: dict[tuple[int, int | None, int | None], list[_Row]] = defaultdict(list)
        self._first = int(Stage.INGRESS)
        for flow in flows:
            goto = flow.instructions.goto
            if flow.table == Stage.CONNECTION and goto is not None and goto != Stage.DELIVER:
                self._first = goto  # the same for all that are judged
            is_asked = admitted or flow.match.get(ADMITTED[0]) is None
            if is_asked and Stage.EGRESS <= flow.table < Stage.DELIVER:
                self._rows[flow.table, *spoken_of(flow)].append(_row(flow))

    def allowed(self, client: int, server: int) -> Spans:
        """The services of which the client identity may open connections to the server identity."""
        met = self._met(self._first, client, server, EVERY)
        return joined(span for row, taken in met if row.onward == Stage.DELIVER for span in taken)

    def decided(self, client: int, server: int) -> Mapping[tuple[bool, int], Spans]:
        """All services, by whether they are allowed and the cookie of the flow that has the last word.

        Of servers outside, who have no ingress, that is a flow of the client's egress.
        """
        found: dict[tuple[bool, int], list[tuple[int, int]]] = defaultdict(list)
        by_client = subject_of(server) == OUTSIDE and is_egress(self._first)
        for row, taken in self._met(self._first, client, server, EVERY):
            last = range(Stage.INGRESS, Stage.DELIVER) if by_client else (Stage.DELIVER,)
            if row.onward is None or row.onward in last:
                found[row.onward is not None, row.cookie] += taken
        return {key: joined(spans) for key, spans in found.items()}

    def _met(self, table: int, client: int, server: int, asked: Spans) -> Iterator[tuple[_Row, Spans]]:
        """The flows of this table and those behind it that take something of `asked`, and what."""
        left = asked
        for row in self._of(table, client, server):
            taken = _meet(left, row.span)
            left = _minus(left, row.span)
            if not taken:
                continue
            yield row, taken
            if row.onward not in (None, Stage.DELIVER):
                yield from self._met(row.onward, client, server, taken)

    def _of(self, table: int, client: int, server: int) -> list[_Row]:
        subject, peer = (client, server) if is_egress(table) else (server, client)
        found = [
            row
            for one, other in product((subject_of(subject), None), (peer_of(peer), None))
            for row in self._rows.get((table, one, other), ())
        ]
        return sorted(found, key=lambda row: -row.priority)


def is_egress(table: int) -> bool:
    """Whether a table of policies judges the client's egress."""
    return table < Stage.INGRESS


def spoken_of(flow: Flow) -> tuple[int | None, int | None]:
    """The subject's and the peer's number that a flow of a policy table names; None for whoever it is."""
    subject, peer = (CLIENT, SERVER_PEER) if is_egress(flow.table) else (SERVER, CLIENT_PEER)
    return _exact(flow, subject), _exact(flow, peer)


def _exact(flow: Flow, register: str) -> int | None:
    held = flow.match.get(register)
    return held[0] if held else None


def _row(flow: Flow) -> _Row:
    value, mask = flow.match.get(SERVICE) or (0, 0)
    span = value, value | ~mask & 0xFFFFFFFF
    return _Row(flow.priority, span, flow.instructions.goto, flow.cookie)


def _meet(spans: Spans, other: tuple[int, int]) -> Spans:
    low, high = other
    return tuple((max(a, low), min(b, high)) for a, b in spans if a <= high and low <= b)


def _minus(spans: Spans, other: tuple[int, int]) -> Spans:
    low, high = other
    left = []
    for a, b in spans:
        if b < low or high < a:
            left.append((a, b))
            continue
        if a < low:
            left.append((a, low - 1))
        if high < b:
            left.append((high + 1, b))
    return tuple(left)


def joined(spans: Iterable[tuple[int, int]]) -> Spans:
    """Spans in order, neighbours of one protocol put together."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(spans):
        if found and low <= found[-1][1] + 1 and low >> 16 == found[-1][0] >> 16:
            found[-1] = found[-1][0], max(high, found[-1][1])
        else:
            found.append((low, high))
    return tuple(found)


def common(spans: Spans, others: Spans) -> Spans:
    """What is in both."""
    return tuple(sorted(piece for other in others for piece in _meet(spans, other)))


def less(spans: Spans, others: Spans) -> Spans:
    """What of some spans is not in others."""
    for other in others:
        spans = _minus(spans, other)
    return spans


def words(spans: Spans) -> str:
    """`5432/tcp, icmp`; `any` for everything, `-` for nothing."""
    if spans == EVERY:
        return "any"
    told = dict.fromkeys(_word(low, high) for low, high in spans)
    if {"icmp:8", "icmpv6:128"} <= told.keys():
        told = dict.fromkeys("icmp" if word.startswith("icmp") else word for word in told)
    return ", ".join(told) or "-"


def _word(low: int, high: int) -> str:
    protocol, first, last = low >> 16, low & 0xFFFF, high & 0xFFFF
    if protocol == 0:
        return "other protocols"
    if protocol == ICMP:
        return f"icmp:{first}" if first == _ECHO[0] else f"icmpv6:{first}"
    name = PORT_PROTOCOLS[protocol]
    if (first, last) == (0, 0xFFFF):
        return name
    return f"{first}/{name}" if first == last else f"{first}-{last}/{name}"
