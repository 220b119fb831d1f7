"""From what is to what should be: `plan(now, wanted)` is a tuple of actions, values that a loop applies.

Laws (property tests): `apply(plan(a, b), a) == b`, `plan(b, b) == ()`.

Order, and why:
1. namespace and switch: everything else lives in them;
2. what stands in the way: guests that must be made again, ports whose number or name is needed anew;
3. new ports, what answers guests behind some of them and interfaces of the host, attached while the switch
   has no rules for them, which means closed; limits of those there are;
4. all flows at once: from here on the new generation is enforced;
5. mirrors, so that no packet of a new guest is missing in them;
6. new guests, which therefore never ran under other rules;
7. what is wanted no more, last: a failure before this point has broken nothing. The host gets interfaces back
   when no program is on them any more, and before the namespace goes, which could take them along.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from vnet.base import limits
from vnet.base.limits import Limits
from vnet.fabric.mirror import Mirror
from vnet.fabric.state import Attached, Cable, Guest, NetworkService, Port, State
from vnet.openflow.flow import Flow


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
class StartGuest:
    """Start the guest and wait for its agent."""

    guest: Guest

    def __str__(self) -> str:
        return f"start {self.guest.name}"


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
    | DetachPort
    | RemovePort
    | ApplyFlows
    | PutMirror
    | RemoveMirror
    | PutService
    | RemoveService
    | PutCable
    | RemoveCable
    | StartGuest
    | DestroyGuest
)


def plan(now: State, wanted: State) -> tuple[Action, ...]:
    """The actions that lead from `now` to `wanted`, in the order they must be carried out.

    A guest whose port somebody has removed is made again: its QEMU holds a TAP that leads nowhere.
    """
    return tuple(_actions(now, wanted))


def _actions(now: State, wanted: State) -> Iterator[Action]:
    gone_ports, new_ports = now.ports - wanted.ports, wanted.ports - now.ports
    new_cables = wanted.cables - now.cables
    early_cables = _cables_in_the_way(now.cables - wanted.cables, new_cables)
    again = {cable.port for cable in early_cables | new_cables} & now.plugged
    stay = now.plugged - again
    unplugged, plugged = now.plugged - wanted.plugged, wanted.plugged - stay
    unplugged_guests = {guest for guest in now.guests if guest.ports & new_ports}
    gone_guests = (now.guests - wanted.guests) | unplugged_guests
    early_ports = _in_the_way(gone_ports | unplugged, new_ports | plugged)
    early_guests = {g for g in gone_guests if wanted.guest(g.name) or g.ports & early_ports}

    yield from _make_room(now, wanted)
    yield from _destroy(early_guests, wanted)
    yield from _unplug(early_ports & unplugged | again, early_ports & gone_ports)
    yield from (RemoveCable(cable) for cable in sorted(early_cables))
    yield from (CreatePort(port) for port in sorted(new_ports))
    yield from (PutService(each) for each in _by_network(wanted.services - now.services))
    yield from (PutCable(cable) for cable in sorted(new_cables))
    kept = {each for each in now.attached if each.port in stay}
    yield from _attach(sorted(wanted.attached - kept), plugged)
    if wanted.switch and now.flows != wanted.flows:
        yield ApplyFlows(wanted.flows - now.flows, now.flows - wanted.flows)
    yield from _mirrors(now, wanted)
    yield from (StartGuest(guest) for guest in sorted(wanted.guests - (now.guests - gone_guests)))
    yield from _destroy(gone_guests - early_guests, wanted)
    yield from _unplug(unplugged - early_ports - again, gone_ports - early_ports)
    gone_services = (each for each in now.services if wanted.service(each.network) is None)
    yield from (RemoveService(each) for each in _by_network(gone_services))
    yield from _clear_away(now, wanted, now.cables - wanted.cables - early_cables)


def _by_network(services: Iterable[NetworkService]) -> list[NetworkService]:
    return sorted(services, key=lambda service: service.network)


def _attach(attached: Iterable[Attached], plugged: frozenset[Port]) -> Iterator[Action]:
    """Put the ports into the switch that are not; change the limits of those that are."""
    yield from (AttachPort(each.port, each.limits) for each in attached if each.port in plugged)
    yield from (LimitPort(each.port, each.limits) for each in attached if each.port not in plugged)


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
        case AttachPort(port, limits) | LimitPort(port, limits):
            return replace(state, attached=_without(state, port) | {Attached(port, limits)})
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
        case PutCable(cable):
            return replace(state, cables=_other_cables(state, cable) | {cable})
        case RemoveCable(cable):
            return replace(state, cables=_other_cables(state, cable))
        case StartGuest(guest):
            return replace(state, guests=state.guests | {guest})
        case DestroyGuest(guest):
            return replace(state, guests=state.guests - {guest})


def _without(state: State, port: Port) -> frozenset[Attached]:
    return frozenset(each for each in state.attached if each.port != port)


def _other_services(state: State, service: NetworkService) -> frozenset[NetworkService]:
    return frozenset(each for each in state.services if each.network != service.network)


def _other_cables(state: State, cable: Cable) -> frozenset[Cable]:
    return frozenset(each for each in state.cables if each.uplink != cable.uplink)
