"""What a topology file declares, worked out to the last flow: load, expand, compile, in one step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vnet.fabric.state import State, desired
from vnet.fabric.store import Source
from vnet.policy.compile import Compiled, compile
from vnet.policy.origin import Origin
from vnet.policy.verify import ClaimResult, verify
from vnet.topology.inventory import Assignment, Inventory, expand
from vnet.topology.load import load_text
from vnet.topology.model import Topology


@dataclass(frozen=True, slots=True)
class Declared:
    """A checked topology with its concrete VMs and its flows."""

    topology: Topology
    inventory: Inventory
    compiled: Compiled

    def state(self, stopped: frozenset[str] = frozenset()) -> State:
        """The state to reach; VMs in `stopped` do not run."""
        return desired(self.inventory, self.compiled.flows, stopped)

    def claims(self) -> tuple[ClaimResult, ...]:
        """What becomes of the topology's `verify` lines under its own flows."""
        return verify(self.topology, self.inventory, self.compiled.flows)

    def provenance_texts(self) -> Mapping[int, Mapping[str, str]]:
        """The origin of each cookie in words, for the store."""
        return {cookie: origin_texts(origin) for cookie, origin in self.compiled.provenance.items()}


def declare(source: Source, previous: Mapping[str, Assignment]) -> Declared:
    """Load, expand and compile. Raises InputError with every fault of the file."""
    topology = load_text(source.text, source.file, source.env)
    inventory = expand(topology, previous)
    return Declared(topology, inventory, compile(topology, inventory))


def origin_texts(origin: Origin) -> Mapping[str, str]:
    """An origin as texts."""
    return {"policy": origin.policy, "rule": origin.rule, "text": origin.text, "at": str(origin.at)}


def sentence(texts: Mapping[str, str]) -> str:
    """An origin in one line: `policy db-from-app, ingress 2 "deny from any" at three-tier.vnet.yaml:21`."""
    who = f"policy {texts['policy']}, {texts['rule']} " if texts["policy"] else ""
    return f'{who}"{texts["text"]}" at {texts["at"]}'
