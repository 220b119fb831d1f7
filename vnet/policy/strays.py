"""Flows that can hand a NIC what is not for it: the rest of what a ban has to look at.

Claims ask what becomes of packets for an address. All that vnet compiles hands a NIC nothing else, but for
ARP and neighbour discovery, and this looks at each flow for whether that is so. What is found otherwise, a
flow that somebody added for instance, is followed with all packets that could take it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from vnet.openflow.fields import ETH_ARP, ETH_IPV6, FIELDS, ICMPV6
from vnet.openflow.flow import Action, Flow, Move, Output, OutputField, Port, SetField
from vnet.policy.claims import NEIGHBOUR_DISCOVERY, NO_SUCH_FRAGMENT
from vnet.policy.pipeline import OUT_PORT
from vnet.policy.space import Cube, Region, exactly
from vnet.policy.walk import EVERYWHERE

Owned = Mapping[int, frozenset[tuple[str, int]]]
"""By port, the addresses that it is for, as a match has them: `("ipv4_dst", …)`."""
ARP: Cube = exactly(eth_type=ETH_ARP)
DISCOVERY = (135, 136)
NOBODY: Collection[int] = ()
NONE: frozenset[tuple[str, int]] = frozenset()
HEADER = ("eth_type", "eth_dst", "ipv4_dst", "ipv6_dst")
"""Where all flows leave these alone, those that a flow asks for are those of the packet that was sent."""


@dataclass(frozen=True, slots=True)
class Stray:
    """What a flow may hand to whom. `ports` None: to any."""

    flow: Flow
    ports: frozenset[int] | None

    def reaches(self, port: int) -> bool:
        """Whether that port is among them."""
        return self.ports is None or port in self.ports

    def region(self, in_port: int, own: Iterable[tuple[str, int]], is_rewritten: bool) -> Region | None:
        """What of all that one port sends could take the flow, but for what is for the receiver's `own`.

        Args:
            is_rewritten: some flow changes a field of HEADER, so that what this one asks for says nothing.
        """
        asked = {n: (v, m) for n, v, m in self.flow.match if n in HEADER and not is_rewritten}
        region: Region | None = Region(exactly(in_port=in_port)).meet(asked)
        for hole in (ARP, *NEIGHBOUR_DISCOVERY, NO_SUCH_FRAGMENT, *(exactly(**{n: v}) for n, v in own)):
            region = region.minus(hole) if region else None
        return region


def strays(flows: Iterable[Flow], owned: Owned) -> tuple[Stray, ...]:
    """Those among the flows."""
    found = []
    for flow in flows:
        ports = _handed_to(flow) if flow.instructions.apply else NOBODY
        if ports is None:
            found.append(Stray(flow, None))
        elif ports and (odd := [port for port in ports if not _is_for(flow, owned.get(port, NONE))]):
            found.append(Stray(flow, frozenset(odd)))
    return tuple(found)


def rewrites_header(flows: Iterable[Flow]) -> bool:
    """Whether some flow changes a field of HEADER."""
    for flow in flows:
        for action in flow.instructions.apply:
            if isinstance(action, SetField) and action.field in HEADER:
                return True
            if isinstance(action, Move) and action.target in HEADER:
                return True
    return False


def _handed_to(flow: Flow) -> Collection[int] | None:
    """The ports that a flow itself sends to, or has others send to; None for any."""
    ports: set[int] = set()
    for action in flow.instructions.apply:
        if isinstance(action, SetField):
            if action.field != OUT_PORT:
                continue
            if action.mask not in (None, FIELDS[OUT_PORT].full_mask):
                return None
            ports.add(action.value)
        elif isinstance(action, Output):
            if action.port in EVERYWHERE:
                return None
            if action.port not in (Port.IN_PORT, Port.CONTROLLER):
                ports.add(action.port)
        elif _is_for_any(action):
            return None
    return ports


def _is_for_any(action: Action) -> bool:
    """Whether it sends, or has others send, to whatever port a register holds."""
    if isinstance(action, Move):
        return action.target == OUT_PORT
    return isinstance(action, OutputField) and action != OutputField(OUT_PORT)


def _is_for(flow: Flow, own: frozenset[tuple[str, int]]) -> bool:
    """Whether the flow takes only packets for these addresses, ARP and neighbour discovery."""
    for name, value, mask in flow.match.entries:
        if name == "eth_type" and value == ETH_ARP or (name, value) in own:
            return mask == FIELDS[name].full_mask
    exact = {name: value for name, value, mask in flow.match if mask == FIELDS[name].full_mask}
    asked = exact.get("eth_type"), exact.get("ip_proto")
    return asked == (ETH_IPV6, ICMPV6) and exact.get("icmpv6_type") in DISCOVERY
