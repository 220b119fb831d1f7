"""What a topology file declares, worked out to the last flow: load, expand, compile, in one step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from vnet.base.errors import Fault, InputError
from vnet.fabric.mirror import mirrors_of
from vnet.fabric.state import State, cables_of, desired, gateways_of, services_of
from vnet.fabric.store import Source
from vnet.policy.compile import Compiled, compile
from vnet.policy.difference import normal
from vnet.policy.origin import Lets, Origin
from vnet.topology.expiry import in_force, next_expiry
from vnet.topology.inventory import NO_INTERFACES, Assignment, Inventory, expand
from vnet.topology.load import load_text
from vnet.topology.model import Topology
from vnet.topology.mtu import Interfaces, why_not_through


@dataclass(frozen=True, slots=True)
class Declared:
    """A checked topology, as far as it is in force, with its concrete VMs and its flows."""

    topology: Topology
    inventory: Inventory
    compiled: Compiled
    expires: datetime | None = None
    """When a rule of it will cease."""

    def state(self, stopped: frozenset[str] = frozenset()) -> State:
        """The state to reach; VMs in `stopped` do not run."""
        flows = tuple(map(normal, self.compiled.flows))
        mirrors = mirrors_of(self.topology, self.inventory)
        services = services_of(self.topology, self.inventory)
        gateways, cables = gateways_of(self.topology, self.inventory), cables_of(self.inventory)
        return desired(self.inventory, flows, stopped, mirrors, services, gateways, cables)

    def provenance_texts(self) -> Mapping[int, Mapping[str, str]]:
        """The origin of each cookie in words, for the store."""
        return {cookie: origin_texts(origin) for cookie, origin in self.compiled.provenance.items()}


def load(source: Source) -> Topology:
    """The checked topology of a source. Raises InputError with every fault of the file."""
    return load_text(source.text, source.file, source.env, source.included)


def work_out(
    topology: Topology,
    previous: Mapping[str, Assignment],
    now: datetime,
    compile: Callable[[Topology, Inventory], Compiled] = compile,
    interfaces: Interfaces = NO_INTERFACES,
) -> Declared:
    """Expand and compile what is in force; NICs that were there keep what `previous` says they got.

    Args:
        compile: the compiler, or one that remembers what it compiled before.
        interfaces: the MTUs of the host's interfaces, as far as they are known.

    Raises: InputError, also for networks whose packets cannot go by their uplinks.
    """
    current = in_force(topology, now)
    faults = tuple(_impossible(current, interfaces))
    if faults:
        raise InputError(faults)
    inventory = expand(current, previous, interfaces)
    return Declared(current, inventory, compile(current, inventory), next_expiry(topology, now))


def _impossible(topology: Topology, interfaces: Interfaces) -> Iterator[Fault]:
    for name, network in topology.networks.items():
        why = why_not_through(topology, network, interfaces)
        if why:
            yield Fault(network.at, f"networks.{name}.mtu", why)


def declare(source: Source, previous: Mapping[str, Assignment], now: datetime) -> Declared:
    """Load, expand and compile."""
    return work_out(load(source), previous, now)


def origin_texts(origin: Origin) -> Mapping[str, str]:
    """An origin as texts."""
    texts = {"policy": origin.policy, "rule": origin.rule, "text": origin.text, "at": str(origin.at)}
    return texts | ({"lets": origin.lets.value} if origin.lets is not Lets.NOTHING else {})


def sentence(texts: Mapping[str, str]) -> str:
    """An origin in one line: `policy db-from-app, rule ingress 2 "deny from any" at shop.vnet.yaml:21`."""
    who = f"policy {texts['policy']}, rule {texts['rule']} " if texts["policy"] else ""
    return f'{who}"{texts["text"]}" at {texts["at"]}'
