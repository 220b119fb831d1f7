"""What was seen, sorted for those who want to allow it: connections that policies refuse, with who, how often
and when, and what no policy has anything to do with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import product

from vnet.fabric.seen import Seen, Verdict
from vnet.openflow.fields import ICMP, ICMPV6
from vnet.policy.endpoint import Endpoint, IPAddress, Roads, endpoints
from vnet.policy.outside import HOST, INTERNET, Outside, of_fabric
from vnet.policy.semantics import WITH_PORTS
from vnet.policy.wanted import Wanted
from vnet.topology.inventory import Inventory
from vnet.topology.model import Topology

BY_POLICY = ("POLICY", "REJECTED")
"""Reasons that rules decide about."""
ICMP_OF = {ICMP: 4, ICMPV6: 6}
"""The IP version that a protocol belongs to, where it has one."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """How often connections were seen, when, and what became of them."""

    packets: int
    first: datetime
    last: datetime
    verdicts: frozenset[Verdict]


@dataclass(frozen=True, slots=True)
class Apart:
    """What was lost for a reason that no policy decides: what the reason means, what exactly the guard was
    about where that is known, and whose it was."""

    reason: str
    meaning: str
    by: str
    source: str
    target: str
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Observed:
    """What may be wanted, with its evidence, and what is apart."""

    wanted: Mapping[Wanted, Evidence]
    apart: tuple[Apart, ...]


def evidence(several: Iterable[Evidence]) -> Evidence:
    """All of them together; there is one at least."""
    several = tuple(several)
    return Evidence(
        sum(each.packets for each in several),
        min(each.first for each in several),
        max(each.last for each in several),
        frozenset().union(*(each.verdicts for each in several)),
    )


def observed(
    topology: Topology,
    inventory: Inventory,
    seen: Iterable[Seen],
    meaning: Mapping[str, str],
    vms: Collection[str] = (),
) -> Observed:
    """What was denied or audited.

    Args:
        meaning: the reasons of drops in words.
        vms: only what these send or get, by the names they are declared under or their own; empty for all.
    """
    ends, specs = _Ends(topology, inventory), {vm.name: vm.spec for vm in inventory.vms}
    outside = of_fabric(topology, inventory)
    wanted: dict[Wanted, list[Evidence]] = defaultdict(list)
    apart: dict[tuple[str, str, str, str, str], list[Evidence]] = defaultdict(list)
    for one in seen:
        if one.verdict is Verdict.ALLOWED or (vms and not _concerns(one, vms, specs)):
            continue
        so_much = Evidence(one.packets, one.first, one.last, frozenset({one.verdict}))
        if one.verdict is Verdict.DENIED and one.reason not in BY_POLICY:
            apart[_apart(one, one.reason or "no reason", meaning.get(one.reason, ""))].append(so_much)
            continue
        found = ends.connection(one)
        if _is_summed_up(one):
            meaning_of_many = "so many were met in a minute that they were not kept apart: a scan?"
            apart[_apart(one, "MANY", meaning_of_many)].append(so_much)
        elif found is None and _is_outside(one, outside):
            meaning_outside = "one end is outside: whom to name (internet, host, a CIDR) is yours to say"
            apart[_apart(one, "OUTSIDE", meaning_outside)].append(so_much)
        elif found is None:
            apart[_apart(one, "GONE", "one of the two is not there, so no rule is needed")].append(so_much)
        else:
            wanted[found].append(so_much)
    return Observed(
        {each: evidence(parts) for each, parts in wanted.items()},
        tuple(Apart(*key, evidence(parts)) for key, parts in apart.items()),
    )


def _is_outside(one: Seen, outside: Outside) -> bool:
    """Whether one of the two ends is outside of the fabric."""
    ends = (one.source, one.source_address), (one.destination, one.destination_address)
    return any(
        name in (INTERNET, HOST) or (name is None and address is not None and bool(outside.who(address)))
        for name, address in ends
    )


def _is_summed_up(one: Seen) -> bool:
    """Whether it stands for flows to many, which cannot be told any more."""
    has_no_port = one.protocol in WITH_PORTS and one.port is None
    return has_no_port or (one.destination is None and one.destination_address is None)


def _concerns(one: Seen, vms: Collection[str], specs: Mapping[str, str]) -> bool:
    names = {(nic or "").rpartition(".")[0] or nic for nic in (one.source, one.destination)}
    return any(name in vms or specs.get(name or "") in vms for name in names)


def _apart(one: Seen, reason: str, meaning: str) -> tuple[str, str, str, str, str]:
    source = one.source or _words(one.source_address)
    target = one.destination or _words(one.destination_address)
    return reason, meaning, one.by.text if one.by else "", source, target


def _words(address: IPAddress | None) -> str:
    return "somebody" if address is None else str(address)


class _Ends:
    """Whose endpoint an end is that was seen: its NIC's, or that of the address."""

    def __init__(self, topology: Topology, inventory: Inventory) -> None:
        self._by_name: dict[str, list[Endpoint]] = defaultdict(list)
        self._by_address: dict[IPAddress, list[Endpoint]] = defaultdict(list)
        self._roads = Roads(topology, endpoints(topology, inventory))
        for end in endpoints(topology, inventory):
            for name in dict.fromkeys((end.name, end.vm.name)):
                self._by_name[name].append(end)
            self._by_address[end.address].append(end)

    def connection(self, one: Seen) -> Wanted | None:
        """As the topology names it now; None if an end is nobody's."""
        if one.protocol is None:
            return None
        clients = self._of(one.source, one.source_address)
        servers = self._of(one.destination, one.destination_address)
        met = [
            (client, server)
            for client, server in product(clients, servers)
            if self._roads.can_meet(client, server) and one.network in ("", *self._roads.places(client))
        ]
        version = ICMP_OF.get(one.protocol)
        fits = min(met, key=lambda ends: version not in (None, ends[0].address.version), default=None)
        return Wanted(*fits, one.protocol, one.port or 0) if fits else None

    def _of(self, name: str | None, address: IPAddress | None) -> Iterator[Endpoint]:
        """Candidates, the likeliest first: an address that has changed since stands for the NIC's own."""
        ends = self._by_name.get(name, ()) if name else self._by_address.get(address, ()) if address else ()
        exact = [end for end in ends if end.address == address]
        given = [
            end
            for end in ends
            if end.is_given and (address is None or end.address.version == address.version)
        ]
        yield from dict.fromkeys((*exact, *given))
