"""Rules that could be left out: what is there is decided the same without them.

Some decide nothing: nobody whom they speak of is there or can be met, or no packet gets as far as they are.
Others decide packets, but what comes after them, on this side or on the other, decides these the same. Each
finding is about one rule alone and about all packets, also those of connections that were let in before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from vnet.base.drop import DropReason
from vnet.openflow.fields import ICMP, ICMPV6, SCTP, TCP, UDP
from vnet.policy import origin
from vnet.policy.explain import CLIENT_PORT, place
from vnet.policy.guard import DHCP, DHCPV6
from vnet.policy.identity import Identities
from vnet.policy.matrix import EVERY, Spans, common, less
from vnet.policy.meetings import Meeting, Meetings, rule_lists, selected
from vnet.policy.origin import Origin
from vnet.policy.rows import Asked, Decider, Fate, Piece, Row
from vnet.policy.semantics import REQUEST_TYPE, Packet, in_order, rules_of
from vnet.policy.spans import packed
from vnet.topology.model import Direction, Topology

_GUARDED = {4: packed(UDP, DHCP[1]), 6: packed(UDP, DHCPV6[1])}
"""Port security lets nobody send to the port of DHCP's clients."""
SERVICES: Mapping[int, Spans] = {
    version: less(EVERY, tuple((each, each) for each in (_GUARDED[version], packed(ICMP, other))))
    for version, other in ((4, REQUEST_TYPE[ICMPV6]), (6, REQUEST_TYPE[ICMP]))
}
"""By IP version: the services that a packet can be of."""
_PREFERRED = (TCP, UDP, ICMP, SCTP, 0)
_SSH, _GRE = packed(TCP, 22), 47


class Kind(Enum):
    """Why a rule could be left out."""

    ABSENT = "absent"
    IMPOSSIBLE = "impossible"
    SHADOWED = "shadowed"
    BLOCKED = "blocked"
    REDUNDANT = "redundant"


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that could be left out, and a packet that shows it.

    Of a rule that decides nothing `packet` is one it speaks of and `by` what takes it before; of a redundant
    one `packet` is one it decides and `by` what would decide it instead.
    """

    kind: Kind
    rule: Origin
    packet: Packet | None = None
    by: Origin | None = None
    does: str = ""
    """What `by` does with the packet: `allowed`, `denied`, …"""

    @property
    def decides(self) -> bool:
        """Whether the rule decides packets at all."""
        return self.kind is Kind.REDUNDANT

    @property
    def note(self) -> str:
        """The finding in words."""
        by = _briefly(self.by) if self.by else ""
        return {
            Kind.ABSENT: "never decides: nobody whom it speaks of is there",
            Kind.IMPOSSIBLE: "never decides: nobody can send what it speaks of",
            Kind.SHADOWED: f"never decides: {by} comes first",
            Kind.BLOCKED: "never decides: no packet gets as far as this rule",
            Kind.REDUNDANT: f"redundant: without it {by} decides the same",
        }[self.kind]

    @property
    def example(self) -> str:
        """The packet, and what takes it or would take it; empty if there is none."""
        if self.packet is None or self.by is None:
            return ""
        admitted = " (let in before)" if self.packet.admitted else ""
        return f"{self.packet}{admitted}: {'else ' if self.decides else ''}{self.does} by {_in_full(self.by)}"


def _briefly(by: Origin) -> str:
    """`db-from-app ingress 2 (FILE:LINE)`."""
    return f"{by.policy} {by.rule} {place(by.at)}" if by.rule else f"the default {place(by.at)}"


def _in_full(by: Origin) -> str:
    """The same, or why the default is what it is."""
    return _briefly(by) if by.rule else f"default: {by.text} {place(by.at)}"


def needless(topology: Topology, identities: Identities) -> Mapping[str, Finding]:
    """The rules that could be left out, each by itself, by the key of their origin."""
    egress, ingress = (
        rule_lists(topology, identities, each) for each in (Direction.EGRESS, Direction.INGRESS)
    )
    cases = _Cases()
    for meeting in Meetings(topology, identities, egress, ingress):
        cases.take(meeting)
    found = {}
    for policy in in_order(topology):
        for direction in Direction:
            for rule in rules_of(policy, direction) or ():
                its = origin.of_rule(policy, rule)
                case = cases.of.get(its.key)
                there = all(selected(identities, each)[0] for each in (policy.applied_to, rule.peers))
                finding = (
                    case.finding(its) if case else Finding(Kind.IMPOSSIBLE if there else Kind.ABSENT, its)
                )
                if finding is not None:
                    found[its.key] = finding
    return found


class _Cases:
    """What has been seen of each rule."""

    def __init__(self) -> None:
        self.of: dict[str, _Case] = {}
        self._by_rule: dict[Asked, _Case] = {}
        self._numbers: dict[object, int] = {}
        self._outcomes: dict[Row, int] = {}
        self._seen: set[tuple[Direction, Row, int, int]] = set()

    def take(self, meeting: Meeting) -> None:
        """Look at the rules of both sides, unless others who met the same way were looked at."""
        for direction in Direction:
            view = _View(meeting, direction)
            key = direction, view.row, self._outcome(view.other), meeting.client.address.version
            if key not in self._seen:
                self._seen.add(key)
                for rule in view.row.rules:
                    self._case(rule).take(view)

    def _outcome(self, row: Row) -> int:
        """A number for what becomes of packets in a row; hashed only once."""
        if row not in self._outcomes:
            self._outcomes[row] = self._numbers.setdefault(row.outcome, len(self._numbers))
        return self._outcomes[row]

    def _case(self, rule: Asked) -> _Case:
        if rule not in self._by_rule:
            self._by_rule[rule] = self.of[rule.origin.key] = _Case(rule)
        return self._by_rule[rule]


@dataclass(frozen=True, slots=True)
class _View:
    """A meeting as one side's rules see it."""

    meeting: Meeting
    direction: Direction

    @property
    def is_egress(self) -> bool:
        return self.direction is Direction.EGRESS

    @property
    def row(self) -> Row:
        return self.meeting.egress if self.is_egress else self.meeting.ingress

    @property
    def other(self) -> Row:
        return self.meeting.ingress if self.is_egress else self.meeting.egress

    @property
    def services(self) -> Spans:
        return SERVICES[self.meeting.client.address.version]

    def whole(self, ours: Fate, theirs: Fate) -> tuple[object, ...]:
        """All that can be told of a packet's end: what drops it, and what is noted on the way."""
        egress, ingress = (ours, theirs) if self.is_egress else (theirs, ours)
        if not egress.passes:
            return egress.drop, egress.logged, egress.audited, False, False
        return ingress.drop, egress.logged, egress.audited, ingress.logged, ingress.audited

    def coming(self, services: Spans) -> tuple[Spans, bool] | None:
        """Of which of the services packets get as far as this side, and whether only of live connections."""
        if self.is_egress:
            return services, False
        for admitted in (False, True):
            for fates, those in self.other.outcome:
                if fates[admitted].passes and (come := common(services, those)):
                    return come, admitted
        return None

    def packet(self, services: Spans, admitted: bool) -> Packet:
        return _packet(self.meeting, _plain(services), admitted)

    def origin(self, decider: Decider, admitted: bool) -> tuple[Origin, str]:
        """Where a decision comes from, of whichever side, and what it is in a word."""
        if isinstance(decider, Asked):
            why, action = decider.origin, decider.rule.action.value
            if decider.passes_on:
                return why, "passed on"
        else:
            is_egress = decider.direction is Direction.EGRESS
            why = decider.origin_for(self.meeting.client if is_egress else self.meeting.server)
            action = "allow" if why.reason is DropReason.NONE else "deny"
        fate = decider.fates[admitted]
        if fate.audited:
            return why, "audited, not dropped,"
        if fate.passes:
            return why, "allowed" if action == "allow" else "kept"
        return why, {"deny": "denied", "reject": "rejected"}[action]


@dataclass(slots=True)
class _Case:
    """One rule, and what its removal would change for those who have met so far."""

    rule: Asked
    changes: bool = False
    redundant: Finding | None = None
    before: set[str] = field(default_factory=set)
    """What leaves it nothing: at most two, since two are as good as many."""
    taken: dict[str, Finding] = field(default_factory=dict)
    """For each of them, and for what else stops such packets, one packet of the rule that it takes."""

    def finding(self, its: Origin) -> Finding | None:
        """What there is to tell; None for a rule that is needed."""
        if self.changes:
            return None
        if self.redundant:
            return self.redundant
        if not self.taken:
            return Finding(Kind.IMPOSSIBLE, its)
        if len(self.before) == 1 and self.before <= self.taken.keys():
            return replace(self.taken[min(self.before)], kind=Kind.SHADOWED)
        return next(iter(self.taken.values()))

    def take(self, view: _View) -> None:
        if self.changes:
            return
        for piece in view.row.pieces(self.rule):
            self._compare(view, piece)
        if not self.redundant and len(self.before) < _ENOUGH:
            for taker, services in view.row.takers(self.rule, view.services):
                self.before.add(taker.origin.key)
                came = view.coming(services)
                if came is not None:
                    self._taken(view, taker, *came)
                else:
                    self._taken(view, view.other.decider(_plain(services)), services, False)

    def _compare(self, view: _View, piece: Piece) -> None:
        asked = common(piece.services, view.services)
        for theirs, services in view.other.outcome:
            both = common(asked, services)
            for admitted in (False, True) if both else ():
                self._judge(view, piece, both, theirs[admitted], admitted)

    def _judge(self, view: _View, piece: Piece, services: Spans, theirs: Fate, admitted: bool) -> None:
        if not view.is_egress and not theirs.passes:
            by = self._taken(view, view.other.decider(_plain(services)), services, admitted)
            self.before.add(by)
            return
        now, then = (each.fates[admitted] for each in (piece.now, piece.then))
        if self.rule.rule.log or view.whole(now, theirs) != view.whole(then, theirs):
            self.changes = True
        elif self.redundant is None:
            packet = view.packet(services, admitted)
            self.redundant = self._found(
                view, Kind.REDUNDANT, packet, self._instead(view, piece, services, admitted)
            )

    def _instead(self, view: _View, piece: Piece, services: Spans, admitted: bool) -> Decider:
        """What decides without the rule: what this side says then, unless the other has the last word."""
        if not view.is_egress or not piece.then.fates[admitted].passes:
            return piece.then
        last = view.other.decider(_plain(services))
        return piece.then if last.fates[admitted].passes else last

    def _taken(self, view: _View, taker: Decider, services: Spans, admitted: bool) -> str:
        """Note a packet that something else takes; gives the key of its origin."""
        found = self._found(view, Kind.BLOCKED, view.packet(services, admitted), taker)
        assert found.by is not None
        self.taken.setdefault(found.by.key, found)
        return found.by.key

    def _found(self, view: _View, kind: Kind, packet: Packet, by: Decider) -> Finding:
        return Finding(kind, self.rule.origin, packet, *view.origin(by, packet.admitted))


_ENOUGH = 2


def _plain(services: Spans) -> int:
    """The plainest of some services: SSH, else the lowest port of the best-known protocol."""
    if any(low <= _SSH <= high for low, high in services):
        return _SSH
    return min((low for low, _ in services), key=lambda each: (_PREFERRED.index(each >> 16), each))


def _packet(meeting: Meeting, service: int, admitted: bool) -> Packet:
    client, server = meeting.client, meeting.server
    ends = client.name, client.address, server.name, server.address
    protocol, port = service >> 16, service & 0xFFFF
    if protocol == ICMP:
        family = ICMP if client.address.version == 4 else ICMPV6
        return Packet(*ends, family, icmp_type=port, admitted=admitted)
    if protocol == 0:
        return Packet(*ends, _GRE, admitted=admitted)
    return Packet(*ends, protocol, CLIENT_PORT, port, admitted=admitted)
