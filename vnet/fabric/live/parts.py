"""What the engine needs of the world, one protocol for each neighbour; `live.host_parts` has the real ones.

All calls are coroutines of one fabric and raise HostError when the host refuses. Making a thing that
is there and removing one that is not are no errors: actions may be carried out again after a crash.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from vnet.base.drop import DropReason
from vnet.base.limits import Limits
from vnet.base.line import Line
from vnet.fabric.asked import Sandbox
from vnet.fabric.cable import LinkState, Obstacle, Presence
from vnet.fabric.live.health import Healths
from vnet.fabric.live.rule_log import RuleLog
from vnet.fabric.live.watch import Watch
from vnet.fabric.mirror import Mirror
from vnet.fabric.state import Attached, Cable, Endpoint, Gateway, Guest, NetworkService, Port
from vnet.fabric.store import Record
from vnet.hv.live.blocks import Blocks
from vnet.hv.live.snapshots import Snapshots
from vnet.hv.spec import ExecResult, GuestSpec, GuestStatus
from vnet.hv.stored import Stored
from vnet.hv.vitals import Vitals
from vnet.openflow.conntrack import Direction
from vnet.openflow.flow import Flow
from vnet.openflow.message import FlowStats
from vnet.services.gateway import Answer
from vnet.services.leases import Lease
from vnet.switch.numbers import SwitchNumbers
from vnet.switch.taps import TapCount
from vnet.topology.model import Topology

T = TypeVar("T")


class Network(Protocol):
    """The fabric's network namespace and the interfaces in it."""

    async def exists(self) -> bool:
        """Whether the namespace is there."""
        ...

    async def create(self) -> None:
        """Make it; the kernel's stack in it stays silent."""
        ...

    async def remove(self) -> None:
        """Remove it with all that is in it."""
        ...

    async def interfaces(self) -> Mapping[str, str]:
        """Name → kind of every interface but the loopback."""
        ...

    async def create_port(self, ifname: str) -> None:
        """Make a persistent TAP."""
        ...

    async def resize_port(self, ifname: str, mtu_bytes: int) -> None:
        """Give an interface an MTU."""
        ...

    async def remove_port(self, ifname: str) -> None:
        """Delete an interface."""
        ...

    async def close(self) -> None:
        """Let go; everything stays."""
        ...


class Switch(Protocol):
    """The fabric's switch with its agent and the controller's session to it."""

    watch: Watch
    """Those who look at its packets."""

    @property
    def is_open(self) -> bool:
        """Whether it can be asked."""
        ...

    async def exists(self) -> bool:
        """Whether its programs and maps are pinned."""
        ...

    async def open(self) -> None:
        """Create it, or adopt what is pinned; the agent listens and the controller is connected."""
        ...

    async def attach(self, port: Port, limits: Limits) -> None:
        """Put an interface into the switch."""
        ...

    async def limit(self, port: Port, limits: Limits) -> None:
        """Let a port use so much of the switch from now on; nothing that it has is taken from it."""
        ...

    async def look(self) -> None:
        """Tell the dataplane at once what has become of the links of its ports."""
        ...

    async def lay(self, port: Port, line: Line) -> None:
        """Let a port be as fast as its line from now on; nothing that is under way is lost."""
        ...

    async def detach(self, port: Port) -> None:
        """Take it out."""
        ...

    async def ports(self) -> frozenset[Attached]:
        """What is attached."""
        ...

    async def flows(self) -> frozenset[Flow]:
        """vnet's flows in force, read back from the switch over OpenFlow."""
        ...

    async def all_flows(self) -> frozenset[Flow]:
        """The same with those that somebody else added."""
        ...

    async def flow_stats(self) -> tuple[FlowStats, ...]:
        """The same with what each has counted."""
        ...

    async def connections(self) -> tuple[Direction, ...]:
        """The live connections, each as the packets of its client go."""
        ...

    async def in_sandbox(self, work: Callable[[Sandbox, tuple[Direction, ...]], T]) -> T:
        """Try packets in a copy of the switch, which changes nothing in it.

        `work` gets the live connections too.
        """
        ...

    def slots(self) -> AsyncIterator[tuple[int, bytes]]:
        """The table of connections by parts, each with the number of its first slot."""
        ...

    async def learnt(self) -> tuple[tuple[int, int, int, int], ...]:
        """Addresses that the switch learnt: VLAN, MAC, port, CLOCK_MONOTONIC (ns) of the last frame."""
        ...

    def tell(self) -> None:
        """Hand what was reported up to now to those who look."""
        ...

    async def drops_by_nic(self) -> Mapping[str, int]:
        """Packets lost since the switch was made, by the NIC that sent them."""
        ...

    async def drops_by_cookie(self) -> Mapping[int, int]:
        """Packets that flows dropped, by cookie; counted for as long as the flow is there."""
        ...

    async def drop_counts(self) -> Mapping[DropReason, int]:
        """Packets lost since the switch was made, by reason."""
        ...

    async def numbers(self) -> SwitchNumbers:
        """What it counts and how full it is."""
        ...

    async def unreported(self) -> int:
        """Packets that could not be reported to anybody since the switch was made."""
        ...

    async def unreported_drops(self) -> int:
        """Of what was dropped, so many packets since the switch was made."""
        ...

    async def logged_counts(self) -> Mapping[int, int] | None:
        """Packets that flows met which are to be logged, by cookie; None of a switch that is not open."""
        ...

    async def change(self, put: frozenset[Flow], remove: frozenset[Flow]) -> None:
        """One atomic change; on return it is enforced."""
        ...

    async def mirrors(self) -> frozenset[Mirror]:
        """Those in force."""
        ...

    async def put_mirror(self, mirror: Mirror, record: Callable[[], Record]) -> None:
        """Put a mirror in force in place of what had its name. `record` gives the fabric's, for comments."""
        ...

    async def remove_mirror(self, name: str) -> None:
        """Copy no more; one that is not there is no error."""
        ...

    def mirror_counts(self) -> Mapping[str, TapCount]:
        """What became of the packets that mirrors were asked about, by their names."""
        ...

    async def close(self) -> None:
        """Let go; what is pinned goes on deciding."""
        ...

    async def destroy(self) -> None:
        """Detach and unpin everything."""
        ...


class Guests(Protocol):
    """The fabric's guests."""

    snapshots: Snapshots

    def spec(self, guest: Guest) -> GuestSpec:
        """A guest as its snapshots are asked for by."""
        ...

    async def adopt(self, guest: Guest) -> None:
        """Take over a guest that an earlier daemon started; one that is gone is no error."""
        ...

    async def recover(self) -> None:
        """Undo snapshots that an earlier daemon did not finish, once all guests have been adopted."""
        ...

    async def start(self, guest: Guest, note: Callable[[str], None]) -> str:
        """Start it and wait until its agent answers. Returns a remark for the progress line.

        `note` is told what takes time besides.
        """
        ...

    async def change(self, guest: Guest) -> None:
        """Make one that runs another while it goes on.

        Raises: HalfChanged when that was broken off half-way; after another VnetError it is as it was.
        """
        ...

    async def take_up(self, was: Guest, guest: Guest) -> None:
        """Complete a change, from `was`, that an earlier daemon was killed in. Raises as `change` does."""
        ...

    async def set_link(self, name: str, interface: str, *, is_up: bool) -> None:
        """Pull the cable of a NIC, or plug it in again; its next start plugs it in."""
        ...

    async def stop(self, name: str, timeout_s: float) -> None:
        """Ask it to power off, and end it when it does not within the time."""
        ...

    async def pause(self, name: str) -> None:
        """Let its processors stand still; one that does already is left as it is."""
        ...

    async def resume(self, name: str) -> None:
        """Let it go on; one that runs is left as it is."""
        ...

    async def refuse_memory(self, guest: Guest) -> None:
        """Raises HostError if the memory that is kept of it cannot be loaded into what is declared."""
        ...

    async def forget_memory(self, name: str) -> None:
        """Let one that does not run boot at its next start, though its memory is kept."""
        ...

    async def suspend(self, guest: Guest) -> int:
        """Keep its memory, and end it. Returns what that takes, in bytes."""
        ...

    async def reset(self, name: str) -> None:
        """Press its reset button, and wait until it has its addresses again."""
        ...

    async def destroy(self, name: str) -> None:
        """End it and remove its run directory."""
        ...

    async def status(self, name: str) -> GuestStatus:
        """How it is."""
        ...

    async def vitals(self, name: str) -> Vitals:
        """What it and its QEMU tell of memory and disks; nothing of one that does not run. Never blocks."""
        ...

    async def exec(
        self, name: str, argv: tuple[str, ...], timeout_s: float, stdin: bytes = b""
    ) -> ExecResult:
        """Run a command in it. Raises TimedOut."""
        ...

    async def console(self, name: str) -> Path:
        """The unix socket of its serial console."""
        ...

    async def vnc_socket(self, name: str) -> Path:
        """The unix socket on which VNC is spoken with it. Raises HostError if it has no screen."""
        ...

    async def picture(self, name: str) -> bytes:
        """What is on its screen, as PNG. Raises HostError if it has none."""
        ...

    def blocks(self, guest: Guest, why: str) -> AbstractAsyncContextManager[Blocks]:
        """Its disks, to be copied, whether it runs or not. One that does not is not started meanwhile."""
        ...

    def at_rest(self, guest: Guest, why: str) -> AbstractAsyncContextManager[Stored | None]:
        """It does not run, and is not started meanwhile. Raises HostError if it runs."""
        ...

    def held(self, guest: Guest, why: str) -> AbstractAsyncContextManager[None]:
        """The same for who does not ask what its disks are made of."""
        ...

    async def close(self) -> None:
        """Let go; the guests run on."""
        ...


class Services(Protocol):
    """Those who answer the guests of the fabric's networks."""

    async def observed(self) -> frozenset[NetworkService]:
        """Those that answer, as they were put; of all else that is there a `remnant`."""
        ...

    async def networks(self) -> tuple[str, ...]:
        """The networks of which anything is there, whether it answers or not."""
        ...

    async def put(self, service: NetworkService) -> None:
        """Have the guests of its network answered so: its port is made if it is not there.

        Leases that were given last.
        """
        ...

    async def remove(self, network: str) -> None:
        """End it and remove all that was made for it; one that is not there is no error."""
        ...

    async def revive(self) -> tuple[NetworkService, ...]:
        """Start again those that have died. Returns them: the interfaces of their ports may be new ones."""
        ...

    async def dead(self) -> tuple[str, ...]:
        """The networks whose guests should be answered and are not."""
        ...

    async def leases(self) -> tuple[tuple[str, Lease], ...]:
        """What guests have got by DHCP, with their networks."""
        ...


class NoServices:
    """Of a fabric whose networks have none."""

    async def observed(self) -> frozenset[NetworkService]:
        """See `Services`."""
        return frozenset()

    async def networks(self) -> tuple[str, ...]:
        """See `Services`."""
        return ()

    async def put(self, service: NetworkService) -> None:
        """See `Services`."""
        raise AssertionError(service)

    async def remove(self, network: str) -> None:
        """See `Services`."""

    async def revive(self) -> tuple[NetworkService, ...]:
        """See `Services`."""
        return ()

    async def dead(self) -> tuple[str, ...]:
        """See `Services`."""
        return ()

    async def leases(self) -> tuple[tuple[str, Lease], ...]:
        """See `Services`."""
        return ()


class Gateways(Protocol):
    """What forwards for the fabric's routers to the outside."""

    async def observed(self) -> frozenset[Gateway]:
        """Those that are as they were put; of all else that is there a `gateway_remnant`."""
        ...

    async def routers(self) -> tuple[str, ...]:
        """The routers of whose gateways anything is there, whether it forwards or not."""
        ...

    async def conflicts(self, wanted: frozenset[Gateway]) -> tuple[str, ...]:
        """What of this host stands in the way of gateways that are to be put, with what to do."""
        ...

    async def put(self, gateway: Gateway) -> str:
        """Forward so for its router: what works is not touched. Returns a remark, mostly none."""
        ...

    async def remove(self, router: str) -> None:
        """Remove all that was made for it; one that is not there is no error."""
        ...

    async def mend(self) -> tuple[Gateway, ...]:
        """Make again what was damaged. Returns those gateways; their ports may be others."""
        ...

    async def check(self) -> tuple[Answer, ...]:
        """Try the targets of published ports; those that do not answer get nothing.

        Returns those that have begun or ceased to answer.
        """
        ...

    async def silent(self) -> tuple[Answer, ...]:
        """The targets that get nothing because they did not answer."""
        ...


class NoGateways:
    """Of a fabric without a way out."""

    async def observed(self) -> frozenset[Gateway]:
        """See `Gateways`."""
        return frozenset()

    async def routers(self) -> tuple[str, ...]:
        """See `Gateways`."""
        return ()

    async def conflicts(self, wanted: frozenset[Gateway]) -> tuple[str, ...]:
        """See `Gateways`."""
        return ()

    async def put(self, gateway: Gateway) -> str:
        """See `Gateways`."""
        raise AssertionError(gateway)

    async def remove(self, router: str) -> None:
        """See `Gateways`."""

    async def mend(self) -> tuple[Gateway, ...]:
        """See `Gateways`."""
        return ()

    async def check(self) -> tuple[Answer, ...]:
        """See `Gateways`."""
        return ()

    async def silent(self) -> tuple[Answer, ...]:
        """See `Gateways`."""
        return ()


class Cables(Protocol):
    """The interfaces of the host that the fabric has as its uplinks."""

    async def observed(self) -> frozenset[Cable]:
        """Those that it has, as they were put, the missing too; of all else a `cable_remnant`."""
        ...

    async def uplinks(self) -> tuple[str, ...]:
        """The uplinks for which anything was done on the host."""
        ...

    async def obstacles(self, cables: Iterable[Cable]) -> Mapping[str, Obstacle]:
        """Why some of these cannot be put, by their uplinks."""
        ...

    async def put(self, cable: Cable) -> None:
        """Take the interface into the fabric's namespace, and switch it on there."""
        ...

    async def remove(self, uplink: str) -> None:
        """Give its interface back to the host as it was; one that is not there is no error."""
        ...

    async def links(self) -> Mapping[str, LinkState]:
        """How the interfaces are that it has, by their uplinks."""
        ...

    async def mtus(self, topology: Topology) -> Mapping[str, int]:
        """The MTUs of the interfaces that uplinks name, by their names on the host."""
        ...

    async def retake(self) -> tuple[Cable, ...]:
        """Take again those that were missing and are back on the host. They are no ports yet."""
        ...


class NoCables:
    """Of a fabric that has none."""

    async def observed(self) -> frozenset[Cable]:
        """See `Cables`."""
        return frozenset()

    async def uplinks(self) -> tuple[str, ...]:
        """See `Cables`."""
        return ()

    async def obstacles(self, cables: Iterable[Cable]) -> Mapping[str, Obstacle]:
        """See `Cables`."""
        return {}

    async def put(self, cable: Cable) -> None:
        """See `Cables`."""
        raise AssertionError(cable)

    async def remove(self, uplink: str) -> None:
        """See `Cables`."""

    async def links(self) -> Mapping[str, LinkState]:
        """See `Cables`."""
        return {}

    async def mtus(self, topology: Topology) -> Mapping[str, int]:
        """See `Cables`."""
        return {}

    async def retake(self) -> tuple[Cable, ...]:
        """See `Cables`."""
        return ()


class Endpoints(Protocol):
    """What others run, joined with ports of the fabric."""

    async def observed(self) -> frozenset[Endpoint]:
        """Those that are as they were put; of all else that is there an `endpoint_remnant`."""
        ...

    async def names(self) -> tuple[str, ...]:
        """Those for which anything was done."""
        ...

    async def presence(self) -> Mapping[str, Presence]:
        """Whether anybody is at the other side of each."""
        ...

    async def obstacles(self, endpoints: Iterable[Endpoint]) -> Mapping[str, Obstacle]:
        """Why some of these cannot be put, by their names."""
        ...

    async def absent(self, endpoints: Iterable[Endpoint]) -> tuple[str, ...]:
        """The names of those that have nothing to be joined with yet: it is waited for."""
        ...

    async def put(self, endpoint: Endpoint) -> None:
        """Join it with its port, which is made if it is not there."""
        ...

    async def remove(self, name: str) -> None:
        """Remove its port, and what was made for it; one that is not there is no error."""
        ...

    async def mend(self) -> tuple[Endpoint, ...]:
        """Join again what came back or was damaged. Returns those whose port has a new interface."""
        ...


class NoEndpoints:
    """Of a fabric that has none."""

    async def observed(self) -> frozenset[Endpoint]:
        """See `Endpoints`."""
        return frozenset()

    async def names(self) -> tuple[str, ...]:
        """See `Endpoints`."""
        return ()

    async def presence(self) -> Mapping[str, Presence]:
        """See `Endpoints`."""
        return {}

    async def obstacles(self, endpoints: Iterable[Endpoint]) -> Mapping[str, Obstacle]:
        """See `Endpoints`."""
        return {}

    async def absent(self, endpoints: Iterable[Endpoint]) -> tuple[str, ...]:
        """See `Endpoints`."""
        return ()

    async def put(self, endpoint: Endpoint) -> None:
        """See `Endpoints`."""
        raise AssertionError(endpoint)

    async def remove(self, name: str) -> None:
        """See `Endpoints`."""

    async def mend(self) -> tuple[Endpoint, ...]:
        """See `Endpoints`."""
        return ()


@dataclass(frozen=True, slots=True)
class Parts:
    """All neighbours of one fabric."""

    network: Network
    switch: Switch
    guests: Guests
    log: RuleLog = field(default_factory=RuleLog)
    services: Services = field(default_factory=NoServices)
    gateways: Gateways = field(default_factory=NoGateways)
    cables: Cables = field(default_factory=NoCables)
    health: Healths = field(default_factory=Healths)
    endpoints: Endpoints = field(default_factory=NoEndpoints)
