"""OVAs taken apart: as VirtualBox and VMware write them (descriptors by hand, disks by qemu-img), and bad."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from vnet.base.errors import HostError, InputError, VnetError
from vnet.hv import ovf as written
from vnet.hv.live import ova
from vnet.hv.ovf import ExportedDisk, ExportedNic, ExportedVm
from vnet.topology.foreign.ovf import Appliance, imported

IMPORTS = Path(__file__).resolve().parents[2] / "golden/imports"
SIZE = 64 << 20


def silent(detail: str) -> None:
    pass


def qemu_img(*words: str | Path) -> str:
    return subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True, text=True).stdout


def disk(path: Path, size_bytes: int = SIZE) -> Path:
    """A raw disk with something at its begin, in its middle and at its end, and nothing between."""
    with path.open("wb") as file:
        for place in (0, size_bytes // 2, size_bytes - 4096):
            file.seek(place)
            file.write(os.urandom(4096))
    with path.open("r+b") as file:
        file.seek(510)
        file.write(b"\x55\xaa")
    return path


def vmdk(raw: Path) -> bytes:
    target = raw.with_suffix(".vmdk")
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, target)
    return target.read_bytes()


def manifest(files: dict[str, bytes], function: str = "sha256") -> bytes:
    lines = (
        f"{function.upper()}({name})= {hashlib.new(function, data).hexdigest()}\n"
        for name, data in files.items()
    )
    return "".join(lines).encode()


def packed(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def taken_apart(path: Path, into: Path) -> Appliance:
    package = ova.read(path)
    appliance = imported(package.descriptor.name, package.text())
    with ova.staging(into) as part:
        for each in appliance.disks:
            ova.unpack(package, each.source, each.size_bytes, part / each.target, silent)
    return appliance


def same(raw: Path, made: Path) -> bool:
    return "identical" in qemu_img("compare", "-f", "raw", "-F", "qcow2", raw, made)


@pytest.fixture
def virtualbox(tmp_path: Path) -> dict[str, bytes]:
    """The files of such a package; the manifest is of SHA-1, as that of VirtualBox is by default."""
    text = (IMPORTS / "ovf-virtualbox.ovf").read_bytes()
    files = {"Debian 12.ovf": text, "Debian 12-disk001.vmdk": vmdk(disk(tmp_path / "disk.raw"))}
    return files | {"Debian 12.mf": manifest(files, "sha1")}


def test_an_ova_as_virtualbox_writes_it_becomes_a_disk_of_the_same_contents(
    virtualbox: dict[str, bytes], tmp_path: Path
) -> None:
    taken_apart(packed(tmp_path / "debian.ova", virtualbox), tmp_path / "made")
    assert same(tmp_path / "disk.raw", tmp_path / "made/debian-12-root.qcow2")
    assert [each.name for each in (tmp_path / "made").iterdir()] == ["debian-12-root.qcow2"]


def test_a_descriptor_with_its_files_beside_it_is_read_as_well(
    virtualbox: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    for name, data in virtualbox.items():
        (tmp_path / "there" / name).write_bytes(data)
    taken_apart(tmp_path / "there/Debian 12.ovf", tmp_path / "made")
    assert same(tmp_path / "disk.raw", tmp_path / "made/debian-12-root.qcow2")


def test_an_ova_as_vmware_writes_it_has_its_manifest_first_and_two_disks(tmp_path: Path) -> None:
    text = (IMPORTS / "ovf-vmware.ovf").read_bytes()
    one, two = disk(tmp_path / "one.raw", 1 << 30), disk(tmp_path / "two.raw", 512 << 20)
    files = {
        "shop.ovf": text,
        "shop-1.vmdk": vmdk(one),
        "shop-2.vmdk": vmdk(two),
        "shop-1.nvram": b"n" * 8684,
    }
    package = {"shop.ovf": text, "shop.mf": manifest(files), "shop.cert": b"?"} | files
    taken_apart(packed(tmp_path / "shop.ova", package), tmp_path / "made")
    assert same(one, tmp_path / "made/shop-app-root.qcow2")
    assert same(two, tmp_path / "made/shop-app-disk1.qcow2")


def test_what_is_exported_is_what_is_imported(tmp_path: Path) -> None:
    raw = disk(tmp_path / "disk.raw")
    data = vmdk(raw)
    nic = ExportedNic("eth0", "front & back", "52:54:00:12:34:56")
    vm = ExportedVm(
        "web<1>", 2, 256 << 20, (ExportedDisk("root", "web-root.vmdk", SIZE, len(data)),), (nic,), True
    )
    files = {"web.ovf": written.descriptor(vm).encode(), "web-root.vmdk": data}
    sums = {name: hashlib.sha256(each).hexdigest() for name, each in files.items()}
    package = packed(tmp_path / "web.ova", files | {"web.mf": written.manifest(sums).encode()})
    found = taken_apart(package, tmp_path / "made").document
    assert same(raw, tmp_path / "made/web-1-root.qcow2")
    (plain,) = found["vms"].values()
    assert (plain["cpus"], plain["memory"], plain["boot"]) == (2, "256M", {"firmware": "uefi"})
    assert plain["interfaces"]["eth0"]["mac"] == "52:54:00:12:34:56"
    assert list(found["networks"]) == ["front-back"]


# ---- what is refused -------------------------------------------------------------------------


def refused(path: Path, into: Path, words: str) -> None:
    with pytest.raises(VnetError, match=words) as caught:
        taken_apart(path, into)
    assert isinstance(caught.value, InputError | HostError)
    assert not into.exists()
    assert not [each for each in into.parent.iterdir() if each.name.startswith(".vnet-import")]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"Debian 12-disk001.vmdk": b"KDMV" + bytes(9000)},
            "damaged or was changed: Debian 12-disk001.vmdk has",
        ),
        ({"Debian 12.mf": b"SHA1(Debian 12.ovf)= 00\n"}, "line 1 of its manifest"),
        ({"Debian 12.mf": manifest({"Debian 12.ovf": b"other"})}, "Debian 12.ovf has the SHA256"),
        ({"second.ovf": b"<Envelope/>"}, "has 2 descriptors"),
        ({"../../etc/cron.d/x": b"* * * * *"}, "only plain names"),
        ({"/etc/passwd": b"x"}, "only plain names"),
        ({"a\nb": b"x"}, "only plain names"),
        ({f"{n}": b"" for n in range(200)}, "more than 128 files"),
    ],
)
def test_a_package_that_is_not_what_it_should_be_is_refused(
    virtualbox: dict[str, bytes], tmp_path: Path, changed: dict[str, bytes], words: str
) -> None:
    refused(packed(tmp_path / "bad.ova", virtualbox | changed), tmp_path / "made", words)


def test_a_manifest_that_keeps_silent_about_a_disk_is_refused(
    virtualbox: dict[str, bytes], tmp_path: Path
) -> None:
    sums = manifest({"Debian 12.ovf": virtualbox["Debian 12.ovf"]})
    refused(
        packed(tmp_path / "x.ova", virtualbox | {"Debian 12.mf": sums}),
        tmp_path / "made",
        "has no checksum of",
    )


def test_a_missing_disk_and_a_missing_manifest_are_told_apart(
    virtualbox: dict[str, bytes], tmp_path: Path
) -> None:
    without = {name: data for name, data in virtualbox.items() if not name.endswith((".mf", ".vmdk"))}
    refused(packed(tmp_path / "bad.ova", without), tmp_path / "made", "is not whole: its descriptor names")
    assert ova.read(tmp_path / "bad.ova").sums is None


def test_a_link_in_the_archive_is_refused(virtualbox: dict[str, bytes], tmp_path: Path) -> None:
    path = packed(tmp_path / "bad.ova", virtualbox)
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/shadow"
        archive.addfile(link)
    refused(path, tmp_path / "made", "no plain file")


def test_an_archive_that_is_cut_off_is_refused(virtualbox: dict[str, bytes], tmp_path: Path) -> None:
    path = packed(tmp_path / "bad.ova", virtualbox)
    os.truncate(path, path.stat().st_size // 2)
    refused(path, tmp_path / "made", "cut off")


def without_manifest(virtualbox: dict[str, bytes], data: bytes) -> dict[str, bytes]:
    files = {name: each for name, each in virtualbox.items() if not name.endswith(".mf")}
    return files | {"Debian 12-disk001.vmdk": data}


def test_a_disk_that_names_other_files_of_the_host_is_refused(
    virtualbox: dict[str, bytes], tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret" * 1000)
    flat = f'# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 131072 FLAT "{secret}" 0\n'
    refused(
        packed(tmp_path / "1.ova", without_manifest(virtualbox, flat.encode())),
        tmp_path / "made",
        "other files",
    )
    base = disk(tmp_path / "base.qcow2")
    overlay = tmp_path / "overlay.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", overlay)
    data = overlay.read_bytes()
    refused(packed(tmp_path / "2.ova", without_manifest(virtualbox, data)), tmp_path / "made", "backing file")
    parent = virtualbox["Debian 12-disk001.vmdk"]
    place = parent.index(b"createType")
    hint = b'parentFileNameHint="/etc/shadow"\n'
    data = parent[:place] + hint + parent[place : -len(hint)]
    refused(packed(tmp_path / "3.ova", without_manifest(virtualbox, data)), tmp_path / "made", "difference")


def test_a_disk_that_is_larger_than_its_descriptor_says_is_refused(
    virtualbox: dict[str, bytes], tmp_path: Path
) -> None:
    large = tmp_path / "large.raw"
    with large.open("wb") as file:
        file.write(b"\x00" * 510 + b"\x55\xaa")
        for _ in range(160):
            file.write(b"\x01" * (1 << 20))  # half a MiB when it is compressed
    data = vmdk(large)
    assert len(data) < 2 << 20
    path = packed(tmp_path / "bomb.ova", without_manifest(virtualbox, data))
    refused(path, tmp_path / "made", "failed|too large|is a disk of")


def test_a_folder_that_is_there_is_not_replaced_and_an_empty_one_is(
    virtualbox: dict[str, bytes], tmp_path: Path
) -> None:
    path = packed(tmp_path / "debian.ova", virtualbox)
    (tmp_path / "made").mkdir()
    taken_apart(path, tmp_path / "made")
    with pytest.raises(InputError, match="there already"):
        taken_apart(path, tmp_path / "made")
    assert same(tmp_path / "disk.raw", tmp_path / "made/debian-12-root.qcow2")


def test_what_breaks_it_off_leaves_nothing(virtualbox: dict[str, bytes], tmp_path: Path) -> None:
    package = ova.read(packed(tmp_path / "debian.ova", virtualbox))

    def interrupted(detail: str) -> None:
        if "converted" in detail:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), ova.staging(tmp_path / "made") as part:
        ova.unpack(package, "Debian 12-disk001.vmdk", SIZE, part / "x.qcow2", interrupted)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["debian.ova", "disk.raw", "disk.vmdk"]


@pytest.mark.parametrize("kind", ["text", "empty", "absent"])
def test_what_is_no_archive_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.ova"
    if kind != "absent":
        path.write_bytes(b"hello\n" * 500 if kind == "text" else b"")
    with pytest.raises(InputError, match=re.escape(str(path))):
        ova.read(path)


def test_a_raw_disk_without_partitions_is_brought_by_a_command_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "plain.raw").write_bytes(bytes(SIZE))
    with pytest.raises(HostError, match="needs `--format raw` of `vnet import disk`"):
        ova.bring(tmp_path / "plain.raw", tmp_path / "made.qcow2", "", silent)
    assert ova.bring(tmp_path / "plain.raw", tmp_path / "made.qcow2", "raw", silent) == SIZE
