from __future__ import annotations

import os
import stat
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnet.base.errors import HostError
from vnet.hv import image
from vnet.hv.image import (
    Entry,
    Ingredients,
    cache_key,
    contents,
    directory,
    kernel_package,
    module_dependencies,
    module_order,
    regular,
    reseed_program,
    symlink,
    write_cpio,
)

GUEST = Path(__file__).parents[3] / "guest"
SAMPLE = (
    directory("etc"),
    regular("etc/motd", b"hello\n"),
    regular("etc/run", b"#!/bin/sh\n", executable=True),
    symlink("init", "etc/run"),
    Entry("console", 0o020600, device=(5, 1)),
)


def listing(archive):
    done = subprocess.run(["cpio", "-tv", "--quiet"], input=archive, capture_output=True, check=True)
    return [line.split() for line in done.stdout.decode().splitlines()]


def test_cpio_lists_what_was_written():
    rows = listing(write_cpio(SAMPLE))
    assert [(row[0], row[-1]) for row in rows[:3]] == [
        ("drwxr-xr-x", "etc"),
        ("-rw-r--r--", "etc/motd"),
        ("-rwxr-xr-x", "etc/run"),
    ]
    assert rows[3][0] == "lrwxrwxrwx" and rows[3][-3:] == ["init", "->", "etc/run"]
    assert rows[4][0] == "crw-------" and rows[4][4:6] == ["5,", "1"]


def test_cpio_unpacks_the_same_contents(tmp_path):
    files = SAMPLE[:4]
    subprocess.run(["cpio", "-id", "--quiet"], input=write_cpio(files), cwd=tmp_path, check=True)
    assert (tmp_path / "etc/motd").read_bytes() == b"hello\n"
    assert stat.S_IMODE((tmp_path / "etc/run").stat().st_mode) == 0o755
    assert (tmp_path / "init").readlink() == Path("etc/run")


@given(st.lists(st.tuples(st.from_regex(r"[a-z]{1,9}", fullmatch=True), st.binary(max_size=9)), max_size=5))
def test_every_record_begins_at_a_multiple_of_four(files):
    archive = write_cpio([regular(name, data) for name, data in files])
    position, names = 0, []
    while True:
        assert position % 4 == 0 and archive[position : position + 6] == b"070701"
        numbers = [int(archive[position + 6 + i * 8 : position + 14 + i * 8], 16) for i in range(13)]
        size, name_size = numbers[6], numbers[11]
        names.append(archive[position + 110 : position + 110 + name_size - 1].decode())
        position += -(-(110 + name_size) // 4) * 4
        position += -(-size // 4) * 4
        if names[-1] == "TRAILER!!!":
            break
    assert position == len(archive)
    assert names[:-1] == [name for name, _ in files]


def elf_with(modinfo: bytes) -> bytes:
    """A 64-bit ELF file with only a `.modinfo` section and the section of names."""
    names = b"\0.modinfo\0.shstrtab\0"
    body = modinfo + names
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQ", 1, 62, 1, 0, 0, 64 + len(body))
    header += struct.pack("<IHHHHHH", 0, 64, 0, 0, 64, 3, 2)

    def section(name, offset, size):
        return struct.pack("<IIQQQQIIQQ", name, 1, 0, 0, offset, size, 0, 0, 1, 0)

    table = bytes(64) + section(1, 64, len(modinfo)) + section(10, 64 + len(modinfo), len(names))
    return header + body + table


def test_module_dependencies_are_read_from_the_elf_section():
    made = elf_with(b"license=GPL\0depends=virtio_ring,virtio\0name=virtio_net\0")
    assert module_dependencies(made) == ("virtio_ring", "virtio")


def test_a_module_that_needs_nothing_has_no_dependencies():
    assert module_dependencies(elf_with(b"depends=\0")) == ()
    assert module_dependencies(elf_with(b"license=GPL\0")) == ()


def test_modules_come_after_what_they_need_and_only_once():
    needs = {
        "net": ("virtio", "failover"),
        "virtio": ("ring",),
        "ring": (),
        "failover": (),
        "blk": ("virtio",),
    }
    assert module_order(["net", "blk"], needs) == ("ring", "virtio", "failover", "net", "blk")


def test_a_module_that_is_built_into_the_kernel_is_left_out():
    assert module_order(["vlan"], {"vlan": ("llc",)}) == ("vlan",)
    assert module_order(["vlan"], {}) == ()


def test_the_kernel_package_is_the_dependency_of_the_meta_package():
    assert (
        kernel_package("linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)") == "linux-image-6.1.0-56-cloud-amd64"
    )
    with pytest.raises(HostError, match="no kernel image"):
        kernel_package("libc6")


def test_a_newer_package_or_a_changed_script_makes_another_image():
    versions, scripts = {"busybox-static": "1.35"}, {"rc": b"#!/bin/sh\n"}
    keys = {
        cache_key(versions, scripts),
        cache_key({"busybox-static": "1.36"}, scripts),
        cache_key(versions, {"rc": b"#!/bin/sh\n\n"}),
    }
    assert len(keys) == 3
    assert cache_key(dict(versions), dict(scripts)) in keys


def ingredients():
    return Ingredients(
        busybox=b"b",
        applets=("usr/bin/nc", "sbin/init", "bin/sh", "bin/ip", "bin/busybox"),
        netcat=b"n",
        dhcp6c=b"d",
        loader=b"l",
        libraries={"lib/x86_64-linux-gnu/libc.so.6": b"c"},
        modules={"virtio.ko": b"v", "virtio_net.ko": b"w"},
        scripts=dict.fromkeys(image.SCRIPTS, b"#!/bin/sh\n"),
    )


def test_every_file_of_the_image_lies_in_a_directory_that_comes_before_it():
    seen = {""}
    for entry in contents(ingredients()):
        assert entry.path.rpartition("/")[0] in seen, entry.path
        assert entry.path not in seen
        if stat.S_ISDIR(entry.mode):
            seen.add(entry.path)


def test_modules_are_loaded_in_the_order_they_were_given():
    files = {entry.path: entry for entry in contents(ingredients())}
    assert files["lib/modules/order"].data == b"virtio.ko\nvirtio_net.ko\n"
    assert files["init"].data == b"sbin/init" and files["sbin/init"].data == b"/bin/busybox"


def test_the_image_is_the_same_bytes_each_time():
    assert write_cpio(contents(ingredients())) == write_cpio(contents(ingredients()))


def test_the_reseed_program_runs_and_says_whether_the_kernel_took_it(tmp_path):
    program = tmp_path / "reseed"
    program.write_bytes(reseed_program())
    program.chmod(0o755)
    done = subprocess.run([program], timeout=10)
    assert done.returncode == (0 if os.geteuid() == 0 else 1)


@pytest.mark.parametrize("name", [name for name in image.SCRIPTS if name != "inittab"])
def test_the_scripts_of_the_guest_are_understood_by_a_plain_shell(name):
    done = subprocess.run(["sh", "-n", GUEST / name], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
