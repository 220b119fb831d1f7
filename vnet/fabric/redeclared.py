"""A VM as a piece of a topology, so that a host that has never heard of it can declare it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vnet.hv.backup import Manifest
from vnet.hv.spec import format_mac
from vnet.topology.inventory import Vm
from vnet.topology.model import DiskFormat, DiskSpec

Plain = dict[str, Any]


def declared(vm: Vm) -> Plain:
    """What was declared of a VM, with the identity it was given."""
    interfaces = {
        nic.interface: {
            "network": nic.network,
            "addresses": [str(address) for address in nic.addresses],
            "mac": format_mac(nic.mac),
        }
        for nic in vm.nics
    }
    plain: Plain = {"image": vm.image, "cpus": vm.cpus, "memory": f"{vm.memory_bytes >> 20}M"}
    plain |= {"boot": {"firmware": vm.boot.firmware}} if vm.boot.is_uefi else {}
    disks = [_disk(each) for each in vm.disks if each.size_bytes]  # a root disk without is as its image
    plain |= {"disks": disks} if disks else {}
    return plain | {"interfaces": interfaces} | ({"groups": sorted(vm.groups)} if vm.groups else {})


def _disk(disk: DiskSpec) -> Plain:
    return {
        "name": disk.name,
        "size": f"{disk.size_bytes >> 20}M",
        **({"format": disk.format.value} if disk.format is not DiskFormat.QCOW2 else {}),
        **({"preallocated": True} if disk.is_full else {}),
        **({"encrypt": True} if disk.is_encrypted else {}),
    }


def anew(manifest: Manifest, name: str, *, same: bool = False) -> Plain:
    """The `vms:` that declare a saved VM again; its MACs and addresses are new ones, unless the `same`."""
    interfaces: Mapping[str, Any] = manifest.declared.get("interfaces", {})
    kept = {interface: nic if same else {"network": nic["network"]} for interface, nic in interfaces.items()}
    return {"vms": {name: {**manifest.declared, "interfaces": kept}}}
