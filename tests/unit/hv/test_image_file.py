"""What a file with an image is, by its first bytes: made by qemu-img, and as an attacker would make them."""

from __future__ import annotations

import json
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnet.base.boot import ImageFormat
from vnet.base.errors import HostError
from vnet.hv.image_file import AT_IMPORT, HEAD_BYTES, TAIL_BYTES, Ends, recognise
from vnet.hv.live.image_import import ends_of

MIB = 1 << 20


def made(folder: Path, kind: str, *options: str) -> Path:
    """A disk of 4 MiB by qemu-img."""
    path = folder / f"disk.{kind}"
    subprocess.run(["qemu-img", "create", "-q", "-f", kind, *options, str(path), "4M"], check=True)
    return path


def ends(data: bytes) -> Ends:
    return Ends(data[:HEAD_BYTES], data[-TAIL_BYTES:], len(data))


@pytest.mark.parametrize("kind", ["qcow2", "vdi", "vmdk", "vhdx", "vpc"])
def test_what_qemu_img_makes_is_recognised(tmp_path, kind):
    assert recognise(ends_of(made(tmp_path, kind)), "disk").value == kind


@pytest.mark.parametrize(
    ("kind", "options"),
    [("vpc", ("-o", "subformat=fixed")), ("vmdk", ("-o", "subformat=streamOptimized"))],
)
def test_other_kinds_of_a_format_are_recognised_too(tmp_path, kind, options):
    assert recognise(ends_of(made(tmp_path, kind, *options)), "disk").value == kind


@pytest.mark.parametrize(
    "data",
    [
        bytes(510) + b"\x55\xaa" + bytes(MIB),
        bytes(512) + b"EFI PART" + bytes(MIB),
        bytes(1080) + b"\x53\xef" + bytes(MIB),
    ],
)
def test_a_raw_disk_is_recognised_by_its_partitions_or_its_file_system(data):
    assert recognise(ends(data), "disk") is ImageFormat.RAW


def test_a_medium_that_boots_from_a_stick_too_is_a_medium():
    data = bytearray(MIB)
    data[510:512], data[32769:32774] = b"\x55\xaa", b"CD001"
    assert recognise(ends(bytes(data)), "cd") is ImageFormat.ISO


def test_what_bears_no_sign_is_a_raw_disk_only_if_somebody_says_so():
    data = bytes(MIB)
    with pytest.raises(HostError, match="needs `format: raw`"):
        recognise(ends(data), "disk")
    with pytest.raises(HostError, match="needs `--format raw`"):
        recognise(ends(data), "disk", how=AT_IMPORT)
    assert recognise(ends(data), "disk", "raw") is ImageFormat.RAW


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is empty"),
        (b"\x1f\x8b\x08\x00", "gunzip"),
        (b"\xfd7zXZ\x00", "unxz"),
        (b"<!DOCTYPE html>", "the download may have failed"),
        (b"# Disk DescriptorFile\nversion=1", "contents lie in other files"),
        (bytes(257) + b"ustar" + bytes(300), "OVA"),
        (b"LUKS\xba\xbe", "encrypted"),
    ],
)
def test_what_is_no_image_is_told_what_it_is(data, why):
    with pytest.raises(HostError, match=why):
        recognise(ends(data), "thing")


def test_an_image_that_is_not_what_it_is_said_to_be_is_refused(tmp_path):
    with pytest.raises(HostError, match="said to be raw, and is qcow2"):
        recognise(ends_of(made(tmp_path, "qcow2")), "disk", "raw")


def test_a_qcow2_file_with_a_backing_file_is_refused(tmp_path):
    made(tmp_path, "raw")
    path = made(tmp_path, "qcow2", "-b", str(tmp_path / "disk.raw"), "-F", "raw")
    with pytest.raises(HostError, match="backing file"):
        recognise(ends_of(path), "disk")


def test_a_qcow2_file_whose_contents_are_elsewhere_is_refused(tmp_path):
    path = made(tmp_path, "qcow2", "-o", f"data_file={tmp_path}/data,data_file_raw=on")
    with pytest.raises(HostError, match="in another file"):
        recognise(ends_of(path), "disk")


def test_an_encrypted_qcow2_file_is_refused(tmp_path):
    data = bytearray(made(tmp_path, "qcow2").read_bytes())
    struct.pack_into(">I", data, 32, 2)
    with pytest.raises(HostError, match="encrypted"):
        recognise(ends(bytes(data)), "disk")


def test_a_qcow2_file_that_is_marked_as_corrupt_is_refused(tmp_path):
    data = bytearray(made(tmp_path, "qcow2").read_bytes())
    struct.pack_into(">Q", data, 72, 2)
    with pytest.raises(HostError, match="marked as corrupt"):
        recognise(ends(bytes(data)), "disk")


def test_a_qcow2_file_that_is_cut_off_is_refused():
    with pytest.raises(HostError, match="cut off"):
        recognise(ends(b"QFI\xfb\x00\x00\x00\x03"), "disk")


def test_a_vmdk_that_is_only_a_description_of_other_files_is_refused(tmp_path):
    """The header that QEMU takes for a description: a capacity of nothing."""
    data = bytearray(made(tmp_path, "vmdk").read_bytes())
    struct.pack_into("<Q", data, 12, 0)
    with pytest.raises(HostError, match="contents lie in other files"):
        recognise(ends(bytes(data)), "disk")


def test_a_vmdk_that_is_a_difference_is_refused(tmp_path):
    data = made(tmp_path, "vmdk").read_bytes()
    data = data.replace(b"# Extent description", b'parentFileNameHint="/etc/shadow"\n', 1)
    with pytest.raises(HostError, match="only the difference"):
        recognise(ends(data), "disk")


def test_what_is_refused_would_have_been_read_by_qemu(tmp_path):
    """The attack that is refused is one: QEMU opens what the image names."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret" + bytes(4 * MIB))
    path = made(tmp_path, "qcow2", "-b", str(secret), "-F", "raw")
    told = subprocess.run(
        ["qemu-img", "info", "--output=json", str(path)], check=True, capture_output=True, text=True
    )
    assert json.loads(told.stdout)["full-backing-filename"] == str(secret)


@given(st.binary(max_size=2048))
def test_any_bytes_are_recognised_or_refused_in_words(data):
    try:
        recognise(ends(data), "thing")
    except HostError as error:
        assert str(error)
