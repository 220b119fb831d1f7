"""A fabric as a graph: VMs and networks are nodes, each NIC is an edge between the two."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vnet.topology.inventory import Inventory
from vnet.topology.model import Topology

if TYPE_CHECKING:
    from networkx import MultiGraph

VM = "vm"
NETWORK = "network"


def graph(topology: Topology, inventory: Inventory) -> MultiGraph:
    """The graph of a fabric, with nodes `("vm", NAME)` and `("network", NAME)`.

    Networks carry `vlan` and `subnets`, VMs `image` and `groups`, edges (keyed by the NIC's name)
    `port`, `mac` and `addresses`.
    """
    # networkx takes 100 ms and more to import, and only few commands draw.
    from networkx import MultiGraph

    result = MultiGraph(name=topology.name)
    for network in topology.networks.values():
        result.add_node((NETWORK, network.name), vlan=network.vlan, subnets=network.subnets)
    for vm in inventory.vms:
        result.add_node((VM, vm.name), image=vm.image, groups=vm.groups)
        for nic in vm.nics:
            result.add_edge(
                (VM, vm.name),
                (NETWORK, nic.network),
                key=nic.name,
                port=nic.port,
                mac=nic.mac,
                addresses=nic.addresses,
            )
    return result
