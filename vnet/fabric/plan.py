"""From what is to what should be: `plan(now, wanted)` is a tuple of actions, values that a loop applies.

Laws (property tests; `apply` is in `actions`): `apply(plan(a, b), a) == b`, `plan(b, b) == ()`.

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
from graphlib import TopologicalSorter

from vnet.base.line import STRAIGHT
from vnet.fabric.actions import (
    NAME,
    NETWORK,
    ROUTER,
    Action,
    ApplyFlows,
    AttachPort,
    ChangeGuest,
    CreateNamespace,
    CreatePort,
    CreateSwitch,
    DestroyGuest,
    DestroySwitch,
    DetachPort,
    LayLine,
    LimitPort,
    PutCable,
    PutEndpoint,
    PutGateway,
    PutMirror,
    PutService,
    RemoveCable,
    RemoveEndpoint,
    RemoveGateway,
    RemoveMirror,
    RemoveNamespace,
    RemovePort,
    RemoveService,
    ResizePort,
    RestartGuest,
    StartGuest,
    SuspendGuest,
)
from vnet.fabric.guest_changes import how
from vnet.fabric.state import Attached, Cable, Endpoint, Guest, Port, State, gateway_remnant, remnant
from vnet.hv.changing import How


def plan(now: State, wanted: State, suspended: Set[str] = frozenset()) -> tuple[Action, ...]:
    """The actions that lead from `now` to `wanted`, in the order they must be carried out.

    A guest is made again when no less will do, when a port of its stands in the way of a new one, and when
    somebody has removed a port of its: its QEMU holds a TAP that leads nowhere.

    Args:
        suspended: the guests that end with their memory kept, since they were suspended before they ran.
    """
    return tuple(_actions(now, wanted, suspended))


def _actions(now: State, wanted: State, suspended: Set[str]) -> Iterator[Action]:
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
    joined = frozenset(each.port for each in new_endpoints)
    early_ports = _in_the_way(gone_ports | unplugged, new_ports | plugged | joined)
    changed = tuple(_changed(now, wanted, unplugged_guests, early_ports))
    kept_guests = frozenset(was for was, _ in changed)
    gone_guests = (now.guests - wanted.guests - kept_guests) | unplugged_guests
    early_guests = {g for g in gone_guests if wanted.guest(g.name) or g.ports & early_ports}

    yield from _make_room(now, wanted)
    yield from _end(early_guests, wanted, suspended)
    yield from _unplug(early_ports & unplugged | again, early_ports & gone_ports)
    yield from (RemoveCable(cable) for cable in sorted(early_cables))
    yield from (RemoveEndpoint(endpoint) for endpoint in sorted(early_endpoints, key=NAME))
    yield from (CreatePort(port) for port in sorted(new_ports))
    yield from (PutService(each) for each in sorted(wanted.services - now.services, key=NETWORK))
    yield from (PutGateway(each) for each in sorted(wanted.gateways - now.gateways, key=ROUTER))
    yield from (PutCable(cable) for cable in sorted(new_cables))
    yield from (PutEndpoint(endpoint) for endpoint in sorted(new_endpoints, key=NAME))
    anew = again | _renewed(now, wanted)
    kept = frozenset(each for each in now.attached if each.port not in anew)
    yield from _attach(kept, sorted(wanted.attached - kept))
    if wanted.switch and now.flows != wanted.flows:
        yield ApplyFlows(wanted.flows - now.flows, now.flows - wanted.flows)
    yield from _mirrors(now, wanted)
    yield from _change(changed)
    there = (now.guests - gone_guests - kept_guests) | {guest for _, guest in changed}
    yield from (StartGuest(guest) for guest in _in_order(wanted.guests - there))
    yield from _end(gone_guests - early_guests, wanted, suspended)
    yield from _unplug(unplugged - early_ports - again, gone_ports - early_ports)
    gone_endpoints = {each for each in now.endpoints if wanted.endpoint(each.name) is None}
    yield from (RemoveEndpoint(endpoint) for endpoint in sorted(gone_endpoints - early_endpoints, key=NAME))
    gone_services = (each for each in now.services if wanted.service(each.network) is None)
    yield from (RemoveService(each) for each in sorted(gone_services, key=NETWORK))
    gone_gateways = (each for each in now.gateways if wanted.gateway(each.router) is None)
    yield from (RemoveGateway(each) for each in sorted(gone_gateways, key=ROUTER))
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
    new = sorted(wanted.mirrors - now.mirrors, key=NAME)
    gone = sorted(now.mirrors, key=NAME)
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
    """Endpoints that must go first: they lead elsewhere now, or their place, number or name is another's."""
    new = (wanted.ports - now.ports) | (wanted.plugged - now.plugged)
    new |= {each.port for each in wanted.endpoints - now.endpoints}
    new |= {each.port for each in wanted.services - now.services}
    new |= {each.port for each in wanted.gateways - now.gateways}
    numbers, names = {port.number for port in new}, {port.ifname for port in new}
    places = {each.where.place for each in wanted.endpoints - now.endpoints}
    found = set()
    for each in now.endpoints:
        becomes = wanted.endpoint(each.name)
        in_the_way = each.port.number in numbers or each.port.ifname in names or each.where.place in places
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


def _end(guests: Iterable[Guest], wanted: State, suspended: Set[str]) -> Iterator[Action]:
    for guest in sorted(guests):
        if guest.name in suspended:
            yield SuspendGuest(guest)
        else:
            yield DestroyGuest(guest, again=wanted.guest(guest.name) is not None)


def _unplug(attached: Iterable[Port], ports: Iterable[Port]) -> Iterator[Action]:
    yield from (DetachPort(port) for port in sorted(attached))
    yield from (RemovePort(port) for port in sorted(ports))
