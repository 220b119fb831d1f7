"""What the host lacks is said all at once, each with what to do."""

from pathlib import Path

import pytest

from vnet.base.errors import HostError
from vnet.fabric.live import host
from vnet.fabric.live.host import Check


def test_everything_that_is_missing_is_named_with_what_to_do(monkeypatch):
    found = (
        Check("root", False, "uid 1000", "use sudo"),
        Check("/dev/net/tun", False, "there is no such device", "modprobe tun"),
        Check("kernel", True, "6.1"),
        Check("/dev/kvm", False, "not there", "slower", needed=False),
    )
    monkeypatch.setattr(host, "checks", lambda: found)
    with pytest.raises(HostError) as raised:
        host.require()
    assert "root: uid 1000; use sudo" in str(raised.value)
    assert "/dev/net/tun: there is no such device; modprobe tun" in str(raised.value)
    assert "kvm" not in str(raised.value)


def test_a_missing_program_names_its_package(monkeypatch):
    monkeypatch.setattr(host.shutil, "which", lambda program, path=None: None)
    missing = {check.name: check.hint for check in host.checks() if not check.ok}
    assert missing["qemu-system-x86_64"] == "install it with `apt install qemu-system-x86`"
    assert "apt install dnsmasq-base" in missing["dnsmasq"]


def test_pins_outside_a_bpf_file_system_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("VNET_BPF_DIR", str(tmp_path))
    (check,) = [check for check in host.checks() if check.name == "bpf file system"]
    assert not check.ok
    assert "mount -t bpf" in check.hint


def test_the_host_can_be_looked_at_by_anybody():
    assert {check.name for check in host.checks()} >= {"root", "kernel", "/dev/net/tun"}
    assert host.available_memory_bytes() > 0
    assert host.boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
