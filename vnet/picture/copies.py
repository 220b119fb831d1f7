"""What mirrors do, in words: beside the network or the NIC that is copied, and the NIC that gets copies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vnet.topology.inventory import Vm
from vnet.topology.model import Mirror, MirrorDirection, MirrorNetwork, MirrorNic, Topology


def of_network(topology: Topology, network: str) -> tuple[str, ...]:
    """Where copies of a network's packets go."""
    return tuple(
        _sent(mirror)
        for mirror in topology.mirrors
        if isinstance(mirror.source, MirrorNetwork) and mirror.source.name == network
    )


def of_vms(topology: Topology, vms: Sequence[Vm]) -> tuple[str, ...]:
    """What all of these VMs have in common: whose packets are copied whereto, who gets copies."""
    several = [tuple(_of_vm(topology, vm)) for vm in vms]
    return tuple(words for words in several[0] if all(words in each for each in several))


def _of_vm(topology: Topology, vm: Vm) -> Iterator[str]:
    for mirror in topology.mirrors:
        source, to = mirror.source, mirror.to
        if isinstance(source, MirrorNic) and source.vm in (vm.name, vm.spec):
            yield f"{source.interface} {_sent(mirror)}"
        if isinstance(to, MirrorNic) and to.vm == vm.name:
            yield f"{to.interface} gets copies: {mirror.name}"


def _sent(mirror: Mirror) -> str:
    to = f"{mirror.to.vm}:{mirror.to.interface}" if isinstance(mirror.to, MirrorNic) else str(mirror.to)
    way = "" if mirror.direction is MirrorDirection.BOTH else f" ({mirror.direction.value})"
    return f"copied to {to}{way}"
