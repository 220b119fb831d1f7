"""Which IP address belongs to whom: what the file declares, and what the fabric assigned and keeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from vnet.fabric.declared import Declared
from vnet.hv.spec import format_mac
from vnet.services.leases import Lease


def rows(
    declared: Declared, network: str | None, leased: Iterable[tuple[str, Lease]] = ()
) -> list[Mapping[str, Any]]:
    """The addresses, by network and address; `network`: only of this one.

    `kind` is `declared` for an address that the topology file names, `reserved` for one that it reserves, and
    `assigned` for one that the fabric chose. `expires` is when the guest must have asked for it again by
    DHCP; None if it did not ask: then it has it from its configuration, or does not use it.

    Args:
        leased: what was handed out by DHCP, with the networks.
    """
    expiry = {(where, lease.address): lease.expires_s for where, lease in leased}
    reserved = {
        (name, address)
        for name, each in declared.topology.networks.items()
        for served in each.served
        for address in (served.dhcp.reservations.values() if served.dhcp else ())
    }
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
            "kind": _kind(is_declared, (nic.network, address.ip) in reserved),
            "expires": _stamp(expiry.get((nic.network, address.ip))),
        }
        for vlan, address, nic, is_declared in found
    ]


def _kind(is_declared: bool, is_reserved: bool) -> str:
    return "declared" if is_declared else "reserved" if is_reserved else "assigned"


def _stamp(time_s: int | None) -> str | None:
    return None if time_s is None else datetime.fromtimestamp(time_s, UTC).isoformat()
