"""What the doctor is told of a host, its daemon and its fabrics: observed values, nothing is judged here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vnet.fabric.cable import LinkState
from vnet.fabric.disk_sizing import DiskSeen
from vnet.fabric.numbers import FabricNumbers, Numbers
from vnet.fabric.state import Gateway, State
from vnet.fabric.strain import Strain
from vnet.openflow.flow import Flow


@dataclass(frozen=True, slots=True)
class LocationSeen:
    """Where disks of VMs lie. `trouble` says why it cannot be used now, if so."""

    name: str
    folder: str
    free_bytes: int
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class HostSeen:
    """The host itself.

    `accel` is `kvm` or `tcg`, `accel_reason` the timed probe's words. `now_s` is what the clock says,
    `newest_s` when the state directory was last written to, both since 1970. `cpus` are those that guests may
    use.
    """

    state_dir: str
    available_memory_bytes: int
    free_disk_bytes: int
    accel: str
    accel_reason: str
    now_s: float
    newest_s: float
    cpus: int
    memory_bytes: int
    old_snapshots: tuple[tuple[str, int], ...] = ()
    """Fabrics, up or not, and how many snapshots of each are older than is good for disks."""
    locations: tuple[LocationSeen, ...] = ()
    """Those that the host's administrator has added."""
    gone_images: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """IDs of images that are not in the store, and the disks that are made of them, as FABRIC/VM/DISK."""


@dataclass(frozen=True, slots=True)
class DaemonSeen:
    """vnetd, and `client`, the version of the vnet that asks it.

    `pid` is the one that holds the lock of this host, 0 if nobody does. `problem` says why it did not answer
    although it listens. `numbers` are None of a daemon that does not run or is of another version.
    `silent` are the guests, with their fabrics, that run and whose agent does not answer, `strains` who waits
    too long for what this host lacks.
    """

    socket: str
    client: str
    pid: int = 0
    listens: bool = False
    problem: str = ""
    version: str = ""
    numbers: Numbers | None = None
    silent: frozenset[tuple[str, str]] = frozenset()
    strains: tuple[Strain, ...] = ()

    @property
    def answers(self) -> bool:
        """Whether it can be asked."""
        return bool(self.version)

    def fabric(self, name: str) -> FabricNumbers | None:
        """What it counts of a fabric."""
        fabrics = self.numbers.fabrics if self.numbers else ()
        return next((fabric for fabric in fabrics if fabric.name == name), None)


@dataclass(frozen=True, slots=True)
class Interface:
    """One of a fabric's namespace: is it switched on, has it a carrier, does it run the switch's program."""

    kind: str
    up: bool
    carrier: bool
    program: bool


@dataclass(frozen=True, slots=True)
class SwitchSeen:
    """What is pinned of a switch. `ports` are interfaces by port number, empty for one that is gone.

    `unreadable` says why it cannot be read, `is_other` that another version of vnet made its maps.
    `foreign` counts flows that are not vnet's by cookie.
    """

    unreadable: str = ""
    is_other: bool = False
    ports: Mapping[int, str] = field(default_factory=dict)
    flows: frozenset[Flow] = frozenset()
    foreign: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServiceSeen:
    """Who answers a network's guests. `pid` is 0 if its dnsmasq does not run.

    `leases` is the path of a lease file that cannot be read, empty if there is none of that kind.
    """

    network: str
    namespace: bool = False
    veth: bool = False
    pid: int = 0
    leases: str = ""


@dataclass(frozen=True, slots=True)
class FabricSeen:
    """One fabric. `wanted` is None when its topology cannot be read any more; `unreadable` says why.

    `agent` tells whether somebody answers OpenFlow at its socket. `running` are the guests whose QEMU lives.
    """

    name: str
    file: str
    generation: int
    enforced: int
    netns: str
    pins: str
    openflow: str
    wanted: State | None = None
    unreadable: str = ""
    namespace: bool = False
    interfaces: Mapping[str, Interface] = field(default_factory=dict)
    switch: SwitchSeen | None = None
    agent: bool = False
    services: tuple[ServiceSeen, ...] = ()
    running: frozenset[str] = frozenset()
    gateways: frozenset[Gateway] = frozenset()
    """Those that are as they were put."""
    links: Mapping[str, LinkState] = field(default_factory=dict)
    """How the interfaces are that it has as cables, by their uplinks."""
    disks: tuple[DiskSeen, ...] = ()
    """Those of its guests that run."""

    def service(self, network: str) -> ServiceSeen:
        """Who answers there; of one that nothing is there of, a `ServiceSeen` that says so."""
        found = (service for service in self.services if service.network == network)
        return next(found, ServiceSeen(network))


@dataclass(frozen=True, slots=True)
class Process:
    """A process that works for a fabric, and nobody knows of. `program` is `qemu` or `dnsmasq`."""

    pid: int
    program: str
    fabric: str


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What has a name of vnet's and belongs to no fabric of this host. `folders` are pins and directories."""

    namespaces: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    processes: tuple[Process, ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything. `store_problem` says why it is not known which fabrics there are."""

    host: HostSeen
    daemon: DaemonSeen
    fabrics: tuple[FabricSeen, ...] = ()
    leftovers: Leftovers = Leftovers()
    store_problem: str = ""
