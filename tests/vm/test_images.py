"""Real guests that boot what vnet has not made: disks, media and kernels, by BIOS and UEFI."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from tests.vm import boot_media
from tests.vm.boot_media import Console
from tests.vm.fabric_lab import Lab, lab

TEXT = """\
name: images
defaults: {memory: 256M}
networks: {lan: {vlan: 10, subnets: 10.0.0.0/24}}
images:
  alien: {path: boot.vmdk, sha256: SUM}
vms:
  disk:   {image: alien, disk: 64M, networks: [lan]}
  uefi:   {image: stored, boot: {firmware: uefi}, networks: [lan]}
  drive:  {boot: {iso: boot.iso, firmware: uefi}, disks: [{name: empty, size: 8M}], networks: [lan]}
  kernel:
    boot: {kernel: tree/boot/vmlinuz, initrd: tree/boot/initrd, cmdline: console=ttyS0 quiet by=qemu}
    networks: [lan]
policies: [{name: ping, applied_to: any, ingress: [{from: any, ports: [icmp]}]}]
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    with lab() as made:
        made.have_image()
        iso = boot_media.medium(folder, made.directory / "state/images/micro")
        vmdk = boot_media.disk(iso, "vmdk")
        made.vnet("image", "import", str(boot_media.disk(iso, "qcow2")), "--name", "stored")
        made.file = folder / "images.vnet.yaml"
        made.file.write_text(TEXT.replace("SUM", hashlib.sha256(vmdk.read_bytes()).hexdigest()))
        made.vnet("up", "-f", str(made.file))
        vmdk.unlink()  # nobody needs it any more
        yield made
        made.vnet("down", "-n", "images", "--disks")
        made.vnet("image", "rm", "--unused")
        made.vnet("image", "rm", "stored")
        assert [row["name"] for row in made.json("image", "ls")] == ["micro"]
        made.vnet("serve", "--stop")


def console(host: Lab, vm: str) -> Console:
    path = host.directory / "run/fabrics/images/vms" / vm / "console.sock"
    return Console(path, lambda: host.vnet("logs", vm, "-n", "images"))


@pytest.mark.parametrize(
    ("vm", "by", "firmware"),
    [
        ("kernel", "qemu", "bios"),
        ("disk", "grub", "bios"),
        ("uefi", "grub", "uefi"),
        ("drive", "grub", "uefi"),
    ],
)
def test_it_boots_what_it_is_to(host: Lab, vm: str, by: str, firmware: str) -> None:
    told = console(host, vm).run("cat /proc/cmdline; ls /sys/firmware; ls /sys/block")
    assert f"by={by}" in told
    assert ("efi" in told.split()) == (firmware == "uefi")
    assert ("vda" in told.split()) == (vm != "kernel")


def test_packets_of_such_guests_go_by_the_same_rules(host: Lab) -> None:
    addresses = {row["vm"]: row["addresses"][0] for row in host.json("ps")}
    for vm in ("disk", "kernel"):
        console(host, vm).run(f"ip addr add {addresses[vm]} dev eth0; ip link set eth0 up")
    target = addresses["disk"].split("/")[0]
    assert " 0% packet loss" in console(host, "kernel").run(f"ping -c 2 -W 5 {target}")
    assert "timed out" in console(host, "kernel").run(f"nc.openbsd -vz -w 2 {target} 22 2>&1")


def test_a_screen_can_be_looked_at(host: Lab, tmp_path: Path) -> None:
    host.vnet("screenshot", "disk", str(tmp_path / "screen.png"))
    size = boot_media.png_size((tmp_path / "screen.png").read_bytes())
    assert boot_media.rfb_size(Path(host.vnet("vnc", "disk").strip())) == size
    assert size == (720, 400)
    host.vnet("pause", "drive")
    host.vnet("screenshot", "drive", str(tmp_path / "paused.png"))
    assert boot_media.png_size((tmp_path / "paused.png").read_bytes())[0] >= 640
    host.vnet("resume", "drive")


def test_a_vnc_client_comes_in_by_tcp(host: Lab) -> None:
    carrier = host.start("vnc", "disk", "--listen", "127.0.0.1:0")
    try:
        port = carrier.stderr.readline().split(";")[0].rpartition(":")[2]
        told = subprocess.run(
            ["bash", "-c", f"head -c 12 </dev/tcp/127.0.0.1/{port}"], capture_output=True, timeout=20
        )
        assert told.stdout == b"RFB 003.008\n"
    finally:
        carrier.terminate()
        carrier.communicate()


def test_what_needs_an_agent_says_that_there_is_none(host: Lab) -> None:
    assert {row["vm"]: row["state"] for row in host.json("ps")}["disk"] == "running"
    told = host.vnet("exec", "--timeout", "2", "disk", "true", expect=124)
    assert "Without qemu-guest-agent in it there is `vnet console disk`" in told


def test_qemu_reaches_no_file_by_its_path(host: Lab) -> None:
    """Neither image nor disk: they are root's, and it is handed descriptors."""
    row = next(row for row in host.json("ps") if row["vm"] == "uefi")
    words = Path(f"/proc/{row['pid']}/cmdline").read_text().split("\0")
    assert not any("image-store" in word or "/disks/" in word or "OVMF" in word for word in words)
    assert Path(f"/proc/{row['pid']}").stat().st_uid >= 60600
    (image,) = [each for each in host.json("image", "ls") if each["name"] == "stored"]
    assert not Path(image["path"]).stat().st_mode & 0o337, "nobody writes it, others do not read it"


def test_a_root_disk_keeps_what_is_written_and_its_image_does_not_change(host: Lab) -> None:
    console(host, "disk").run("echo precious | dd of=/dev/vda bs=1M seek=60 conv=fsync")
    assert "is needed by images/disk/root" in host.vnet("image", "rm", image_of(host, "disk")["id"], expect=1)
    host.vnet("stop", "disk")
    refuse_when_changed(host, Path(image_of(host, "disk")["path"]))
    host.vnet("start", "disk")
    assert (
        console(host, "disk").run("dd if=/dev/vda bs=1M skip=60 count=1 2>/dev/null | head -c 8")
        == "precious"
    )
    assert all(row["fault"] == "" for row in host.json("image", "verify"))


def image_of(host: Lab, vm: str) -> dict:
    return next(row for row in host.json("image", "ls") if f"images/{vm}/root" in row["users"])


def refuse_when_changed(host: Lab, image: Path) -> None:
    """One byte more, then as it was."""
    size = image.stat().st_size
    with image.open("ab") as file:
        file.write(b"x")
    told = host.vnet("start", "disk", expect=1)
    assert "images.vnet.yaml:5:3: images.alien: the image" in told
    assert "is not as it was imported" in told
    os.truncate(image, size)


def test_an_image_that_is_missing_or_another_is_told_with_its_line_and_nothing_is_made(host: Lab) -> None:
    other = host.file.with_name("other.vnet.yaml")
    other.write_text(
        "name: other\n"
        "images: {gone: {path: gone.qcow2}, wrong: {path: boot.qcow2, sha256: " + "0" * 64 + "}}\n"
        "vms:\n"
        "  a: {image: gone, networks: []}\n"
        "  b: {image: wrong, networks: []}\n"
        "  c: {image: nobodys, networks: []}\n"
    )
    told = host.vnet("up", "-f", str(other), expect=1)
    assert "other.vnet.yaml:2:10: images.gone: cannot read the image" in told
    assert "other.vnet.yaml:2:36: images.wrong: " in told
    assert "declared is 0000" in told
    assert "other.vnet.yaml:6:3: vms.c.image: there is no image nobodys" in told
    assert {row["fabric"] for row in host.json("ps")} == {"images"}
