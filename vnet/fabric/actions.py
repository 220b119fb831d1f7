"""The actions that a plan is made of, as values, and what each makes of a state."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TypeVar

from vnet.base import limits
from vnet.base.limits import Limits
from vnet.base.line import Line
from vnet.fabric.guest_changes import differences
from vnet.fabric.mirror import Mirror
from vnet.fabric.state import Attached, Cable, Endpoint, Gateway, Guest, NetworkService, Port, State
from vnet.openflow.flow import Flow
from vnet.topology.mtu import ETHERNET_BYTES

T = TypeVar("T")
NETWORK, ROUTER, UPLINK, NAME = map(attrgetter, ("network", "router", "uplink", "name"))
"""By what services, gateways and cables are known, and mirrors and endpoints."""


@dataclass(frozen=True, slots=True)
class CreateNamespace:
    """Make the network namespace that holds the ports."""

    def __str__(self) -> str:
        return "create the network namespace"


@dataclass(frozen=True, slots=True)
class RemoveNamespace:
    """Remove the namespace; it is empty by then."""

    def __str__(self) -> str:
        return "remove the network namespace"


@dataclass(frozen=True, slots=True)
class CreateSwitch:
    """Load and pin the programs and maps."""

    def __str__(self) -> str:
        return "create the switch"


@dataclass(frozen=True, slots=True)
class DestroySwitch:
    """Detach and unpin everything, its flows included."""

    def __str__(self) -> str:
        return "remove the switch"


@dataclass(frozen=True, slots=True)
class CreatePort:
    """Make the TAP."""

    port: Port

    def __str__(self) -> str:
        return f"create port {self.port.ifname}"


@dataclass(frozen=True, slots=True)
class AttachPort:
    """Put the TAP into the switch as that port number; closed until flows say otherwise."""

    port: Port
    limits: Limits = limits.STRICT
    mtu_bytes: int = ETHERNET_BYTES

    def __str__(self) -> str:
        return f"attach port {self.port.ifname} as number {self.port.number}"


@dataclass(frozen=True, slots=True)
class LimitPort:
    """Let the NIC of a port use more or less of the switch from now on; what it has it keeps."""

    port: Port
    limits: Limits

    def __str__(self) -> str:
        return f"change the limits of port {self.port.ifname}"


@dataclass(frozen=True, slots=True)
class ResizePort:
    """Let longer packets leave by a port from now on, or only shorter ones. Connections go on."""

    port: Port
    mtu_bytes: int

    def __str__(self) -> str:
        return f"change the MTU of port {self.port.ifname} to {self.mtu_bytes}"


@dataclass(frozen=True, slots=True)
class LayLine:
    """Let a NIC be as fast as its line from now on; what is under way arrives."""

    port: Port
    line: Line

    def __str__(self) -> str:
        return f"rate of port {self.port.ifname}: {self.line}"


@dataclass(frozen=True, slots=True)
class DetachPort:
    """Take the port out of the switch."""

    port: Port

    def __str__(self) -> str:
        return f"detach port {self.port.ifname}"


@dataclass(frozen=True, slots=True)
class RemovePort:
    """Delete the TAP."""

    port: Port

    def __str__(self) -> str:
        return f"remove port {self.port.ifname}"


@dataclass(frozen=True, slots=True)
class ApplyFlows:
    """Bring the switch to a new set of flows in one atomic change."""

    put: frozenset[Flow]
    remove: frozenset[Flow]

    def __str__(self) -> str:
        replaced = {flow.key for flow in self.put} & {flow.key for flow in self.remove}
        added, gone, changed = len(self.put) - len(replaced), len(self.remove) - len(replaced), len(replaced)
        return f"change flows: {added} added, {changed} changed, {gone} removed"


@dataclass(frozen=True, slots=True)
class PutMirror:
    """Copy packets from now on, in place of the mirror that has this one's name."""

    mirror: Mirror

    def __str__(self) -> str:
        return f"mirror {self.mirror.name}: {self.mirror}"


@dataclass(frozen=True, slots=True)
class RemoveMirror:
    """Copy no more."""

    mirror: Mirror

    def __str__(self) -> str:
        return f"end mirror {self.mirror.name}"


@dataclass(frozen=True, slots=True)
class PutService:
    """Have the guests of a network answered so from now on. Its port is made too."""

    service: NetworkService

    def __str__(self) -> str:
        return f"answer the guests of network {self.service.network}"


@dataclass(frozen=True, slots=True)
class RemoveService:
    """Answer the guests of a network no more; its port goes, and what it knew of leases."""

    service: NetworkService

    def __str__(self) -> str:
        return f"answer the guests of network {self.service.network} no more"


@dataclass(frozen=True, slots=True)
class PutGateway:
    """Forward so for a router from now on. Its port is made too."""

    gateway: Gateway

    def __str__(self) -> str:
        return f"forward for router {self.gateway.router} by {_outside(self.gateway)}"


@dataclass(frozen=True, slots=True)
class RemoveGateway:
    """Forward no more; the host is again as it was before."""

    gateway: Gateway

    def __str__(self) -> str:
        return f"forward for router {self.gateway.router} no more"


def _outside(gateway: Gateway) -> str:
    return "the host" if gateway.forwarding.host else gateway.forwarding.device


@dataclass(frozen=True, slots=True)
class PutCable:
    """Take an interface of the host into the fabric's namespace."""

    cable: Cable

    def __str__(self) -> str:
        return f"take interface {self.cable.interface} for uplink {self.cable.uplink}"


@dataclass(frozen=True, slots=True)
class RemoveCable:
    """Give the interface of an uplink back to the host, as it was."""

    cable: Cable

    def __str__(self) -> str:
        return f"give the interface of uplink {self.cable.uplink} back"


@dataclass(frozen=True, slots=True)
class PutEndpoint:
    """Join an endpoint with its port from now on. The port is made too."""

    endpoint: Endpoint

    def __str__(self) -> str:
        return f"attach endpoint {self.endpoint.name}: {self.endpoint.where}"


@dataclass(frozen=True, slots=True)
class RemoveEndpoint:
    """Join an endpoint with the fabric no more; its port goes, and what was made for it."""

    endpoint: Endpoint

    def __str__(self) -> str:
        return f"detach endpoint {self.endpoint.name}"


@dataclass(frozen=True, slots=True)
class StartGuest:
    """Start the guest and wait for its agent."""

    guest: Guest

    def __str__(self) -> str:
        return f"start {self.guest.name}"


@dataclass(frozen=True, slots=True)
class ChangeGuest:
    """Make a running guest another while it goes on."""

    was: Guest
    guest: Guest

    def __str__(self) -> str:
        told = ", ".join(each.what for each in differences(self.was, self.guest))
        return f"change {self.guest.name} while it runs: {told or 'the order of its NICs or disks'}"


@dataclass(frozen=True, slots=True)
class RestartGuest:
    """Switch a guest off in order, and start it as it is to be. Its disks, ports and log stay."""

    was: Guest
    guest: Guest

    def __str__(self) -> str:
        return f"restart {self.guest.name}"


@dataclass(frozen=True, slots=True)
class SuspendGuest:
    """Keep a guest's memory and end its QEMU; its next start goes on from there."""

    guest: Guest

    def __str__(self) -> str:
        return f"suspend {self.guest.name}"


@dataclass(frozen=True, slots=True)
class DestroyGuest:
    """End the guest and remove its run directory. `again` says that it is made anew."""

    guest: Guest
    again: bool = False

    def __str__(self) -> str:
        return f"{'re-create' if self.again else 'remove'} {self.guest.name}"


Action = (
    CreateNamespace
    | RemoveNamespace
    | CreateSwitch
    | DestroySwitch
    | CreatePort
    | AttachPort
    | LimitPort
    | ResizePort
    | LayLine
    | DetachPort
    | RemovePort
    | ApplyFlows
    | PutMirror
    | RemoveMirror
    | PutService
    | RemoveService
    | PutGateway
    | RemoveGateway
    | PutCable
    | RemoveCable
    | PutEndpoint
    | RemoveEndpoint
    | StartGuest
    | ChangeGuest
    | RestartGuest
    | SuspendGuest
    | DestroyGuest
)


def apply(actions: Iterable[Action], state: State) -> State:
    """What `state` becomes when every action succeeds: the slow, obvious model of `live.apply`."""
    for action in actions:
        state = step(action, state)
    return state


def step(action: Action, state: State) -> State:
    """What one action makes of a state."""
    match action:
        case CreateNamespace() | RemoveNamespace():
            return replace(state, namespace=isinstance(action, CreateNamespace))
        case CreateSwitch():
            return replace(state, switch=True)
        case DestroySwitch():
            return replace(state, switch=False, flows=frozenset(), attached=frozenset())
        case CreatePort(port):
            return replace(state, ports=state.ports | {port})
        case RemovePort(port):
            return replace(state, ports=state.ports - {port}, attached=_without(state, port))
        case AttachPort(port, limits, mtu_bytes):
            return _with(state, Attached(port, limits, mtu_bytes))
        case LimitPort(port, limits):
            return _with(state, replace(_attached(state, port), limits=limits))
        case ResizePort(port, mtu_bytes):
            return _with(state, replace(_attached(state, port), mtu_bytes=mtu_bytes))
        case LayLine(port, line):
            return _with(state, replace(_attached(state, port), line=line))
        case DetachPort(port):
            return replace(state, attached=_without(state, port))
        case ApplyFlows(put, remove):
            return replace(state, flows=(state.flows - remove) | put)
        case PutMirror(mirror):
            return replace(state, mirrors=_others(state.mirrors, mirror, NAME) | {mirror})
        case RemoveMirror(mirror):
            return replace(state, mirrors=state.mirrors - {mirror})
        case PutService(service):
            return replace(state, services=_others(state.services, service, NETWORK) | {service})
        case RemoveService(service):
            return replace(state, services=_others(state.services, service, NETWORK))
        case PutGateway(gateway):
            return replace(state, gateways=_others(state.gateways, gateway, ROUTER) | {gateway})
        case RemoveGateway(gateway):
            return replace(state, gateways=_others(state.gateways, gateway, ROUTER))
        case PutCable(cable):
            return replace(state, cables=_others(state.cables, cable, UPLINK) | {cable})
        case RemoveCable(cable):
            return replace(state, cables=_others(state.cables, cable, UPLINK))
        case PutEndpoint(endpoint):
            return replace(state, endpoints=_others(state.endpoints, endpoint, NAME) | {endpoint})
        case RemoveEndpoint(endpoint):
            return replace(state, endpoints=_others(state.endpoints, endpoint, NAME))
        case StartGuest(guest):
            return replace(state, guests=state.guests | {guest})
        case ChangeGuest(was, guest) | RestartGuest(was, guest):
            return replace(state, guests=(state.guests - {was}) | {guest})
        case SuspendGuest(guest) | DestroyGuest(guest):
            return replace(state, guests=state.guests - {guest})


def _others(found: frozenset[T], one: T, key: Callable[[T], str]) -> frozenset[T]:
    return frozenset(each for each in found if key(each) != key(one))


def _attached(state: State, port: Port) -> Attached:
    found = state.attachment(port)
    assert found is not None, "it is in the switch"
    return found


def _with(state: State, attached: Attached) -> State:
    return replace(state, attached=_without(state, attached.port) | {attached})


def _without(state: State, port: Port) -> frozenset[Attached]:
    return frozenset(each for each in state.attached if each.port != port)
