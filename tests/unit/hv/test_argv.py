"""The QEMU command line, compared with what is expected word by word: `GOLDEN=rewrite` writes it anew."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.hv.machines import MIB, machine
from vnet.base.errors import HostError
from vnet.hv.argv import (
    DiskArgument,
    Memory,
    NicArgument,
    command_line,
    escape,
    nic_device,
    template_key,
)
from vnet.hv.built import built_for
from vnet.hv.disk import Disk, plugged
from vnet.hv.pc import Pc

EXPECTED = Path(__file__).parent / "expected"

NICS = (NicArgument(0x525400123450, 5), NicArgument(0x525400123451, 6, vhost_fd=9))
COLD = replace(machine(2), nics=NICS, console_log_fd=4)
CLONE = replace(machine(), memory=Memory.CLONE, memory_path="/proc/self/fd/6")
TEMPLATE = replace(machine(), memory=Memory.TEMPLATE, memory_path="/proc/self/fd/6")
KVM = replace(machine(), accel="kvm", built=built_for(2, 96 * MIB, 1, "tcg"))


@pytest.mark.parametrize(
    ("name", "made"), [("cold", COLD), ("clone", CLONE), ("template", TEMPLATE), ("kvm", KVM)]
)
def test_command_line_is_the_expected_one(name, made):
    check_expected(name, made)


def check_expected(name, made):
    text = "\n".join(command_line(made)) + "\n"
    path = EXPECTED / f"{name}.txt"
    if os.environ.get("GOLDEN") == "rewrite":
        path.write_text(text)
    assert text == path.read_text()


def key(made, image="micro-1", version="QEMU 7.2.22"):
    return template_key(made, image=image, qemu_version=version)


def test_a_template_serves_every_guest_of_the_same_machine():
    other = replace(
        CLONE, name="t/db", uuid="0", run_dir="/elsewhere", kernel="/k", initrd="/i", memory_path="/m"
    )
    assert key(CLONE) == key(other) == key(COLD) == key(TEMPLATE)


@pytest.mark.parametrize(
    "other",
    [
        replace(CLONE, built=built_for(1, 128 * MIB, 1, "tcg")),
        replace(CLONE, built=built_for(2, 96 * MIB, 1, "tcg")),
        replace(CLONE, accel="kvm"),
        replace(CLONE, built=built_for(1, 96 * MIB, 8, "tcg")),
    ],
)
def test_a_template_is_bound_to_its_machine(other):
    assert key(CLONE) != key(other)


def test_a_template_is_bound_to_the_image_and_to_the_build_of_qemu():
    assert len({key(CLONE), key(CLONE, image="micro-2"), key(CLONE, version="QEMU 7.2.23")}) == 3


def test_a_clone_differs_from_its_template_only_in_sharing_and_in_waiting_for_state():
    clone, template = command_line(CLONE), command_line(TEMPLATE)
    assert set(clone) - set(template) == {
        "-incoming",
        "defer",
        "memory-backend-file,id=ram,size=100663296,mem-path=/proc/self/fd/6,share=off",
    }
    assert {word for word in set(template) - set(clone) if "share=on" not in word} == set()


def test_a_socket_path_that_the_kernel_would_cut_off_is_refused_with_its_length():
    deep = "/run/vnet/" + "x" * 90
    with pytest.raises(HostError, match=r"has 111 bytes, the kernel takes 107: choose shorter names"):
        command_line(replace(machine(), run_dir=deep))


def test_the_longest_path_that_fits_is_taken():
    folder = "/" + "x" * (107 - len("/console.sock") - 1)
    assert any(f"{folder}/console.sock" in word for word in command_line(replace(machine(), run_dir=folder)))


@pytest.mark.parametrize(("nics", "ports"), [(0, 8), (1, 8), (5, 8), (6, 16), (13, 16)])
def test_slots_for_nics_come_in_eights_and_three_are_free(nics, ports):
    assert built_for(1, 96 * MIB, nics, "tcg").slots == ports
    assert sum(word.startswith("pcie-root-port") for word in command_line(machine(nics))) == ports


def test_a_hot_plugged_nic_has_the_properties_of_one_that_was_there_from_the_start():
    properties = nic_device(0, 0x525400123450)
    assert properties["mac"] == "52:54:00:12:34:50"
    line = next(word for word in command_line(COLD) if word.startswith("virtio-net-pci"))
    assert line == "virtio-net-pci," + ",".join(f"{k}={v}" for k, v in properties.items() if k != "driver")


@given(st.text())
def test_a_value_with_commas_stays_one_value(text):
    assert escape(text).replace(",,", ",") == text
    assert "," not in escape(text).replace(",,", "")


def test_the_sandbox_allows_neither_new_processes_nor_new_rights():
    words = command_line(COLD)
    sandbox = words[words.index("-sandbox") + 1]
    assert sandbox == "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
    assert "-daemonize" not in words  # it forks, which the sandbox forbids


# ---- PCs ---------------------------------------------------------------------------------------


def test_a_pc_has_firmware_a_drive_and_a_root_disk_and_names_no_file_by_its_path():
    root, data = plugged((Disk("root", 64 * MIB, is_root=True), Disk("data", 64 * MIB)), 1)
    disks = (DiskArgument(root, 11, 12, 1), DiskArgument(data, 13, None, 2))
    made = replace(
        machine(), disks=disks, pc=Pc(iso_fd=14, code_fd=15, variables_fd=16, seed_fd=17), console_log_fd=4
    )
    check_expected("pc", made)
    words = command_line(made)
    blocks = [json.loads(words[i + 1]) for i, word in enumerate(words) if word == "-blockdev"]
    files = [each["file"]["filename"] for each in blocks] + [
        each["backing"]["file"]["filename"] for each in blocks if each.get("backing")
    ]
    assert all(file.startswith("/dev/fdset/") for file in files)
    assert len(set(files)) == len(files) == 7


def test_a_kernel_of_its_own_says_what_it_does_on_the_console_unless_told_otherwise():
    made = replace(machine(), pc=Pc(kernel="/proc/self/fd/9"))
    words = command_line(made)
    assert words[words.index("-append") + 1] == "console=ttyS0"
    assert "-initrd" not in words
    quiet = command_line(replace(made, pc=Pc(kernel="/proc/self/fd/9", cmdline="quiet")))
    assert quiet[quiet.index("-append") + 1] == "quiet"
