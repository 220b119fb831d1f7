"""A VM as a piece of a topology, so that a host that has never heard of it can declare it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vnet.base.errors import InputError
from vnet.hv.backup import Manifest
from vnet.hv.spec import format_mac
from vnet.topology import written_vm
from vnet.topology.inventory import Vm
from vnet.topology.language import VM_NAME_MAX
from vnet.topology.values import is_name
from vnet.topology.written_vm import Images

Plain = dict[str, Any]

_IMAGES = "images"
"""What is declared of images stands beside what is declared of the VM."""


def declared(vm: Vm, images: Images) -> Plain:
    """What was declared of a VM and of the images that it boots, with the identity it was given."""
    interfaces = {
        nic.interface: {
            "network": nic.network,
            "addresses": [str(address) for address in nic.addresses],
            "mac": format_mac(nic.mac),
        }
        for nic in vm.nics
    }
    own = {source.name: images[source.name] for source in vm.boot.sources if source.name in images}
    plain: Plain = {"cpus": vm.cpus, "memory": f"{vm.memory_bytes >> 20}M", **written_vm.machine(vm, images)}
    plain |= {"interfaces": interfaces} | ({"groups": sorted(vm.groups)} if vm.groups else {})
    return plain | ({_IMAGES: written_vm.images(own)} if own else {})


def anew(manifest: Manifest, name: str, *, same: bool = False) -> Plain:
    """The `vms:`, and `images:`, that declare a saved VM again.

    Its MACs and addresses are new ones, unless the `same`.

    Raises: InputError for a name that is no VM's.
    """
    if not is_name(name, VM_NAME_MAX):
        raise InputError(f"{name!r} is no name for a VM: small letters, digits and hyphens, as in web-2")
    plain = dict(manifest.declared)
    images = plain.pop(_IMAGES, None)
    interfaces: Mapping[str, Any] = plain.get("interfaces", {})
    kept = {interface: nic if same else {"network": nic["network"]} for interface, nic in interfaces.items()}
    return ({_IMAGES: images} if images else {}) | {"vms": {name: {**plain, "interfaces": kept}}}
