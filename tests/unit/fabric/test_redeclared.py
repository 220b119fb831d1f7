"""A VM that was backed up is declared again as it was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml

from tests.unit.hv.test_backup import manifest
from vnet.base.errors import InputError
from vnet.fabric.redeclared import anew, declared
from vnet.hv.backup import decode, encode
from vnet.topology.inventory import Vm, expand
from vnet.topology.load import load_text

HEAD = """\
name: shop
networks: {lan: {vlan: 10, subnets: 10.0.0.0/24}}
"""
TEXT = f"""{HEAD}images:
  small: {{path: /images/small.qcow2, sha256: {"ab" * 32}, cloud_init: true}}
  direct: {{kernel: /images/vmlinuz, initrd: /images/initrd, cmdline: "console=ttyS0 a=$$b"}}
  other: {{path: /images/other.qcow2}}
defaults: {{networks: [lan], memory: 512M}}
vms:
  told:
    image: small
    disks: [{{name: root, size: 4G}}, {{name: data, size: 2M, format: raw, preallocated: true}}]
    cloud_init: {{user: ada, password_hash: "$$6$$salt", packages: [htop], runcmd: ["echo $$HOME"]}}
    restart: on-failure:5
    autostart: true
    healthcheck: {{test: [pg_isready], interval: 10s}}
    depends_on: {{direct: {{}}}}
  untold: {{image: small, cloud_init: false}}
  direct: {{image: direct, boot: {{cmdline: "console=ttyS0 debug"}}}}
  own: {{boot: {{kernel: /images/vmlinuz, initrd: /images/initrd, cmdline: root=/dev/vda}}, disk: 2G}}
  install: {{boot: {{iso: /images/netinst.iso, first: iso, firmware: uefi}}, disk: 20G}}
  stored: {{image: golden, boot: {{iso: tools}}}}
  micro: {{disks: [{{name: safe, size: 1G, encrypt: true}}], groups: [db]}}
"""
TOPOLOGY = load_text(TEXT, "shop.vnet.yaml", {})
VMS = {vm.name: vm for vm in expand(TOPOLOGY, {}).vms}


def saved(vm: Vm, name: str, *, same: bool = False) -> dict[str, Any]:
    """What is declared of a VM after it was in a manifest's file."""
    entry = replace(manifest("db-1"), declared=declared(vm, TOPOLOGY.images))
    return anew(decode(encode(entry)), name, same=same)


def again(plain: dict[str, Any]) -> Vm:
    """The VM of a file that has nothing else but its networks."""
    topology = load_text(HEAD + yaml.safe_dump(plain), "shop.vnet.yaml", {})
    (vm,) = expand(topology, {}).vms
    return vm


def itself(vm: Vm) -> Vm:
    """A VM but for its name, where it is declared, and among whom it lives."""
    at = VMS["told"].at
    disks = tuple(replace(disk, at=at) for disk in vm.disks)
    life = replace(vm.life, depends_on=())
    return replace(vm, name="", spec="", at=at, nics=(), disks=disks, life=life, awaits=())


@pytest.mark.parametrize("name", VMS)
def test_a_vm_that_is_declared_again_boots_as_it_did(name: str) -> None:
    found = again(saved(VMS[name], "copy"))
    assert found.name == "copy"
    assert itself(found) == itself(VMS[name])


def test_only_the_images_that_it_boots_come_along() -> None:
    found = {name: list(saved(VMS[name], "copy").get("images", ())) for name in VMS}
    assert {name: images for name, images in found.items() if images} == {
        "told": ["small"],
        "untold": ["small"],
        "direct": ["direct"],
    }


def test_macs_and_addresses_are_those_of_then_only_if_asked_for() -> None:
    vm = VMS["micro"]
    assert saved(vm, "copy")["vms"]["copy"]["interfaces"] == {"eth0": {"network": "lan"}}
    (nic,), (same,) = vm.nics, again(saved(vm, "copy", same=True)).nics
    assert (same.mac, same.addresses) == (nic.mac, nic.addresses)
    assert again(saved(vm, "copy")).nics[0].mac != nic.mac


def test_what_an_older_vnet_wrote_is_declared_as_before() -> None:
    old = {"image": "micro", "cpus": 1, "memory": "96M", "interfaces": {"eth0": {"network": "lan"}}}
    assert anew(replace(manifest("db-1"), declared=old), "db") == {"vms": {"db": old}}


@pytest.mark.parametrize("name", ["x y", "UP", "", "a" * 64, "../x"])
def test_a_name_that_is_no_vms_is_refused_and_not_written_into_a_topology(name: str) -> None:
    with pytest.raises(InputError, match="is no name for a VM"):
        anew(manifest("db-1"), name)
