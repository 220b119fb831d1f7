"""One plain packet out of a set, in words: counterexamples that a person can send."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

from vnet.base.protocols import PORT_PROTOCOLS
from vnet.openflow.fields import ETH_IPV4, ETH_IPV6, ICMP, ICMPV6, CtState
from vnet.policy.endpoint import IPAddress, addresses, allowed_addresses
from vnet.policy.explain import CLIENT_PORT
from vnet.policy.guard import mac_text
from vnet.policy.outside import of_fabric
from vnet.policy.space import Cube, Region, exactly
from vnet.topology.inventory import Inventory, Nic
from vnet.topology.model import Topology

SERVER_PORT = 22
"""The server's port, where any will do."""


class Witness:
    """Names packets of a fabric: ports by their NICs, addresses by their owners."""

    def __init__(self, topology: Topology, inventory: Inventory) -> None:
        outside = of_fabric(topology, inventory)
        self._by_port = {end.nic.port: end.nic for end in outside.ends()}
        self._by_port |= {nic.port: nic for nic in inventory.nics}
        self._own = {
            nic.name: (*addresses(topology, nic), *allowed_addresses(topology, nic)) for nic in inventory.nics
        }
        self._outside = outside
        self._owners = {
            (nic.vlan, address): nic.name for nic in inventory.nics for address in self._own[nic.name]
        }

    def of(self, region: Region, state: int) -> str:
        """A packet of a region that is not empty, the plainest there is."""
        packet = region.preferring(*self._wishes(region.cube)).some()
        assert packet is not None
        return self._words({name: value for name, (value, _) in packet.items()}, state)

    def _wishes(self, cube: Cube) -> Iterator[Cube]:
        """What an honest packet would be like, in the order of importance."""
        nic = self._by_port[cube["in_port"][0]]
        version = (
            6 if "ipv6_dst" in cube or cube.get("eth_type") == exactly(eth_type=ETH_IPV6)["eth_type"] else 4
        )
        yield exactly(eth_type=ETH_IPV4 if version == 4 else ETH_IPV6)
        yield exactly(vlan_vid=0)
        yield exactly(ip_frag=0)
        yield exactly(eth_src=nic.mac)
        for address in self._own.get(nic.name) or [end.address for end in self._outside.beyond(nic.name)]:
            if address.version == version:
                yield exactly(**{f"ipv{version}_src": int(address)})
        for protocol, name in PORT_PROTOCOLS.items():
            yield exactly(ip_proto=protocol)
            yield exactly(**{f"{name}_src": CLIENT_PORT})
            yield exactly(**{f"{name}_dst": SERVER_PORT})
        yield exactly(icmpv4_type=8)
        yield exactly(icmpv6_type=128)

    def _words(self, packet: dict[str, int], state: int) -> str:
        nic = self._by_port[packet["in_port"]]
        ethertype = packet.get("eth_type", 0)
        if ethertype not in (ETH_IPV4, ETH_IPV6):
            return f"a frame of EtherType {ethertype:#06x} from {nic.name}"
        version = 4 if ethertype == ETH_IPV4 else 6
        source, target = (_address(version, packet.get(f"ipv{version}_{s}", 0)) for s in ("src", "dst"))
        protocol = packet.get("ip_proto", 0)
        sender = f"{self._sender(nic, source)} {source}{self._forged(nic, source, packet)}"
        receiver = f"{self._receiver(nic, target)} {target}"
        begun = "established " if state & CtState.EST else ""
        if name := PORT_PROTOCOLS.get(protocol):
            client, server = (packet.get(f"{name}_{side}", 0) for side in ("src", "dst"))
            return f"{begun}{name} from {sender} port {client} to {receiver} port {server}"
        kind = packet.get("icmpv4_type" if version == 4 else "icmpv6_type", 0)
        name = f"icmp type {kind}" if protocol in (ICMP, ICMPV6) else f"IP protocol {protocol}"
        return f"{begun}{name} from {sender} to {receiver}"

    def _sender(self, nic: Nic, address: IPAddress) -> str:
        """The NIC, or of who is outside `internet` or `host`."""
        stranger = self._outside.block(nic.name, address)
        return nic.name if stranger is None else stranger.vm.name

    def _receiver(self, nic: Nic, address: IPAddress) -> str:
        """Who has an address, in the sender's network if anybody has it there."""
        routed = (name for (_, other), name in self._owners.items() if other == address)
        beyond = (end.vm.name for end in self._outside.ends() if end.block and address in end.block)
        if nic.name not in self._own and not nic.network:
            return next(routed, "nobody there")
        return self._owners.get((nic.vlan, address)) or next(beyond, "nobody there")

    def _forged(self, nic: Nic, source: IPAddress, packet: dict[str, int]) -> str:
        mac = packet.get("eth_src", nic.mac)
        is_own = source in self._own.get(nic.name, ()) or self._outside.block(nic.name, source) is not None
        forged = [] if is_own else ["forged"]
        forged += [] if mac == nic.mac else [f"MAC {mac_text(mac)}"]
        return f" ({', '.join(forged)})" if forged else ""


def _address(version: int, number: int) -> IPAddress:
    return IPv4Address(number) if version == 4 else IPv6Address(number)
