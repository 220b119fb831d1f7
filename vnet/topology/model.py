"""A topology as frozen values that remember their lines: the result of `load`, input of all else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from vnet.base import limits
from vnet.base.boot import DEFAULT_LOCATION, MICRO_BOOT, Boot, ImageSource
from vnet.base.limits import Limits
from vnet.base.line import STRAIGHT, Line
from vnet.base.source import Location
from vnet.topology.endpoints import EndpointSpec
from vnet.topology.life import NO_LIFE, Life

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network
IPInterface = IPv4Interface | IPv6Interface


@dataclass(frozen=True, slots=True)
class AddressRange:
    """Addresses of one version of IP, both ends included."""

    first: IPAddress
    last: IPAddress

    def __contains__(self, address: IPAddress) -> bool:
        return address.version == self.first.version and int(self.first) <= int(address) <= int(self.last)

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


LEASE_S = 3600
"""How long leases last unless the file says otherwise."""


@dataclass(frozen=True, slots=True)
class Dhcp:
    """How addresses of a subnet are handed out. `reservations` are by NIC (`web-1.eth0`) or MAC as text.

    `range` is what the fabric chooses from; None for the whole subnet.
    """

    range: AddressRange | None = None
    lease_s: int = LEASE_S
    reservations: Mapping[str, IPAddress] = field(default_factory=dict)


class Advertised(Enum):
    """What routers advertise in an IPv6 subnet (RFC 4861, section 4.2).

    SLAAC: guests make their addresses of its prefix themselves. MANAGED: they ask for them by DHCPv6.
    """

    SLAAC = "slaac"
    MANAGED = "managed"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Served:
    """What guests are told in a subnet. `dhcp` is None where nobody answers them."""

    subnet: IPNetwork
    dhcp: Dhcp | None = None
    ra: Advertised = Advertised.NONE


@dataclass(frozen=True, slots=True)
class Network:
    name: str
    vlan: int
    subnets: tuple[IPNetwork, ...]
    at: Location
    is_internal: bool = False
    """No router may give it a way out."""
    is_isolated: bool = False
    """Its NICs reach promiscuous ones only, and these reach all."""
    gateways: tuple[IPAddress, ...] = ()
    """Those that the file gives, at most one of each subnet."""
    served: tuple[Served, ...] = ()
    """The subnets in which guests are told anything."""
    domain: str = ""
    """Where names of its VMs are told; empty where nobody answers questions for names."""
    forwarders: tuple[IPAddress, ...] = ()
    """Who is asked for the names that are nobody's here; () where nobody is."""
    mtu_bytes: int | None = None
    """None to have it worked out (`vnet.topology.mtu`)."""

    @property
    def has_services(self) -> bool:
        """Whether somebody answers its guests: for addresses, or for names."""
        return bool(self.served or self.domain)

    def serves(self, subnet: IPNetwork) -> Served:
        """What guests are told in one of the subnets."""
        return next((each for each in self.served if each.subnet == subnet), Served(subnet))

    def gateway(self, subnet: IPNetwork) -> IPAddress | None:
        """The address of a router in one of the subnets: its first, if the file gives none.

        None for a subnet that is too small to have one.
        """
        given = next((each for each in self.gateways if each in subnet), None)
        return first_host(subnet) if given is None else given


def first_host(subnet: IPNetwork) -> IPAddress | None:
    """The first address of a subnet that a host can have; None if there is none.

    Not hosts are the network's own address (in IPv6 that of the subnet's routers, RFC 4291, 2.6.1)
    and in IPv4 the broadcast address.
    """
    last = int(subnet.broadcast_address) - (1 if subnet.version == 4 else 0)
    return subnet.network_address + 1 if int(subnet.network_address) < last else None


@dataclass(frozen=True, slots=True)
class Route:
    """What lies beyond one of the hosts: packets `to` it are handed to whoever has the address `via`."""

    to: IPNetwork
    via: IPAddress
    at: Location


HOST_UPLINK = "host"
"""The uplink that needs no declaration: the host itself forwards, by its own routes."""


class Nat(Enum):
    """What becomes of source addresses on the way out."""

    NONE = "none"
    MASQUERADE = "masquerade"


class UplinkMode(Enum):
    """How an interface carries networks: one untagged, or several by their 802.1Q tags."""

    ACCESS = "access"
    TRUNK = "trunk"


@dataclass(frozen=True, slots=True)
class Uplink:
    """An interface of the host that the fabric has to itself as long as it is up.

    It carries `networks` to whoever is beyond it, as a cable between two switches does; or it is a router's,
    and has `addresses` there. Never both.
    """

    name: str
    interface: str
    at: Location
    mode: UplinkMode = UplinkMode.ACCESS
    networks: tuple[str, ...] = ()
    addresses: tuple[IPInterface, ...] = ()
    gateways: tuple[IPAddress, ...] = ()
    """Of a router's default routes there, at most one of each version of IP."""


@dataclass(frozen=True, slots=True)
class Router:
    """Carries packets between networks, by their gateways and by its routes."""

    name: str
    networks: tuple[str, ...]
    routes: tuple[Route, ...]
    at: Location
    uplink: str = ""
    """By which it sends what is for nobody in the fabric: `host`, an uplink's name, or empty for none."""
    masquerades: bool = False
    """Whether what leaves by the uplink gets the address that its router has there."""


@dataclass(frozen=True, slots=True)
class AddressPair:
    """Addresses that a NIC may use besides its own; several NICs may be allowed the same ones."""

    addresses: IPNetwork
    mac: int | None = None
    """With which alone it may; None for the NIC's own."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What port security lets a NIC do. All its guards stand in every profile; this is what may be chosen."""

    name: str
    limits: Limits = limits.STRICT
    pairs: tuple[AddressPair, ...] = ()

    def allowed(self) -> Iterator[tuple[IPAddress, int | None]]:
        """Each address that it allows, with the MAC of its pair."""
        for pair in self.pairs:
            yield from ((address, pair.mac) for address in pair.addresses)


STRICT = Profile("strict")
"""That of every NIC which names no other."""


@dataclass(frozen=True, slots=True)
class Interface:
    """A declared NIC: addresses and MAC are what the file says; what it leaves out is allocated later."""

    name: str
    network: str
    addresses: tuple[IPInterface, ...]
    mac: int | None
    at: Location
    is_promiscuous: bool = False
    """On an isolated network: all its NICs reach this one."""
    profile: str = STRICT.name
    is_mirror_only: bool = False
    """It is in no network (`network` is empty): it gets what mirrors copy to it, and sends nothing."""
    asks: bool = False
    """The guest asks for its addresses, as far as anybody answers."""
    line: Line = STRAIGHT
    """How fast it is, and what befalls its packets."""
    dscp: int | None = None
    """What the packets that it sends are marked with."""


@dataclass(frozen=True, slots=True)
class Published:
    """A port of the host, or of a router's uplink, that leads to a VM: to its replicas in turn, if any.

    `listen` is the address at which it is open; an unspecified one (0.0.0.0, ::) means all of its version.
    `protocol` is an IP protocol number.
    """

    listen: IPAddress
    port: int
    guest_port: int
    protocol: int
    at: Location


class DiskFormat(Enum):
    """How a disk lies in its file on the host."""

    QCOW2 = "qcow2"
    RAW = "raw"


@dataclass(frozen=True, slots=True)
class DiskSpec:
    """A disk of a VM. `is_full`: all of its room is taken at once, and not as the guest writes.

    `is_root`: it is made of the VM's image, and has its size if `size_bytes` is 0. `is_encrypted`: its file
    is of no use without its key. `location` is what the host's administrator calls the folder of its file.
    """

    name: str
    size_bytes: int
    format: DiskFormat
    is_full: bool
    at: Location
    is_root: bool = False
    is_encrypted: bool = False
    location: str = DEFAULT_LOCATION


@dataclass(frozen=True, slots=True)
class DeclaredImage:
    """An image of the file, and where it is declared."""

    source: ImageSource
    at: Location


@dataclass(frozen=True, slots=True)
class VmSpec:
    """A declared VM after template and defaults are merged; `replicas` not yet expanded."""

    name: str
    image: str
    cpus: int
    memory_bytes: int
    interfaces: tuple[Interface, ...]
    groups: tuple[str, ...]
    labels: Mapping[str, str]
    replicas: int | None
    at: Location
    ports: tuple[Published, ...] = ()
    floating: tuple[IPAddress, ...] = ()
    """Addresses outside that are this VM's alone: what comes to them goes to it, and it leaves by them."""
    life: Life = NO_LIFE
    disks: tuple[DiskSpec, ...] = ()
    endpoint: EndpointSpec | None = None
    """Where it is, of one that is attached and not launched: an endpoint and no VM."""
    boot: Boot = MICRO_BOOT


class PeerKind(Enum):
    GROUP = "group"
    VM = "vm"
    NETWORK = "network"
    CIDR = "cidr"
    ANY = "any"
    INTERNET = "internet"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class Peer:
    """One selector: a group, a VM (`vm:NAME`), a network, a CIDR, `any`, `internet` or `host`.

    `value` is the name, the CIDR or the word itself. A VM's name means all its replicas, or one of them
    (`web-1`). `internet` is who is beyond an uplink, `host` the machine itself; `any` means them too.
    """

    kind: PeerKind
    value: str
    at: Location

    def __str__(self) -> str:
        match self.kind:
            case PeerKind.VM | PeerKind.NETWORK:
                return f"{self.kind.value}:{self.value}"
            case _:
                return self.value


@dataclass(frozen=True, slots=True)
class Service:
    """What a rule's `ports` lists: protocol and destination ports.

    `protocol` is an IP protocol number or None for any; `ICMP` (1) stands for ICMP and ICMPv6 alike.
    `ports` is an inclusive range, None for all. Of ICMP it is the type of the request that opens a
    connection: 8 over IPv4, 128 over IPv6.
    """

    protocol: int | None
    ports: tuple[int, int] | None
    text: str

    def __str__(self) -> str:
        return self.text


class Action(Enum):
    """What a rule does. DENY is silent, REJECT answers the sender, PASS asks the next tier."""

    ALLOW = "allow"
    DENY = "deny"
    REJECT = "reject"
    PASS = "pass"


class Isolation(Enum):
    """ISOLATED: NICs of the network reach promiscuous ones only, and these reach all."""

    NONE = "none"
    ISOLATED = "isolated"


class Enforcement(Enum):
    """AUDIT records what the policy would drop, and lets it pass."""

    ENFORCE = "enforce"
    AUDIT = "audit"


class Established(Enum):
    """What becomes of packets of connections that were let in before, where the policy now says no."""

    KEEP = "keep"
    REVALIDATE = "revalidate"
    RESET = "reset"


class Direction(Enum):
    """INGRESS is into the VM, EGRESS out of it."""

    INGRESS = "ingress"
    EGRESS = "egress"


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of `ingress` or `egress`. `peers` are the `from` or `to`; `services` () means any.

    `number` is its place in its list, from 1. It is in force until `expires` (in UTC), None for ever.
    """

    name: str
    number: int
    direction: Direction
    peers: tuple[Peer, ...]
    services: tuple[Service, ...]
    action: Action
    log: bool
    at: Location
    expires: datetime | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """`ingress`/`egress` is None when the file does not list it: that differs from an empty list."""

    name: str
    tier: str
    applied_to: tuple[Peer, ...]
    ingress: tuple[Rule, ...] | None
    egress: tuple[Rule, ...] | None
    at: Location
    enforcement: Enforcement = Enforcement.ENFORCE
    established: Established = Established.REVALIDATE


class ClaimKind(Enum):
    ALLOW = "allow"
    DENY = "deny"
    NEVER = "never"
    ONLY = "only"


@dataclass(frozen=True, slots=True)
class Claim:
    """One line of `verify`."""

    kind: ClaimKind
    source: Peer
    target: Peer
    service: Service | None
    text: str
    at: Location


@dataclass(frozen=True, slots=True)
class MirrorNic:
    """A NIC by the name of its VM, for a source also that of all its replicas."""

    vm: str
    interface: str


@dataclass(frozen=True, slots=True)
class MirrorNetwork:
    """All NICs of a network."""

    name: str


@dataclass(frozen=True, slots=True)
class MirrorUplink:
    """The interface of an uplink that carries networks."""

    name: str


MirrorSource = MirrorNic | MirrorNetwork | MirrorUplink


@dataclass(frozen=True, slots=True)
class ToFile:
    """A file of that name where the daemon keeps what mirrors record."""

    name: str

    def __str__(self) -> str:
        return f"pcap:{self.name}"


@dataclass(frozen=True, slots=True)
class ToVxlan:
    """Another machine, in VXLAN (RFC 7348). `number` is the VNI."""

    address: IPAddress
    udp_port: int
    number: int

    def __str__(self) -> str:
        return f"vxlan:{_bracketed(self.address)}:{self.udp_port}/{self.number}"


@dataclass(frozen=True, slots=True)
class ToErspan:
    """Another machine, in ERSPAN type II over GRE (draft-foschiano-erspan). `number` is the session ID."""

    address: IPAddress
    number: int

    def __str__(self) -> str:
        return f"erspan:{_bracketed(self.address)}/{self.number}"


def _bracketed(address: IPAddress) -> str:
    return f"[{address}]" if address.version == 6 else str(address)


class MirrorDirection(Enum):
    """As the source sees it: OUT is what it sends, IN what it is handed."""

    BOTH = "both"
    IN = "in"
    OUT = "out"


@dataclass(frozen=True, slots=True)
class Mirror:
    """Copies of packets, made by the switch. `filter` is a pcap expression, empty for all."""

    name: str
    source: MirrorSource
    direction: MirrorDirection
    filter: str
    to: MirrorNic | ToFile | ToVxlan | ToErspan
    snaplen_bytes: int
    at: Location


TIERS = ("admin", "application", "baseline")


@dataclass(frozen=True, slots=True)
class Topology:
    """A whole checked file. `tiers` in order of evaluation; `policies` in file order."""

    name: str
    description: str
    networks: Mapping[str, Network]
    vms: Mapping[str, VmSpec]
    groups: Mapping[str, tuple[IPNetwork, ...]]
    """Groups declared by `cidrs`; groups that VMs list need no declaration."""
    group_labels: Mapping[str, Mapping[str, str]]
    """Groups declared by `labels`: a VM that carries all of them is a member."""
    tiers: tuple[str, ...]
    policies: tuple[Policy, ...]
    claims: tuple[Claim, ...]
    at: Location
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    """Those declared, by name; `strict` is there without."""
    services: Mapping[str, tuple[Service, ...]] = field(default_factory=dict)
    """Those declared, by name."""
    mirrors: tuple[Mirror, ...] = ()
    routers: Mapping[str, Router] = field(default_factory=dict)
    """A network is in one of them at most."""
    uplinks: Mapping[str, Uplink] = field(default_factory=dict)
    """Those declared; `host` is there without."""
    images: Mapping[str, DeclaredImage] = field(default_factory=dict)
    """Those declared; `micro` and those of the host's store are there without."""
