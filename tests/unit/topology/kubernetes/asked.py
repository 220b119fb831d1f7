"""An import, asked who reaches whom: by the meaning of its policies, and by their compiled flows."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import yaml

from tests.unit.policy.law import fates, service
from tests.unit.topology.kubernetes.cluster import Question, address
from vnet.openflow.fields import SCTP, TCP, UDP
from vnet.policy.compile import Compiled, compile
from vnet.policy.matrix import Matrix, Spans
from vnet.policy.semantics import Packet, decide
from vnet.policy.walk import Walk
from vnet.topology.inventory import Inventory, expand
from vnet.topology.kubernetes.convert import imported
from vnet.topology.load import load_text
from vnet.topology.model import Topology

_NUMBERS = {"tcp": TCP, "udp": UDP, "sctp": SCTP}


@dataclass(frozen=True, slots=True)
class Imported:
    """A topology that was printed, read back, expanded and compiled."""

    topology: Topology
    inventory: Inventory
    compiled: Compiled
    matrix: Matrix
    walk: Walk
    spans: dict[tuple[int, int], Spans] = field(default_factory=dict)
    """What the matrix said of pairs of identities so far."""

    def means(self, question: Question) -> bool:
        """What the language says."""
        return decide(self.topology, self.inventory, _packet(question)).allowed

    def tables(self, question: Question) -> bool:
        """What the policy tables of the flows say, read as a matrix."""
        packet, identities = _packet(question), self.compiled.identities.of
        ends = (
            identities[packet.source_nic, packet.source],
            identities[packet.target_nic, packet.target],
        )
        if ends not in self.spans:
            self.spans[ends] = self.matrix.allowed(*ends)
        return any(low <= service(packet) <= high for low, high in self.spans[ends])

    def flows(self, question: Question) -> bool:
        """Whether the first packet, and later ones, pass all tables to the server's port."""
        packet = _packet(question)
        (port,) = (nic.port for nic in self.inventory.nics if nic.name == packet.target_nic)
        fate = {leaf.outputs for leaf in fates(self.walk, self.inventory, packet)}
        assert fate <= {(), (port,)} and len(fate) == 1, f"{question}: {fate}"
        return fate == {(port,)}


def by_import(*manifests: str) -> Imported:
    """Imports, and reads what `vnet import` prints as `vnet validate` does."""
    texts = {f"{number}.yaml": text for number, text in enumerate(manifests, 1)}
    text = yaml.safe_dump(imported(texts, "lab"), sort_keys=False)
    topology = load_text(text, "lab.vnet.yaml", {})
    inventory = expand(topology, {})
    compiled = compile(topology, inventory)
    return Imported(topology, inventory, compiled, Matrix(compiled.flows), Walk(compiled.flows))


@cache
def _packet(question: Question) -> Packet:
    source, target = (f"{end.replace('/', '-')}.eth0" for end in (question.source, question.target))
    return Packet(
        source,
        address(question.source),
        target,
        address(question.target),
        _NUMBERS[question.protocol],
        40000,
        question.port,
    )
