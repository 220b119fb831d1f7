"""All small policies of a network with two VMs, and whether their flows decide as the language says.

Small: up to two rules, in one policy or in two. A rule is of any action, names everybody or the other VM, and
takes everything or one port. A policy applies to everybody or to one VM, stands in the first tier or in the
last, and has any enforcement.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from tests.generators import Builder
from tests.unit.policy.law import fates, same
from vnet.openflow.fields import TCP
from vnet.policy.compile import compile
from vnet.policy.endpoint import endpoints
from vnet.policy.identity import Identities
from vnet.policy.matrix import Matrix
from vnet.policy.semantics import Packet, decide
from vnet.policy.spans import packed
from vnet.policy.walk import Walk
from vnet.topology.inventory import Inventory
from vnet.topology.model import Topology

PORT, OTHER = 80, 81
RULES = tuple(
    " ".join(words)
    for words in product(("allow", "deny", "reject", "pass"), ("any", "vm:b"), ("any", f"{PORT}/tcp"))
)
APPLIED_TO = ("any", "vm:a")
TIERS = ("admin", "baseline")
MODES = (("enforce", "revalidate"), ("enforce", "keep"), ("enforce", "reset"), ("audit", "revalidate"))


@dataclass(frozen=True, slots=True)
class Written:
    """A policy as it would stand in a file; a list is () where the direction is not listed."""

    applied_to: str
    tier: str
    mode: tuple[str, str]
    ingress: tuple[str, ...]
    egress: tuple[str, ...]

    def add(self, builder: Builder, name: str) -> None:
        """Append it to what `builder` declares."""
        enforcement, established = self.mode
        builder.policy(
            name,
            self.applied_to,
            ingress=self.ingress or None,
            egress=self.egress or None,
            tier=self.tier,
            enforcement=enforcement,
            established=established,
        )


def of_one_rule() -> Iterator[tuple[Written, ...]]:
    """Every policy that has one rule."""
    for applied_to, tier, mode, rule in product(APPLIED_TO, TIERS, MODES, RULES):
        yield (Written(applied_to, tier, mode, (rule,), ()),)
        yield (Written(applied_to, tier, mode, (), (rule,)),)


def of_two_rules() -> Iterator[tuple[Written, ...]]:
    """Every policy that has two rules, for one direction or one for each."""
    for applied_to, tier, mode, first, second in product(APPLIED_TO, TIERS, MODES, RULES, RULES):
        yield (Written(applied_to, tier, mode, (first, second), ()),)
        yield (Written(applied_to, tier, mode, (), (first, second)),)
        yield (Written(applied_to, tier, mode, (first,), (second,)),)


def of_two_policies() -> Iterator[tuple[Written, ...]]:
    """Every two policies that have one rule each, in both orders."""
    for (first,), (second,) in product(of_one_rule(), repeat=2):
        yield first, second


def everything() -> Iterator[tuple[Written, ...]]:
    """All small policies."""
    yield from of_one_rule()
    yield from of_two_rules()
    yield from of_two_policies()


def fabric(policies: tuple[Written, ...]) -> tuple[Topology, Inventory]:
    """Two VMs on one network, and the policies."""
    builder = Builder().network("net", 10, "10.0.0.0/24").vm("a", "net").vm("b", "net")
    for number, policy in enumerate(policies):
        policy.add(builder, f"policy-{number}")
    return builder.build()


def differences(policies: tuple[Written, ...]) -> list[str]:
    """What flows, the matrix and the language do not agree on, for every packet that tells rules apart."""
    topology, inventory = fabric(policies)
    compiled = compile(topology, inventory)
    walk, matrix = Walk(compiled.flows), Matrix(compiled.flows)
    found = []
    for packet in packets(topology, inventory):
        verdict = decide(topology, inventory, packet)
        for leaf in fates(walk, inventory, packet):
            if not same(compiled, inventory, verdict, leaf, packet):
                found.append(f"{packet}: {verdict}, but the flows: {leaf}")
        if not packet.admitted and _is_open(matrix, compiled.identities, packet) != verdict.allowed:
            found.append(f"{packet}: {verdict}, but not by the matrix")
    return found


def _is_open(matrix: Matrix, identities: Identities, packet: Packet) -> bool:
    client = identities.of[packet.source_nic, packet.source]
    server = identities.of[packet.target_nic, packet.target]
    asked = packed(packet.protocol, packet.target_port)
    return any(low <= asked <= high for low, high in matrix.allowed(client, server))


def packets(topology: Topology, inventory: Inventory) -> Iterator[Packet]:
    """Requests of either VM, to the port that rules name and to another, let in before or not."""
    one, other = endpoints(topology, inventory)
    for (source, target), port, admitted in product(
        ((one, other), (other, one)), (PORT, OTHER), (False, True)
    ):
        yield Packet(
            source.name, source.address, target.name, target.address, TCP, 1024, port, admitted=admitted
        )
