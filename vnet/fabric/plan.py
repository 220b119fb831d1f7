"""From what is to what should be: `plan(now, wanted)` is a tuple of actions, values that a loop applies.

Laws (property tests): `apply(plan(a, b), a) == b`, `plan(b, b) == ()`.

Order, and why:
1. namespace and switch: everything else lives in them;
2. what stands in the way: guests that are re-created, ports whose number or name is needed anew;
3. new ports, what answers guests or forwards behind some of them, and interfaces of the host, attached while
   the switch has no rules for them, which means closed; limits and rates of those there are;
4. all flows at once: from here on the new generation is enforced;
5. mirrors, so that no packet of a new guest is missing in them;
6. guests that run and are changed, whose new NICs have their ports and rules by now; those that take a new
   start for it; new guests, which therefore never ran under other rules;
7. what is wanted no more, last: a failure before this point has broken nothing. The host gets interfaces back
   when no program is on them any more, and before the namespace goes, which could take them along.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter

from vnet.base import limits
from vnet.base.limits import Limits
from vnet.base.line import STRAIGHT, Line
from vnet.fabric.guest_changes import differences, how
from vnet.fabric.mirror import Mirror
from vnet.fabric.state import (
    Attached,
    Cable,
    Endpoint,
    Gateway,
    Guest,
    NetworkService,
    Port,
    State,
    gateway_remnant,
    remnant,
)
from vnet.hv.changing import How
from vnet.openflow.flow import Flow
from vnet.topology.mtu import ETHERNET_BYTES


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
    | DestroyGuest
)


def plan(now: State, wanted: State) -> tuple[Action, ...]:
    """The actions that lead from `now` to `wanted`, in the order they must be carried out.

    A guest is made again when no less will do, when a port of its stands in the way of a new one, and when
    somebody has removed a port of its: its QEMU holds a TAP that leads nowhere.
    """
    return tuple(_actions(now, wanted))


def _actions(now: State, wanted: State) -> Iterator[Action]:
    gone_ports, new_ports = now.ports - wanted.ports, wanted.ports - now.ports
    new_cables = wanted.cables - now.cables
    early_cables = _cables_in_the_way(now.cables - wanted.cables, new_cables)
    new_endpoints = wanted.endpoints - now.endpoints
    early_endpoints = _endpoints_in_the_way(now, wanted)
    again = {cable.port for cable in early_cables | new_cables} & now.plugged
    again |= _wired_anew(now, new_endpoints, early_endpoints)
    stay = now.plugged - again
    unplugged, plugged = now.plugged - wanted.plugged, wanted.plugged - stay
    unplugged_guests = {guest for guest in now.guests if guest.ports & new_ports}
    early_ports = _in_the_way(gone_ports | unplugged, new_ports | plugged)
    changed = tuple(_changed(now, wanted, unplugged_guests, early_ports))
    kept_guests = frozenset(was for was, _ in changed)
    gone_guests = (now.guests - wanted.guests - kept_guests) | unplugged_guests
    early_guests = {g for g in gone_guests if wanted.guest(g.name) or g.ports & early_ports}

    yield from _make_room(now, wanted)
    yield from _destroy(early_guests, wanted)
    yield from _unplug(early_ports & unplugged | again, early_ports & gone_ports)
    yield from (RemoveCable(cable) for cable in sorted(early_cables))
    yield from (RemoveEndpoint(endpoint) for endpoint in _by_name(early_endpoints))
    yield from (CreatePort(port) for port in sorted(new_ports))
    yield from (PutService(each) for each in _by_network(wanted.services - now.services))
    yield from (PutGateway(each) for each in _by_router(wanted.gateways - now.gateways))
    yield from (PutCable(cable) for cable in sorted(new_cables))
    yield from (PutEndpoint(endpoint) for endpoint in _by_name(new_endpoints))
    anew = again | _renewed(now, wanted)
    kept = frozenset(each for each in now.attached if each.port not in anew)
    yield from _attach(kept, sorted(wanted.attached - kept))
    if wanted.switch and now.flows != wanted.flows:
        yield ApplyFlows(wanted.flows - now.flows, now.flows - wanted.flows)
    yield from _mirrors(now, wanted)
    yield from _change(changed)
    there = (now.guests - gone_guests - kept_guests) | {guest for _, guest in changed}
    yield from (StartGuest(guest) for guest in _in_order(wanted.guests - there))
    yield from _destroy(gone_guests - early_guests, wanted)
    yield from _unplug(unplugged - early_ports - again, gone_ports - early_ports)
    gone_endpoints = {each for each in now.endpoints if wanted.endpoint(each.name) is None}
    yield from (RemoveEndpoint(endpoint) for endpoint in _by_name(gone_endpoints - early_endpoints))
    gone_services = (each for each in now.services if wanted.service(each.network) is None)
    yield from (RemoveService(each) for each in _by_network(gone_services))
    gone_gateways = (each for each in now.gateways if wanted.gateway(each.router) is None)
    yield from (RemoveGateway(each) for each in _by_router(gone_gateways))
    yield from _clear_away(now, wanted, now.cables - wanted.cables - early_cables)


def _changed(
    now: State, wanted: State, unplugged: Set[Guest], early_ports: Set[Port]
) -> Iterator[tuple[Guest, Guest]]:
    """The guests that are not made again but become others, each with what it becomes."""
    for guest in sorted(wanted.guests):
        was = now.guest(guest.name)
        if was is None or was == guest or was in unplugged or was.ports & early_ports:
            continue
        if how(was, guest) is not How.RECREATE:
            yield was, guest


def _change(changed: Sequence[tuple[Guest, Guest]]) -> Iterator[Action]:
    ways = {guest: how(was, guest) for was, guest in changed}
    before = {guest: was for was, guest in changed}
    yield from (ChangeGuest(was, guest) for was, guest in changed if ways[guest] is How.LIVE)
    restarted = _in_order(guest for guest in before if ways[guest] is How.RESTART)
    yield from (RestartGuest(before[guest], guest) for guest in restarted)


def _in_order(guests: Iterable[Guest]) -> Iterator[Guest]:
    """Whom others wait for first, otherwise by name."""
    by_name = {guest.name: guest for guest in sorted(guests)}
    awaited = {name: [each.vm for each in guest.awaits] for name, guest in by_name.items()}
    return (by_name[name] for name in TopologicalSorter(awaited).static_order() if name in by_name)


def _by_network(services: Iterable[NetworkService]) -> list[NetworkService]:
    return sorted(services, key=lambda service: service.network)


def _by_name(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    return sorted(endpoints, key=lambda endpoint: endpoint.name)


def _by_router(gateways: Iterable[Gateway]) -> list[Gateway]:
    return sorted(gateways, key=lambda gateway: gateway.router)


def _renewed(now: State, wanted: State) -> frozenset[Port]:
    """The ports of services and gateways that are made again of what is left of them: their interface may be
    new."""
    networks = {each.network for each in now.services if each == remnant(each.network)}
    routers = {each.router for each in now.gateways if each == gateway_remnant(each.router)}
    ports = {each.port for each in wanted.services if each.network in networks}
    ports |= {each.port for each in wanted.gateways if each.router in routers}
    return frozenset(ports)


def _attach(kept: frozenset[Attached], attached: Sequence[Attached]) -> Iterator[Action]:
    """Put the ports into the switch that are not kept in it; change what is another for those that are."""
    known = {each.port: each for each in kept}
    new = [each for each in attached if each.port not in known]
    changed = [(known[each.port], each) for each in attached if each.port in known]
    yield from (AttachPort(each.port, each.limits, each.mtu_bytes) for each in new)
    yield from (LimitPort(each.port, each.limits) for had, each in changed if had.limits != each.limits)
    yield from (
        ResizePort(each.port, each.mtu_bytes) for had, each in changed if had.mtu_bytes != each.mtu_bytes
    )
    laid = {each.port: known[each.port].line if each.port in known else STRAIGHT for each in attached}
    yield from (LayLine(each.port, each.line) for each in attached if laid[each.port] != each.line)


def _mirrors(now: State, wanted: State) -> Iterator[Action]:
    new = sorted(wanted.mirrors - now.mirrors, key=lambda mirror: mirror.name)
    gone = sorted(now.mirrors, key=lambda mirror: mirror.name)
    yield from (PutMirror(mirror) for mirror in new)
    yield from (RemoveMirror(mirror) for mirror in gone if wanted.mirror(mirror.name) is None)


def _in_the_way(gone: frozenset[Port], new: frozenset[Port]) -> frozenset[Port]:
    """Ports that must go first because a new one needs their number or their name."""
    numbers, names = {port.number for port in new}, {port.ifname for port in new}
    return frozenset(port for port in gone if port.number in numbers or port.ifname in names)


def _cables_in_the_way(gone: frozenset[Cable], new: frozenset[Cable]) -> frozenset[Cable]:
    """Cables that must go first because a new one is of their uplink, or needs their interface or port."""
    uplinks, interfaces = {cable.uplink for cable in new}, {cable.interface for cable in new}
    ports = _in_the_way(frozenset(cable.port for cable in gone), frozenset(cable.port for cable in new))
    return frozenset(
        cable
        for cable in gone
        if cable.uplink in uplinks or cable.interface in interfaces or cable.port in ports
    )


def _endpoints_in_the_way(now: State, wanted: State) -> frozenset[Endpoint]:
    """Endpoints that must go first: they lead elsewhere now, or a new port needs their number or name."""
    new = (wanted.ports - now.ports) | (wanted.plugged - now.plugged)
    new |= {each.port for each in wanted.endpoints - now.endpoints}
    new |= {each.port for each in wanted.services - now.services}
    new |= {each.port for each in wanted.gateways - now.gateways}
    numbers, names = {port.number for port in new}, {port.ifname for port in new}
    found = set()
    for each in now.endpoints:
        becomes = wanted.endpoint(each.name)
        in_the_way = each.port.number in numbers or each.port.ifname in names
        if (becomes is None and in_the_way) or (becomes is not None and not becomes.is_wired_as(each)):
            found.add(each)
    return frozenset(found)


def _wired_anew(now: State, new: Iterable[Endpoint], early: Iterable[Endpoint]) -> frozenset[Port]:
    """The ports that are in the switch and get another interface: those of endpoints that come or go."""
    kept = {each.name: each for each in now.endpoints}
    made = {each.port for each in new if each.name not in kept or not each.is_wired_as(kept[each.name])}
    return frozenset((made | {each.port for each in early}) & now.plugged)


def _make_room(now: State, wanted: State) -> Iterator[Action]:
    if wanted.namespace and not now.namespace:
        yield CreateNamespace()
    if wanted.switch and not now.switch:
        yield CreateSwitch()


def _clear_away(now: State, wanted: State, gone_cables: Iterable[Cable]) -> Iterator[Action]:
    if now.switch and not wanted.switch:
        yield DestroySwitch()
    yield from (RemoveCable(cable) for cable in sorted(gone_cables))
    if now.namespace and not wanted.namespace:
        yield RemoveNamespace()


def _destroy(guests: Iterable[Guest], wanted: State) -> Iterator[Action]:
    return (DestroyGuest(guest, wanted.guest(guest.name) is not None) for guest in sorted(guests))


def _unplug(attached: Iterable[Port], ports: Iterable[Port]) -> Iterator[Action]:
    yield from (DetachPort(port) for port in sorted(attached))
    yield from (RemovePort(port) for port in sorted(ports))


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
            others = frozenset(each for each in state.mirrors if each.name != mirror.name)
            return replace(state, mirrors=others | {mirror})
        case RemoveMirror(mirror):
            return replace(state, mirrors=state.mirrors - {mirror})
        case PutService(service):
            return replace(state, services=_other_services(state, service) | {service})
        case RemoveService(service):
            return replace(state, services=_other_services(state, service))
        case PutGateway(gateway):
            return replace(state, gateways=_other_gateways(state, gateway) | {gateway})
        case RemoveGateway(gateway):
            return replace(state, gateways=_other_gateways(state, gateway))
        case PutCable(cable):
            return replace(state, cables=_other_cables(state, cable) | {cable})
        case RemoveCable(cable):
            return replace(state, cables=_other_cables(state, cable))
        case PutEndpoint(endpoint):
            return replace(state, endpoints=_other_endpoints(state, endpoint) | {endpoint})
        case RemoveEndpoint(endpoint):
            return replace(state, endpoints=_other_endpoints(state, endpoint))
        case StartGuest(guest):
            return replace(state, guests=state.guests | {guest})
        case ChangeGuest(was, guest) | RestartGuest(was, guest):
            return replace(state, guests=(state.guests - {was}) | {guest})
        case DestroyGuest(guest):
            return replace(state, guests=state.guests - {guest})


def _other_endpoints(state: State, endpoint: Endpoint) -> frozenset[Endpoint]:
    return frozenset(each for each in state.endpoints if each.name != endpoint.name)


def _attached(state: State, port: Port) -> Attached:
    found = state.attachment(port)
    assert found is not None, "it is in the switch"
    return found


def _with(state: State, attached: Attached) -> State:
    return replace(state, attached=_without(state, attached.port) | {attached})


def _without(state: State, port: Port) -> frozenset[Attached]:
    return frozenset(each for each in state.attached if each.port != port)


def _other_services(state: State, service: NetworkService) -> frozenset[NetworkService]:
    return frozenset(each for each in state.services if each.network != service.network)


def _other_gateways(state: State, gateway: Gateway) -> frozenset[Gateway]:
    return frozenset(each for each in state.gateways if each.router != gateway.router)


def _other_cables(state: State, cable: Cable) -> frozenset[Cable]:
    return frozenset(each for each in state.cables if each.uplink != cable.uplink)
