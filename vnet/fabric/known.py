"""The fabric that a trace is asked about: who is behind which port, and where each flow comes from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from vnet.capture.ends import ends_of
from vnet.policy.endpoint import Endpoint
from vnet.policy.identity import Identities, label, peer_of, subject_of
from vnet.policy.outside import edges
from vnet.topology.inventory import Inventory, Nic
from vnet.topology.model import Topology
from vnet.topology.routing import Routing, gateway_mac

IPAddress = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Known:
    """The fabric that is asked about. `provenance` is as in the store."""

    topology: Topology
    inventory: Inventory
    provenance: Mapping[int, Mapping[str, str]]
    generation: int
    subjects: Mapping[int, str] = field(default_factory=dict)
    """Whom policies apply to, by the number that stands for them in a register."""
    peers: Mapping[int, str] = field(default_factory=dict)
    """Whom rules name likewise."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """The states of VMs that do not run: nobody there takes a packet."""

    def nic(self, port: int) -> Nic | None:
        """That of a port, also an exit's or a cable's."""
        plugged = (*self.inventory.nics, *(edge.nic for edge in edges(self.topology, self.inventory)))
        return next((nic for nic in plugged if nic.port == port), None)

    def name(self, port: int) -> str:
        """What a port is called."""
        nic = self.nic(port)
        return nic.name if nic else f"port {port}"

    def absence(self, port: int) -> str | None:
        """The state of the VM behind a port if it does not run."""
        nic = self.nic(port)
        return self.absent.get(nic.vm) if nic else None

    def addressee(self, sender: Nic, frame: bytes) -> Nic | None:
        """Whose MAC address a frame is for, on the network of its sender; or whose address, by its router."""
        mac = int.from_bytes(frame[:6], "big")
        if mac == gateway_mac(self.topology.name):
            target = ends_of(frame).target
            return None if target is None else self._routed(sender, target)
        near = (nic for nic in self.inventory.nics if nic.vlan == sender.vlan)
        beyond = (edge.nic for edge in edges(self.topology, self.inventory) if edge.nic.vlan == sender.vlan)
        return next((nic for nic in near if nic.mac == mac), next(beyond, None))

    def _routed(self, sender: Nic, target: IPAddress) -> Nic | None:
        """Whom a router's gateway hands it to: a NIC, or its exit."""
        routing, ways_out = Routing(self.topology), edges(self.topology, self.inventory)
        own = next((edge for edge in ways_out if edge.is_exit and edge.name == sender.name), None)
        if own is not None:
            way = routing.lead(self.topology.routers[own.router], target)
        else:
            way = routing.way(sender.network, target)
            if way is None and routing.leaves(sender.network, target):
                router = routing.router(sender.network)
                return next((edge.nic for edge in ways_out if router and edge.router == router.name), None)
        there = (nic for nic in self.inventory.nics if way is not None and nic.network == way.network)
        return next((nic for nic in there if target in {each.ip for each in nic.addresses}), None)


def labels(identities: Identities) -> tuple[dict[int, str], dict[int, str]]:
    """Who is meant by the numbers in registers: whom policies apply to, and whom rules name."""
    found = []
    for part in (subject_of, peer_of):
        members: dict[int, list[Endpoint]] = defaultdict(list)
        for number, identity in identities.by_number.items():
            members[part(number)] += identity.members
        found.append({number: label(ends) for number, ends in members.items()})
    return found[0], found[1]
