"""A flow together with what gave rise to it: what the parts of the compiler return."""

from __future__ import annotations

from dataclasses import dataclass

from vnet.openflow.fields import ETH_IPV4, ETH_IPV6, VLAN_PRESENT
from vnet.openflow.flow import Action, Flow, Instructions, Match, Reject
from vnet.policy.origin import Origin
from vnet.topology.model import IPNetwork

NOTHING = Instructions()
"""To drop silently."""
ANSWER = Instructions(apply=(Reject(),))
"""To drop and tell the sender."""


@dataclass(frozen=True, slots=True)
class Entry:
    flow: Flow
    origin: Origin


def entry(
    table: int, priority: int, where: Match, origin: Origin, *apply: Action, goto: int | None = None
) -> Entry:
    """A flow; without actions and `goto` it drops, for the reason its origin gives."""
    instructions = Instructions(apply=apply, goto=None if goto is None else int(goto))
    return Entry(Flow(int(table), priority, where, instructions, origin.cookie), origin)


def miss(table: int, origin: Origin, goto: int | None = None) -> Entry:
    """The flow that takes what no other flow of the table took."""
    return entry(table, 0, Match(), origin, goto=goto)


def notes_log(flow: Flow) -> bool:
    """Whether a flow that is to be logged lets its packets pass: then another one tells of them."""
    return flow.instructions.goto is not None


def vlan(number: int) -> int:
    """The value of `vlan_vid` for a tag with this number."""
    return VLAN_PRESENT | number


ANY_TAG = (VLAN_PRESENT, VLAN_PRESENT)


def eth_type(version: int) -> int:
    """The EtherType of a version of IP."""
    return ETH_IPV4 if version == 4 else ETH_IPV6


def prefix(side: str, network: IPNetwork) -> dict[str, tuple[int, int]]:
    """What packets from (`src`) or to (`dst`) a network have, in a match."""
    bits = int(network.network_address), int(network.netmask)
    return {"eth_type": (eth_type(network.version), 0xFFFF), f"ipv{network.version}_{side}": bits}
