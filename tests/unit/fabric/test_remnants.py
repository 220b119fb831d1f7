"""What a fabric has left is found by its names, and what belongs to one that is up is left alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vnet.fabric.live import remnants
from vnet.fabric.symptoms import Process


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("run", "state", "bpf"):
        monkeypatch.setenv(f"VNET_{name.upper()}_DIR", str(tmp_path / name))
    monkeypatch.setenv("VNET_NETNS_PREFIX", "vnt-")
    monkeypatch.setattr(remnants, "NETNS_DIR", tmp_path / "netns")
    return tmp_path


def test_namespaces_of_a_fabric_and_of_its_parts_are_its_own(host: Path) -> None:
    for name in (
        "vnt-lab",
        "vnt-lab.lan",
        "vnt-lab.~edge",
        "vnt-lab+drill-7",
        "vnt-old",
        "vnt-old.lan",
        "others",
    ):
        (host / "netns" / name).mkdir(parents=True)
    assert list(remnants.namespaces({"lab"})) == ["vnt-old", "vnt-old.lan"]


def test_pins_sockets_and_service_files_are_looked_for(host: Path) -> None:
    for name in (
        "bpf/lab",
        "bpf/lab+ready",
        "bpf/old",
        "run/fabrics/lab",
        "run/fabrics/old",
        "state/services/old",
    ):
        (host / name).mkdir(parents=True)
    found = [path.removeprefix(f"{host}/") for path in remnants.folders({"lab"})]
    assert found == ["bpf/old", "run/fabrics/old", "state/services/old"]


def test_processes_are_known_by_program_and_folder(host: Path) -> None:
    sleep = ["-c", "import time; time.sleep(30)"]
    ours = f"socket,path={host}/run/fabrics/old/vms/a/qmp.sock"
    with (
        subprocess.Popen(["qemu-system-x86_64", *sleep, ours], executable=sys.executable) as qemu,
        subprocess.Popen(["less", *sleep, ours], executable=sys.executable) as reader,
    ):
        assert list(remnants.processes(set())) == [Process(qemu.pid, "qemu", "old")]
        assert list(remnants.processes({"old"})) == []
        for each in (qemu, reader):
            each.kill()
