"""What a fabric is, as one frozen value: the same type says what should be and what was observed.

A plan goes from one `State` to another, so everything an action can change stands here, and nothing
else: a comment edited in the topology file gives an equal `State` and therefore an empty plan.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b

from vnet.base import limits
from vnet.base.boot import MICRO_BOOT, Boot
from vnet.base.limits import Limits
from vnet.base.line import STRAIGHT, Line
from vnet.fabric.mirror import Mirror
from vnet.hv.built import Built
from vnet.hv.disk import Disk
from vnet.openflow.flow import Flow
from vnet.services.dhcp import Files, files
from vnet.services.gateway import Forwarding, forwarding
from vnet.topology.endpoints import EndpointKind, EndpointSpec
from vnet.topology.inventory import Awaited, Inventory, Listener, Nic, Vm
from vnet.topology.model import Topology
from vnet.topology.mtu import ETHERNET_BYTES

IFNAME_MAX = 15
"""IFNAMSIZ - 1 (linux/if.h)."""


@dataclass(frozen=True, slots=True, order=True)
class Port:
    """A port of the switch: its OpenFlow number and the kernel interface behind it."""

    number: int
    ifname: str


HOSTS_OWN = 0
"""Instead of an MTU: the port is an interface of the host, whose MTU is the host's to say."""


@dataclass(frozen=True, slots=True, order=True)
class Attached:
    """A port that is in the switch: how much its NIC may use of it, the longest packet that it sends, and
    what joins the two."""

    port: Port
    limits: Limits = limits.STRICT
    mtu_bytes: int = ETHERNET_BYTES
    line: Line = STRAIGHT


@dataclass(frozen=True, slots=True, order=True)
class GuestNic:
    """One NIC as the guest is given it. `mac` is a 48-bit integer, `addresses` are `IP/PREFIX`.

    `asked` are those of them that the guest asks for itself, `gateways` those of its default routes;
    `dhcpv6` and `resolvers` are as in `vnet.topology.inventory.Nic`.
    """

    interface: str
    port: Port
    mac: int
    addresses: tuple[str, ...]
    asked: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    mtu_bytes: int = ETHERNET_BYTES
    dhcpv6: str = ""
    resolvers: tuple[str, ...] = ()
    domain: str = ""


@dataclass(frozen=True, slots=True, order=True)
class Guest:
    """A running VM with all that makes it what it is. `guest_changes` says what a difference takes."""

    name: str
    image: str
    cpus: int
    memory_bytes: int
    nics: tuple[GuestNic, ...]
    disks: tuple[Disk, ...] = ()
    boot: Boot = MICRO_BOOT
    awaits: tuple[Awaited, ...] = field(default=(), compare=False)
    """Whom its start waits for; no part of what it is."""
    changed_from: Guest | None = None
    """What it was before a change that was broken off: it has something of both."""
    built: Built | None = field(default=None, compare=False)
    """Of a guest that runs: what its machine was built for."""

    @property
    def is_half_changed(self) -> bool:
        """Whether a change of it was broken off."""
        return self.changed_from is not None

    @property
    def ports(self) -> frozenset[Port]:
        """The ports that its NICs are plugged into."""
        return frozenset(nic.port for nic in self.nics)


@dataclass(frozen=True, slots=True)
class NetworkService:
    """Who answers a network's guests: a dnsmasq in a namespace of its own, behind a port of the switch.

    `mac` is a 48-bit integer, `addresses` are `IP/PREFIX`, `forwarders` addresses that it asks itself.
    """

    network: str
    port: Port
    mac: int
    addresses: tuple[str, ...]
    files: Files
    forwarders: tuple[str, ...] = ()
    mtu_bytes: int = ETHERNET_BYTES


@dataclass(frozen=True, slots=True)
class Gateway:
    """What forwards for a router with an uplink: a namespace behind a port of the switch.

    `mac` is a 48-bit integer, that of its interface to the switch.
    """

    router: str
    port: Port
    mac: int
    forwarding: Forwarding


@dataclass(frozen=True, slots=True, order=True)
class Cable:
    """An interface of the host that is a port of the switch as long as the fabric has it.

    `interface` is its name on the host; in the fabric's namespace it has the port's.
    """

    uplink: str
    interface: str
    port: Port


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What joins a port with something that is not launched here; the port's interface is made with it.

    `mac`, `addresses`, `gateways` and `mtu_bytes` are what the interface in a namespace is given. They are
    empty where nobody but the other side has a say.
    """

    name: str
    port: Port
    where: EndpointSpec
    mac: int = 0
    addresses: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    mtu_bytes: int = 0

    def is_wired_as(self, other: Endpoint) -> bool:
        """Whether the two lead to the same place by the same port: one can become the other under traffic."""
        return (self.name, self.port, self.where) == (other.name, other.port, other.where)


@dataclass(frozen=True, slots=True)
class State:
    """A whole fabric on this host. `ports` exist as interfaces, `attached` ones are in the switch.

    `guests` are the running ones. The empty state, `State()`, is a fabric that is not there.
    """

    namespace: bool = False
    switch: bool = False
    ports: frozenset[Port] = frozenset()
    attached: frozenset[Attached] = frozenset()
    flows: frozenset[Flow] = field(default_factory=frozenset)
    guests: frozenset[Guest] = frozenset()
    mirrors: frozenset[Mirror] = frozenset()
    services: frozenset[NetworkService] = frozenset()
    gateways: frozenset[Gateway] = frozenset()
    cables: frozenset[Cable] = frozenset()
    endpoints: frozenset[Endpoint] = frozenset()

    def endpoint(self, name: str) -> Endpoint | None:
        """The endpoint of that name."""
        return next((endpoint for endpoint in self.endpoints if endpoint.name == name), None)

    def cable(self, uplink: str) -> Cable | None:
        """The cable of that uplink."""
        return next((cable for cable in self.cables if cable.uplink == uplink), None)

    def service(self, network: str) -> NetworkService | None:
        """Who answers the guests of that network."""
        return next((service for service in self.services if service.network == network), None)

    def gateway(self, router: str) -> Gateway | None:
        """What forwards for that router."""
        return next((gateway for gateway in self.gateways if gateway.router == router), None)

    def mirror(self, name: str) -> Mirror | None:
        """The mirror of that name."""
        return next((mirror for mirror in self.mirrors if mirror.name == name), None)

    @property
    def plugged(self) -> frozenset[Port]:
        """The ports that are in the switch."""
        return frozenset(each.port for each in self.attached)

    def attachment(self, port: Port) -> Attached | None:
        """How a port is in the switch; None if it is not."""
        return next((each for each in self.attached if each.port == port), None)

    def guest(self, name: str) -> Guest | None:
        """The running guest of that name."""
        return next((guest for guest in self.guests if guest.name == name), None)


def ifname(nic: str) -> str:
    """The TAP's name for a NIC (`web-1.eth0`); a name too long keeps its start and gets a digest."""
    if len(nic) <= IFNAME_MAX:
        return nic
    digest = blake2b(nic.encode(), digest_size=3).hexdigest()
    return f"{nic[: IFNAME_MAX - 7]}~{digest}"


def desired(
    inventory: Inventory,
    flows: tuple[Flow, ...],
    stopped: frozenset[str] = frozenset(),
    mirrors: frozenset[Mirror] = frozenset(),
    services: frozenset[NetworkService] = frozenset(),
    gateways: frozenset[Gateway] = frozenset(),
    cables: frozenset[Cable] = frozenset(),
) -> State:
    """The state that a topology asks for; VMs in `stopped` keep their ports but do not run."""
    attached = frozenset(
        Attached(port_of(nic), nic.profile.limits, nic.mtu_bytes, nic.line) for nic in inventory.nics
    )
    attached |= {Attached(port_of(each), limits.STRICT, each.mtu_bytes) for each in inventory.listeners}
    endpoints = frozenset(map(endpoint_of, (vm for vm in inventory.vms if vm.endpoint)))
    ports = frozenset(each.port for each in attached) - {each.port for each in endpoints}
    attached |= {Attached(service.port, limits.STRICT, service.mtu_bytes) for service in services}
    attached |= {Attached(gateway.port, MANY) for gateway in gateways}
    attached |= {Attached(cable.port, MANY, HOSTS_OWN) for cable in cables}
    return State(
        namespace=True,
        switch=True,
        ports=ports,
        attached=attached,
        flows=frozenset(flows),
        guests=frozenset(guest_of(vm) for vm in inventory.launched if vm.name not in stopped),
        mirrors=mirrors,
        services=services,
        gateways=gateways,
        cables=cables,
        endpoints=endpoints,
    )


SERVICE = "@"
"""The interface of a network's service begins so: no NIC's does."""
CABLE = "="
"""The interface of an uplink begins so, as long as the fabric has it."""
MANY = Limits(connections=limits.CONNECTIONS_MAX, macs=limits.MACS_MAX)
"""Of a port with many hosts behind it: none of them may use up what the others need."""


def remnant(network: str) -> NetworkService:
    """What is there of a service that does not answer as it was put: differs from all that can be wanted."""
    return NetworkService(network, Port(0, ""), 0, (), Files("", "", ""))


def services_of(topology: Topology, inventory: Inventory) -> frozenset[NetworkService]:
    """The services that the networks of a topology ask for."""
    return frozenset(
        NetworkService(
            each.network,
            Port(each.port, ifname(f"{SERVICE}{each.network}")),
            each.mac,
            tuple(map(str, each.addresses)),
            files(topology, inventory, each),
            tuple(map(str, topology.networks[each.network].forwarders)),
            each.mtu_bytes,
        )
        for each in inventory.services
    )


GATEWAY = "~"
"""The interface of a gateway begins so, and the name of its namespace behind that of the fabric."""


def gateway_remnant(router: str) -> Gateway:
    """What is there of a gateway that is not as it was put: differs from all that can be wanted."""
    return Gateway(router, Port(0, ""), 0, Forwarding())


def gateways_of(topology: Topology, inventory: Inventory) -> frozenset[Gateway]:
    """The gateways that the routers of a topology ask for."""
    return frozenset(
        Gateway(
            each.router,
            Port(each.port, ifname(f"{GATEWAY}{each.router}")),
            each.mac,
            forwarding(topology, inventory, each),
        )
        for each in inventory.exits
    )


def cables_of(inventory: Inventory) -> frozenset[Cable]:
    """The cables that the uplinks of a topology ask for."""
    return frozenset(
        Cable(each.uplink, each.interface, Port(each.port, ifname(f"{CABLE}{each.uplink}")))
        for each in inventory.uplinks
    )


def cable_remnant(uplink: str) -> Cable:
    """What is there of a cable that is not as it was put: differs from all that can be wanted."""
    return Cable(uplink, "", Port(0, ""))


def endpoint_of(vm: Vm) -> Endpoint:
    """What an endpoint of the inventory asks for."""
    assert vm.endpoint is not None, "it is one"
    (nic,) = vm.nics
    if vm.endpoint.kind is not EndpointKind.NETNS:
        return Endpoint(vm.name, port_of(nic), vm.endpoint)
    addresses, gateways = tuple(map(str, nic.addresses)), tuple(map(str, nic.gateways))
    return Endpoint(vm.name, port_of(nic), vm.endpoint, nic.mac, addresses, gateways, nic.mtu_bytes)


def endpoint_remnant(name: str) -> Endpoint:
    """What is there of an endpoint that is not as it was put: differs from all that can be wanted."""
    return Endpoint(name, Port(0, ""), EndpointSpec(EndpointKind.TAP, ""))


def guest_of(vm: Vm) -> Guest:
    """The guest that a VM of the inventory asks for."""
    nics = tuple(
        GuestNic(
            nic.interface,
            port_of(nic),
            nic.mac,
            tuple(map(str, nic.addresses)),
            tuple(map(str, nic.asked)),
            tuple(map(str, nic.gateways)),
            nic.mtu_bytes,
            nic.dhcpv6.value,
            tuple(map(str, nic.resolvers)),
            nic.domain,
        )
        for nic in vm.nics
    )
    nics += tuple(
        GuestNic(each.interface, port_of(each), each.mac, (), mtu_bytes=each.mtu_bytes)
        for each in vm.listeners
    )
    disks = tuple(
        Disk(
            each.name,
            each.size_bytes,
            each.format.value,
            each.is_full,
            each.is_root,
            each.is_encrypted,
            each.location,
        )
        for each in vm.disks
    )
    return Guest(vm.name, vm.image, vm.cpus, vm.memory_bytes, nics, disks, vm.boot, vm.awaits)


def port_of(nic: Nic | Listener) -> Port:
    """The port that a NIC is plugged into."""
    return Port(nic.port, ifname(nic.name))
