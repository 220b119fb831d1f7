"""The fabric that a trace is asked about: who is behind which port, and where each flow comes from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from vnet.capture.ends import ends_of
from vnet.policy.endpoint import Endpoint
from vnet.policy.identity import Identities, label, peer_of, subject_of
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
        """That of a port."""
        return next((nic for nic in self.inventory.nics if nic.port == port), None)

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
            routing = Routing(self.topology)
            way = None if target is None else routing.way(sender.network, target)
            there = (nic for nic in self.inventory.nics if way is not None and nic.network == way.network)
            return next((nic for nic in there if target in {each.ip for each in nic.addresses}), None)
        near = (nic for nic in self.inventory.nics if nic.vlan == sender.vlan)
        return next((nic for nic in near if nic.mac == mac), None)


def labels(identities: Identities) -> tuple[dict[int, str], dict[int, str]]:
    """Who is meant by the numbers in registers: whom policies apply to, and whom rules name."""
    found = []
    for part in (subject_of, peer_of):
        members: dict[int, list[Endpoint]] = defaultdict(list)
        for number, identity in identities.by_number.items():
            members[part(number)] += identity.members
        found.append({number: label(ends) for number, ends in members.items()})
    return found[0], found[1]
