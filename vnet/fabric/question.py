"""Which packet a trace is asked about: from two names and a port, a Scapy expression or a frame.

What is not said is filled in from the topology and noted as an assumption, never taken from this host.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from vnet.base.errors import InputError
from vnet.fabric import scapy_words
from vnet.fabric.asked import Asked
from vnet.hv.spec import format_mac
from vnet.openflow.conntrack import Direction
from vnet.openflow.fields import ICMP, ICMPV6, SCTP, TCP, UDP
from vnet.policy.endpoint import Endpoint, Roads, endpoints
from vnet.policy.explain import CLIENT_PORT
from vnet.policy.outside import of_fabric
from vnet.topology.inventory import Inventory, Nic
from vnet.topology.model import Service, Topology
from vnet.topology.reading import suggestion
from vnet.topology.routing import gateway_mac
from vnet.topology.selectors import service_of

from scapy.layers import inet, inet6, l2, sctp  # isort: skip
from scapy.packet import NoPayload, Packet, Raw  # isort: skip

IPAddress = IPv4Address | IPv6Address
OUTSIDE = ("internet", "host")
NOBODYS_MAC = "02:00:00:00:00:fe"
"""Of what is sent to an address that nobody has."""
ECHO_ID = 1
PROTOCOL_ANY = 253
"""For experimentation (RFC 3692): stands for any other protocol."""


@dataclass(frozen=True, slots=True)
class Question:
    """A frame that a NIC sends, and what was assumed to make it."""

    nic: Nic
    frame: bytes
    assumed: tuple[str, ...] = ()
    live: bool = False
    """It is made as a packet of a connection that lives."""


class Asking:
    """Makes questions about one fabric. `connections` are those that live."""

    def __init__(
        self, topology: Topology, inventory: Inventory, connections: Iterable[Direction] = ()
    ) -> None:
        self._topology, self._inventory = topology, inventory
        self._connections = tuple(connections)
        self._ends = tuple(endpoints(topology, inventory))
        self._outside = of_fabric(topology, inventory)
        self._roads = Roads(topology, self._ends)
        self._assumed: list[str] = []

    def question(self, asked: Asked) -> Question:
        """Raises InputError, which says what to write instead."""
        self._assumed = []
        if asked.packet:
            return self._of_layers(asked.source, scapy_words.read(asked.packet))
        if asked.frame:
            if asked.captured is not None:
                whole = len(asked.frame)
                self._assumed.append(
                    f"only {asked.captured} of its {whole} bytes were kept: the rest as zeros"
                )
            return Question(self._sender(asked.source, asked.frame), asked.frame, tuple(self._assumed))
        if not (asked.source and asked.target and asked.service):
            raise InputError("which packet? write VM VM PORT, as in `web db 5432/tcp`, --packet or --pcap")
        return self._between(asked)

    # who

    def _nics(self, name: str) -> tuple[Nic, ...]:
        wanted = name.replace(":", ".") if "." not in name else name
        found = tuple(nic for nic in self._inventory.nics if wanted in (nic.name, nic.vm))
        replicas = [vm for vm in self._inventory.vms if vm.spec == wanted]
        if not found and replicas:
            first = replicas[0]
            self._assumed.append(f"{first.name}, the first of {len(replicas)} replicas of {wanted}")
            return first.nics
        if not found:
            names = {nic.vm for nic in self._inventory.nics} | {nic.name for nic in self._inventory.nics}
            near = suggestion(name, names)
            known = near or "known: " + ", ".join(vm.name for vm in self._inventory.vms)
            raise InputError(f"there is no VM or NIC {name} in fabric {self._topology.name}; {known}")
        return found

    def _of(self, nics: tuple[Nic, ...]) -> list[Endpoint]:
        names = {nic.name for nic in nics}
        return [end for end in self._ends if end.name in names and not end.address.is_link_local]

    def _named(self, name: str) -> list[Endpoint]:
        """Whom a word means: who is outside by `internet`, `host` or an address, else a VM or a NIC."""
        address = _address(name)
        if address is None and name not in OUTSIDE:
            return self._of(self._nics(name))
        if address is None:
            found = [end for end in self._outside.ends() if end.vm.name == name and not end.is_link_local]
        else:
            found = [end for end in self._ends if end.address == address]
            beyond = (self._outside.at(edge, address) for edge in self._outside.edges)
            found = found or [end for end in beyond if end is not None]
        if not found:
            raise InputError(
                f"nobody is {name}: no router has an uplink, and no uplink carries a network there"
            )
        return found

    def _sender(self, name: str, frame: bytes) -> Nic:
        """The NIC that a frame comes from: the one named, else whose MAC address it has."""
        nics = self._nics(name) if name else self._inventory.nics
        if len(nics) == 1:
            return nics[0]
        mac = int.from_bytes(frame[6:12], "big")
        found = [nic for nic in nics if nic.mac == mac]
        if len(found) == 1:
            self._assumed.append(f"sent by {found[0].name}, whose MAC address it has")
            return found[0]
        words = ", ".join(nic.name for nic in nics[:12]) + (", …" if len(nics) > 12 else "")
        raise InputError(f"which NIC sends it? --from VM.NIC, one of {words}")

    # from two names

    def _between(self, asked: Asked) -> Question:
        service, sources = service_of(asked.service), self._named(asked.source)
        source, target, address = self._ways(sources, asked)
        protocol = _protocol(service, source.address.version)
        port = service.ports[0] if service.ports and protocol in (TCP, UDP, SCTP) else 0
        if service.ports and service.ports[0] != service.ports[1] and port:
            self._assumed.append(f"port {port}, the first of {service.text}")
        if service.protocol is None:
            self._assumed.append(f"IP protocol {protocol} stands for any")
        living = self._living(source, address, protocol, port)
        if living and asked.new:
            self._assumed.append(
                f"the connection that lives, from port {living.source.port}, is not asked about"
            )
        found = None if asked.new else living
        client = found.source.port if found else (ECHO_ID if protocol in (ICMP, ICMPV6) else CLIENT_PORT)
        if protocol in (TCP, UDP, SCTP):
            why = "of a connection that lives; --new asks about another one" if found else "any free one"
            self._assumed.append(f"the client's port is {client}, {why}")
        frame = (
            self._ether(source, target, address)
            / _ip(source.address, address, protocol)
            / _transport(source.address.version, protocol, client, port, "A" if found else "S")
        )
        return Question(source.nic, bytes(frame), tuple(self._assumed), bool(found))

    def _ways(self, sources: list[Endpoint], asked: Asked) -> tuple[Endpoint, Endpoint | None, IPAddress]:
        """Who sends to whom: two on one network, if there are any."""
        address = _address(asked.target)
        if address is not None and not any(each.is_outside for each in sources):
            return self._to_address(sources, address, asked)
        targets = self._named(asked.target)
        pairs = [
            (a, b)
            for a in sources
            for b in targets
            if a.address.version == b.address.version and a.vm.name != b.vm.name
        ]
        near = [(a, b) for a, b in pairs if a.nic.network == b.nic.network]
        near = near or [(a, b) for a, b in pairs if self._roads.can_meet(a, b)]
        if not pairs:
            raise InputError(
                f"{asked.source} and {asked.target} have no addresses of one family that could meet; "
                "give an IP address, or --packet"
            )
        source, target = (near or pairs)[0]
        if len(near) > 1:
            self._assumed.append(f"from {source} to {target}, the first of {len(near)} pairs of addresses")
        if not near:
            where = source.nic.network or source.name
            self._assumed.append(
                f"{asked.source} and {asked.target} share no network: sent on {where} anyway"
            )
        return source, target, target.address

    def _to_address(
        self, sources: list[Endpoint], address: IPAddress, asked: Asked
    ) -> tuple[Endpoint, Endpoint | None, IPAddress]:
        networks = self._topology.networks
        fitting = [
            end
            for end in sources
            if end.address.version == address.version
            and any(address in subnet for subnet in networks[end.nic.network].subnets)
        ]
        fitting = fitting or [
            end
            for end in sources
            if end.address.version == address.version and self._routed(end.nic, address)
        ]
        fitting = fitting or [end for end in sources if self._on_cable(end, address)]
        if not fitting:
            words = ", ".join(
                f"{network} ({', '.join(map(str, networks[network].subnets))})"
                for network in dict.fromkeys(end.nic.network for end in sources)
            )
            raise InputError(
                f"{address} is in no network of {asked.source}; its networks: {words or 'none'}. "
                f"--packet with --from {asked.source} sends to it all the same"
            )
        source = fitting[0]
        owner = [e for e in self._ends if e.address == address and e.nic.network == source.nic.network]
        server, routed = self._server_mac(source.nic.network, address), self._routed(source.nic, address)
        owner = owner or [e for e in self._ends if routed and e.address == address]
        if not owner and not routed and server is None:
            self._assumed.append(f"nobody on {source.nic.network} has {address}: sent to {NOBODYS_MAC}")
        return source, owner[0] if owner else None, address

    def _on_cable(self, source: Endpoint, address: IPAddress) -> bool:
        """Whether an address that is not of the network may be beyond the cable that it is on."""
        beyond = (self._outside.at(edge, address) for edge in self._outside.edges)
        return any(end is not None and self._roads.are_neighbours(source, end) for end in beyond)

    def _server_mac(self, network: str, address: IPAddress) -> str | None:
        """The MAC of who answers the guests of a network, if the address is one of that one's."""
        servers = (each for each in self._inventory.services if each.network == network)
        own = (each.mac for each in servers if any(address == one.ip for one in each.addresses))
        return next(map(format_mac, own), None)

    def _routed(self, nic: Nic, address: IPAddress) -> bool:
        """Whether the NIC would send to its gateway what is for the address."""
        networks = self._topology.networks
        here = any(address in subnet for subnet in networks[nic.network].subnets)
        of_version = any(each.version == address.version for each in nic.gateways)
        return not here and of_version and not address.is_link_local

    def _ether(self, source: Endpoint, target: Endpoint | None, address: IPAddress) -> Packet:
        mac = self._server_mac(source.nic.network, address) or NOBODYS_MAC
        if target is not None:
            mac = format_mac(self._roads.mac(source, target))
        elif self._routed(source.nic, address):
            mac = format_mac(gateway_mac(self._topology.name))
        ether = l2.Ether(src=format_mac(source.macs[0]), dst=mac)
        return ether / l2.Dot1Q(vlan=source.block.tag) if source.block and source.block.tag else ether

    def _living(self, source: Endpoint, target: IPAddress, protocol: int, port: int) -> Direction | None:
        """A connection of the source to that port."""
        ends = int(source.address), int(target)
        return next(
            (
                each
                for each in self._connections
                if (each.source.address, each.target.address) == ends
                and each.protocol == protocol
                and each.target.port == port
                and each.zone in self._roads.routing.zones(source.nic.network, source.nic.vlan)
            ),
            None,
        )

    # from layers

    def _of_layers(self, name: str, packet: Packet) -> Question:
        if not isinstance(packet, (l2.Ether, l2.Dot3)):
            packet = l2.Ether() / packet
        nic = self._sender_of(name, packet)
        for layer in _layers(packet):
            self._complete(layer, nic)
        try:
            frame = bytes(packet)
        except Exception as error:  # noqa: BLE001  a layer's own code says what it does not take
            raise InputError(f"--packet: {type(error).__name__}: {error}") from None
        return Question(nic, frame, tuple(self._assumed))

    def _sender_of(self, name: str, packet: Packet) -> Nic:
        mac = packet.fields.get("src")
        given = bytes(6) + bytes.fromhex(mac.replace(":", "")) if isinstance(mac, str) else bytes(12)
        if not name and not any(given):
            ip = next((layer.fields["src"] for layer in _layers(packet) if _says(layer, "src")), None)
            found = [e.nic for e in self._ends if ip is not None and str(e.address) == str(ip)]
            if len(found) == 1:
                self._assumed.append(f"sent by {found[0].name}, whose address it has")
                return found[0]
        near = self._on_its_network(name, packet) if name and not any(given) else []
        if len(near) == 1:
            return near[0]
        return self._sender(name, given)

    def _on_its_network(self, name: str, packet: Packet) -> list[Nic]:
        """The NICs of a VM that are on the network of the address that a packet is for."""
        ip = next((layer.fields["dst"] for layer in _layers(packet) if _says(layer, "dst")), None)
        subnets = {network.name: network.subnets for network in self._topology.networks.values()}
        address = ip_address(str(ip)) if ip is not None else None
        nics = self._nics(name)
        return [nic for nic in nics if address and any(address in net for net in subnets[nic.network])]

    def _complete(self, layer: Packet, nic: Nic) -> None:
        """Give a layer what Scapy would else ask this host for."""
        own = [end.address for end in self._of((nic,))]
        match layer:
            case l2.Ether() | l2.Dot3():
                layer.fields.setdefault("src", format_mac(nic.mac))
                if "dst" not in layer.fields:
                    layer.fields["dst"] = self._mac_towards(layer, nic)
            case inet.IP() | inet6.IPv6():
                version = 4 if isinstance(layer, inet.IP) else 6
                nothing = "0.0.0.0" if version == 4 else "::"
                first = next((str(address) for address in own if address.version == version), nothing)
                if "src" not in layer.fields:
                    layer.fields["src"] = first
                    self._assumed.append(f"from {first}, {nic.name}'s address")
                if "dst" not in layer.fields:
                    raise InputError(f'--packet: say where to: {type(layer).__name__}(dst="…")')
            case l2.ARP():
                first = next((str(address) for address in own if address.version == 4), "0.0.0.0")
                layer.fields.setdefault("hwsrc", format_mac(nic.mac))
                layer.fields.setdefault("psrc", first)

    def _mac_towards(self, ether: Packet, nic: Nic) -> str:
        """Of who has the address that the packet is for, on the NIC's network."""
        ip = next((layer.fields["dst"] for layer in _layers(ether.payload) if _says(layer, "dst")), None)
        if ip is None:
            return "ff:ff:ff:ff:ff:ff"
        special = ip_address(str(ip))
        if special.is_multicast:
            return _multicast(special)
        if self._routed(nic, special):
            return format_mac(gateway_mac(self._topology.name))
        owner = [e for e in self._ends if e.address == special and e.nic.network == nic.network]
        if not owner:
            server = self._server_mac(nic.network, special)
            if server is not None:
                return server
            self._assumed.append(f"nobody on {nic.network} has {ip}: sent to MAC {NOBODYS_MAC}")
            return NOBODYS_MAC
        return format_mac(owner[0].macs[0])


def _says(layer: Packet, name: str) -> bool:
    return isinstance(layer, (inet.IP, inet6.IPv6)) and name in layer.fields


def _layers(packet: Packet) -> Iterator[Packet]:
    while not isinstance(packet, NoPayload):
        yield packet
        packet = packet.payload


def _multicast(address: IPAddress) -> str:
    """RFC 1112, section 6.4; RFC 2464, section 7."""
    raw = address.packed
    return bytes(
        (0x33, 0x33, *raw[12:]) if address.version == 6 else (1, 0, 0x5E, raw[1] & 127, *raw[2:])
    ).hex(":")


def _address(text: str) -> IPAddress | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _protocol(service: Service, version: int) -> int:
    if service.protocol is None:
        return PROTOCOL_ANY
    return (ICMP if version == 4 else ICMPV6) if service.protocol in (ICMP, ICMPV6) else service.protocol


def _ip(source: IPAddress, target: IPAddress, protocol: int) -> Packet:
    if source.version == 4:
        return inet.IP(src=str(source), dst=str(target), proto=protocol)
    return inet6.IPv6(src=str(source), dst=str(target), nh=protocol)


def _transport(version: int, protocol: int, client: int, server: int, flags: str) -> Packet:
    if protocol == TCP:
        return inet.TCP(sport=client, dport=server, flags=flags, seq=1, ack=1 if flags == "A" else 0)
    if protocol == UDP:
        return inet.UDP(sport=client, dport=server) / Raw(b"vnet")
    if protocol == SCTP:
        return sctp.SCTP(sport=client, dport=server) / sctp.SCTPChunkInit()
    if protocol == ICMP:
        return inet.ICMP(id=client)
    if protocol == ICMPV6:
        return inet6.ICMPv6EchoRequest(id=client)
    return Raw(b"vnet")
