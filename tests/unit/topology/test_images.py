"""What VMs boot, out of a topology: where files are looked for, and which disk is made of an image."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vnet.base.boot import MICRO_BOOT, Boot, Firmware, ImageFile, ImageSource
from vnet.fabric.encode import guest_from_json, guest_to_json
from vnet.fabric.state import guest_of
from vnet.topology.inventory import expand
from vnet.topology.load import load_text
from vnet.topology.model import Topology

SUM = "ab" * 32
HEAD = f"""\
name: lab
defaults: {{networks: []}}
images:
  debian: {{path: images/debian.qcow2, sha256: {SUM}, cloud_init: true}}
  tiny: {{kernel: /boot/vmlinuz, initrd: initrd, cmdline: quiet, sha256: {{kernel: {SUM}}}}}
  cd: {{path: cd.iso, format: iso}}
"""


def load(vms: str, file: str = "lab/lab.vnet.yaml") -> Topology:
    return load_text(f"{HEAD}vms:\n{vms}", file, {"PWD": "/home/u"})


def boot(vm: str) -> Boot:
    return load(f"  a: {vm}\n").vms["a"].boot


def disks(vm: str) -> list[tuple[str, int, bool]]:
    return [(each.name, each.size_bytes >> 20, each.is_root) for each in load(f"  a: {vm}\n").vms["a"].disks]


def test_a_vm_of_which_nothing_is_said_is_vnets_own_guest() -> None:
    assert boot("{}") == boot("{image: micro}") == MICRO_BOOT


def test_files_are_looked_for_beside_the_topology_that_names_them() -> None:
    image = boot("{image: debian}").image
    assert image is not None
    assert image.file == ImageFile("/home/u/lab/images/debian.qcow2", SUM)
    assert load("  a: {image: debian}\n", "/srv/x.vnet.yaml").images["debian"].source.file == ImageFile(
        "/srv/images/debian.qcow2", SUM
    )


def test_a_kernel_has_its_own_checksums_and_a_vm_may_give_it_another_command_line() -> None:
    image = boot("{image: tiny, boot: {cmdline: verbose}}").image
    assert image is not None
    assert image.kernel == ImageFile("/boot/vmlinuz", SUM)
    assert image.initrd == ImageFile("/home/u/lab/initrd")
    assert image.cmdline == "verbose"


def test_a_name_that_is_not_declared_is_one_of_the_hosts_store() -> None:
    assert boot("{image: opnsense}").image == ImageSource("opnsense")
    assert boot("{boot: {iso: rescue}}").iso == ImageSource("rescue")


def test_a_medium_is_the_name_of_an_image_or_a_file() -> None:
    declared, file = boot("{boot: {iso: cd}}").iso, boot("{boot: {iso: ./cd}}").iso
    assert declared is not None and declared.name == "cd"
    assert file == ImageSource("", file=ImageFile("/home/u/lab/cd"))


def test_who_has_a_kernel_or_a_medium_is_no_micro_guest_whatever_defaults_say() -> None:
    found = boot("{image: micro, memory: 256M, boot: {iso: cd, firmware: uefi, first: iso}}")
    assert found.image is None
    assert (found.firmware, found.iso_first) == (Firmware.UEFI.value, True)


@pytest.mark.parametrize(
    ("vm", "expected"),
    [
        ("{disk: 10M}", [("disk", 10, False)]),
        ("{image: debian}", [("root", 0, True)]),
        ("{image: debian, disk: 10M}", [("root", 10, True)]),
        (
            "{image: debian, disks: [{name: data, size: 5M}, {name: root, size: 10M}]}",
            [("root", 10, True), ("data", 5, False)],
        ),
        ("{image: tiny, disk: 10M}", [("root", 10, False)]),
        ("{boot: {iso: cd}, disks: [{name: data, size: 5M}]}", [("data", 5, False)]),
    ],
)
def test_the_disk_of_an_image_comes_first(vm: str, expected: list[tuple[str, int, bool]]) -> None:
    assert disks(vm) == expected


@pytest.mark.parametrize(
    "vm", ["{}", "{image: debian}", "{image: tiny}", "{memory: 256M, boot: {iso: cd, firmware: uefi}}"]
)
def test_a_guest_is_remembered_with_what_it_boots(vm: str) -> None:
    (found,) = expand(load(f"  a: {vm}\n"), {}).vms
    guest = guest_of(found)
    assert guest_from_json(guest_to_json(guest)) == replace(guest, awaits=())
