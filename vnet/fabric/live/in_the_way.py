"""What of the host is in the way of a plan, and what a plan would wait for: looked at, nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vnet.base.errors import Fault, InputError
from vnet.fabric.actions import Action, PutCable, PutEndpoint
from vnet.fabric.declared import Declared
from vnet.fabric.live.parts import Parts
from vnet.fabric.sizing import Advice
from vnet.fabric.state import Endpoint
from vnet.topology.endpoints import EndpointKind


async def refuse_cables(parts: Parts, declared: Declared, actions: Sequence[Action]) -> None:
    """Raises InputError for interfaces that the host has to keep, or has not."""
    wanted = [action.cable for action in actions if isinstance(action, PutCable)]
    found = await parts.cables.obstacles(wanted)
    at = {each.uplink: each.at for each in declared.inventory.uplinks}
    faults = tuple(
        Fault(at[uplink], f"uplinks.{uplink}.interface", each.problem, each.hint)
        for uplink, each in sorted(found.items())
    )
    if faults:
        raise InputError(faults)


async def refuse_endpoints(parts: Parts, declared: Declared, actions: Sequence[Action]) -> None:
    """Raises InputError for endpoints that something else is in the place of."""
    wanted = {each.name: each for each in _endpoints(actions)}
    found = await parts.endpoints.obstacles(wanted.values())
    at = {vm.name: vm.at for vm in declared.inventory.vms}
    faults = tuple(
        Fault(at[name], f"endpoints.{name}.{wanted[name].where.kind.value}", each.problem, each.hint)
        for name, each in sorted(found.items())
    )
    if faults:
        raise InputError(faults)


async def awaited(parts: Parts, actions: Sequence[Action]) -> tuple[Advice, ...]:
    """The endpoints that a plan would attach to nothing, until it comes."""
    wanted = {each.name: each for each in _endpoints(actions)}
    absent = await parts.endpoints.absent(wanted.values())
    return tuple(Advice(name, _missing(wanted[name])) for name in sorted(absent))


def _missing(endpoint: Endpoint) -> str:
    kind = "namespace" if endpoint.where.kind is EndpointKind.NETNS else "interface"
    return (
        f"there is no {kind} {endpoint.where.target} on this host yet: it is attached when it comes;"
        " `vnet ps` says `absent` until then"
    )


def _endpoints(actions: Sequence[Action]) -> Iterator[Endpoint]:
    return (action.endpoint for action in actions if isinstance(action, PutEndpoint))
