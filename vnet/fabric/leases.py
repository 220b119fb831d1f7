"""Which IP address belongs to whom: what the file declares, and what the fabric assigned and keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vnet.fabric.declared import Declared
from vnet.hv.spec import format_mac


def rows(declared: Declared, network: str | None) -> list[Mapping[str, Any]]:
    """The addresses, by network and address; `network`: only of this one.

    `kind` is `declared` for an address that the topology file names and `assigned` for one that the fabric
    chose. Both are configured in the guest and do not expire: `expires` is None.
    """
    named = {
        (vm.name, interface.name): interface.addresses
        for vm in declared.topology.vms.values()
        for interface in vm.interfaces
    }
    found = [
        (nic.vlan, address, nic, address in named.get((vm.spec, nic.interface), ()))
        for vm in declared.inventory.vms
        for nic in vm.nics
        for address in nic.addresses
        if network in (None, nic.network)
    ]
    found.sort(key=lambda row: (row[0], row[1].version, int(row[1].ip)))
    return [
        {
            "network": nic.network,
            "vlan": vlan,
            "address": str(address),
            "mac": format_mac(nic.mac),
            "nic": nic.name,
            "kind": "declared" if is_declared else "assigned",
            "expires": None,
        }
        for vlan, address, nic, is_declared in found
    ]
