"""Recorded flows run through a change: which of them would be decided otherwise after it."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import product

from vnet.base.source import BUILT_IN
from vnet.fabric.declared import Declared
from vnet.fabric.evidence import ICMP_OF
from vnet.fabric.seen import DecidedBy, Seen, Verdict
from vnet.openflow.fields import ICMP
from vnet.policy.decisions import Asked
from vnet.policy.endpoint import Endpoint, IPAddress, Roads, endpoints, reached_by
from vnet.policy.explain import say
from vnet.policy.matrix import words
from vnet.policy.origin import Lets, Origin
from vnet.policy.semantics import REQUEST_TYPE, WITH_PORTS
from vnet.policy.spans import packed

DECIDED = ("", "POLICY", "REJECTED", "ISOLATED", "NO_DST")
"""Reasons that a change of the topology can do away with; what a guard drops it drops afterwards too."""
GONE = DecidedBy("", "", "", "no longer there: its VM or its address goes")


@dataclass(frozen=True, slots=True)
class VerdictChange:
    """Recorded flows of one VM to a service of another that a change decides otherwise, and what does.

    `packets` and `last` are of what was recorded.
    """

    source: str
    target: str
    service: str
    was: Verdict
    becomes: Verdict
    by: DecidedBy
    packets: int
    last: datetime

    def __str__(self) -> str:
        where = f" by {self.by.at}" if self.by.at not in ("", str(BUILT_IN)) else f": {self.by.text}"
        count = f"{self.packets:,} packet{'' if self.packets == 1 else 's'}"
        return (
            f"{self.source} -> {self.target}:{self.service}  {self.was.value} -> {self.becomes.value}{where}"
            f" ({count}, last {self.last:%Y-%m-%d %H:%M})"
        )


def changes_of_verdict(seen: Iterable[Seen], before: Declared, after: Declared) -> tuple[VerdictChange, ...]:
    """The flows that `after` decides otherwise than `before`: those that it stops first, the busiest of them.

    Both are asked anew: what was recorded may have been decided by rules that are gone since. A flow is told
    as audited by what the server's side says of it.
    """
    was, becomes = _Judge(before), _Judge(after)
    found: dict[VerdictChange, list[tuple[int, datetime]]] = defaultdict(list)
    for key, records in _alike(seen).items():
        old, new = was.fate(key), becomes.fate(key)
        if old.verdict is not new.verdict:
            names = was.name(key.source, key.source_address), was.name(key.target, key.target_address)
            change = VerdictChange(*names, key.told, old.verdict, new.verdict, new.by, 0, _NEVER)
            found[change].append((sum(each.packets for each in records), max(each.last for each in records)))
    summed = (
        replace(change, packets=sum(count for count, _ in parts), last=max(last for _, last in parts))
        for change, parts in found.items()
    )
    return tuple(sorted(summed, key=_urgency))


_NEVER = datetime.min


def _urgency(change: VerdictChange) -> tuple[bool, int, str, str, str]:
    is_stopped = change.becomes is Verdict.DENIED
    return not is_stopped, -change.packets, change.source, change.target, change.service


@dataclass(frozen=True, slots=True)
class _Key:
    """What flows that are decided alike agree in."""

    source: str | None
    source_address: IPAddress | None
    target: str | None
    target_address: IPAddress | None
    network: str
    protocol: int
    port: int

    @property
    def service(self) -> int:
        """As the service register has it."""
        if self.protocol in REQUEST_TYPE:
            return packed(ICMP, REQUEST_TYPE[self.protocol])
        return packed(self.protocol, self.port) if self.protocol in WITH_PORTS else 0

    @property
    def told(self) -> str:
        return words(((self.service, self.service),)).removesuffix(":8").removesuffix("v6:128")


def _alike(seen: Iterable[Seen]) -> Mapping[_Key, list[Seen]]:
    found: dict[_Key, list[Seen]] = defaultdict(list)
    for one in seen:
        if one.protocol is not None and one.reason in DECIDED:
            ends = one.source, one.source_address, one.destination, one.destination_address
            found[_Key(*ends, one.network, one.protocol, one.port or 0)].append(one)
    return found


@dataclass(frozen=True, slots=True)
class _Fate:
    verdict: Verdict
    by: DecidedBy


_NOWHERE = _Fate(Verdict.DENIED, GONE)


@dataclass(slots=True)
class _Spans:
    """What two classes may open to one another: where each decision begins, ascending, and what it is."""

    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    fates: list[_Fate] = field(default_factory=list)

    def of(self, service: int) -> _Fate:
        index = bisect_right(self.starts, service) - 1
        return self.fates[index] if index >= 0 and service <= self.ends[index] else _NOWHERE


class _Judge:
    """One generation, asked about new connections; what two classes may do is worked out once."""

    def __init__(self, declared: Declared) -> None:
        self._asked = Asked(declared.compiled)
        self._identities = declared.compiled.identities.of
        self._known: dict[tuple[int, int, bool], _Spans] = {}
        self._fates: dict[tuple[bool, Origin], _Fate] = {}
        self._by_nic: dict[str, list[Endpoint]] = defaultdict(list)
        self._by_vm: dict[str, list[Endpoint]] = defaultdict(list)
        self._by_address: dict[tuple[str, IPAddress], list[Endpoint]] = defaultdict(list)
        ends = tuple(endpoints(declared.topology, declared.inventory))
        self._roads, reached = Roads(declared.topology, ends), reached_by(ends)
        self._ambiguous = {end for end in ends if end.is_allowed and not reached[end.name, end.address]}
        """Several may have the address, so that nobody is sent what is for it."""
        for end in ends:
            self._by_nic[end.name].append(end)
            self._by_vm[end.vm.name].append(end)
            for place in self._roads.places(end):
                self._by_address[place, end.address].append(end)

    def name(self, nic: str | None, address: IPAddress | None) -> str:
        """Who it is, in words."""
        return nic.rpartition(".")[0] or nic if nic else str(address)

    def fate(self, key: _Key) -> _Fate:
        """What becomes of new connections."""
        met = self._met(key)
        if met is None or met[1] in self._ambiguous:
            return _NOWHERE
        return self._between(*met).of(key.service)

    def _met(self, key: _Key) -> tuple[Endpoint, Endpoint] | None:
        """Client and server; of several the first two of an IP version of which one reaches the other."""
        clients = self._ends(key.source, key.source_address, key.network)
        servers = self._ends(key.target, key.target_address, key.network)
        version = ICMP_OF.get(key.protocol)
        met = [
            (client, server)
            for client, server in product(clients, servers)
            if client.name != server.name and self._roads.reaches(client, server)
        ]
        return min(met, key=lambda ends: version not in (None, ends[0].address.version), default=None)

    def _ends(self, name: str | None, address: IPAddress | None, network: str) -> list[Endpoint]:
        """A NIC's or VM's by its name, even if its address is another now; else whose address it is."""
        if name is None:
            ends = self._by_address.get((network, address), []) if address else []
        else:
            ends = self._by_nic.get(name) or [
                end for end in self._by_vm.get(name, []) if network in ("", *self._roads.places(end))
            ]
        exact = [end for end in ends if end.address == address]
        if exact or name is None:
            return exact[:1]
        return [end for end in ends if address is None or end.address.version == address.version]

    def _between(self, client: Endpoint, server: Endpoint) -> _Spans:
        here = client.nic.network == server.nic.network
        apart = here and client.nic.is_isolated and server.nic.is_isolated
        key = (
            self._identities[client.name, client.address],
            self._identities[server.name, server.address],
            apart,
        )
        if key not in self._known:
            decided = sorted(
                (low, high, self._fate_by(allowed, why))
                for allowed, why, spans in self._asked.between(client, server)
                for low, high in spans
            )
            self._known[key] = _Spans(*(list(column) for column in zip(*decided, strict=True)))
        return self._known[key]

    def _fate_by(self, allowed: bool, why: Origin) -> _Fate:
        if (allowed, why) not in self._fates:
            audited = why.lets is Lets.AUDITED
            verdict = Verdict.DENIED if not allowed else Verdict.AUDITED if audited else Verdict.ALLOWED
            by = DecidedBy(str(why.at), why.policy, why.rule, say(why), why.cookie)
            self._fates[allowed, why] = _Fate(verdict, by)
        return self._fates[allowed, why]
