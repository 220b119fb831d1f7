"""What real guests and their QEMUs tell of memory and disks, also when one of them is slow or hangs."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.vm.fabric_lab import Lab, lab
from tests.waiting import until

TEXT = """\
name: vitals
defaults: {image: micro, cpus: 1, memory: 96M}
networks: {lan: {vlan: 10, subnets: 10.0.0.0/24}}
vms:
  db: {networks: [lan], disks: [{name: data, size: 64M}]}
  idle: {networks: [lan]}
"""
BACKEND = "/machine/peripheral/blk0/virtio-backend"
WRITES = "while [ ! -e /tmp/enough ]; do dd if=/dev/zero of=/dev/disk/data bs=4k count=1 conv=fsync; done"


@pytest.fixture(scope="module")
def up():
    with lab() as host:
        file = host.directory / "vitals.vnet.yaml"
        file.write_text(TEXT)
        host.vnet("up", "-f", str(file))
        yield host
        host.vnet("down", "-n", "vitals", "--disks")


def told(host: Lab, vm: str, interval_s: float = 1.0) -> dict[str, Any]:
    words = ("top", "--once", "--interval", str(interval_s), "-o", "json")
    return next(each for each in json.loads(host.vnet(*words))["vms"] if each["vm"] == vm)


def until_told(host: Lab, vm: str, holds) -> dict[str, Any]:
    """What is told once it is as it should be; a guest tells every five seconds."""
    return until(lambda: told(host, vm, 0.3), holds=holds)


def sh(host: Lab, command: str) -> str:
    return host.vnet("exec", "db", "--", "sh", "-c", command)


@contextmanager
def writes(host: Lab) -> Iterator[None]:
    """Of 4 KiB each, one after the other, for as long as this lasts."""
    writing = host.start("exec", "db", "sh", "-c", f"timeout 120 sh -c '{WRITES}' 2>/dev/null")
    try:
        yield
    finally:
        sh(host, "touch /tmp/enough")
        writing.communicate(timeout=60)
        sh(host, "rm /tmp/enough")


def ask_qemu(host: Lab, command: str, **arguments: object) -> object:
    """By the socket that is for tools."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(host.directory / "run" / "fabrics" / "vitals" / "vms" / "db" / "tools.sock"))
        lines = peer.makefile("rw")
        lines.readline()
        for execute, given in (("qmp_capabilities", {}), (command, arguments)):
            lines.write(json.dumps({"execute": execute, "arguments": given}) + "\n")
            lines.flush()
            while "event" in (answer := json.loads(lines.readline())):
                pass
        return answer["return"]


def events(host: Lab, kind: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in host.vnet("events", "--kind", kind, "-o", "json").splitlines()]


def until_event(host: Lab, kind: str, timeout_s: float) -> dict[str, Any]:
    return until(lambda: events(host, kind), timeout_s)[0]


def test_a_guests_memory_is_what_it_says_itself(up: Lab) -> None:
    before = until_told(up, "db", lambda vm: vm["guest_memory"])["guest_memory"]
    inside = {
        line.split()[0]: int(line.split()[1]) << 10 for line in sh(up, "cat /proc/meminfo").splitlines()
    }
    assert before["total_bytes"] == inside["MemTotal:"]
    assert before["available_bytes"] == pytest.approx(inside["MemAvailable:"], abs=8 << 20)
    sh(up, "dd if=/dev/zero of=/tmp/eaten bs=1M count=12 2>/dev/null")
    less = before["available_bytes"] - (8 << 20)
    after = until_told(up, "db", lambda vm: vm["guest_memory"]["available_bytes"] < less)["guest_memory"]
    sh(up, "rm /tmp/eaten")
    assert after["available_bytes"] == pytest.approx(before["available_bytes"] - (12 << 20), abs=4 << 20)
    row = next(row for row in up.json("ps") if row["vm"] == "db")
    assert row["guest_memory_bytes"] == before["total_bytes"]


def test_what_the_balloon_takes_is_told(up: Lab) -> None:
    ask_qemu(up, "balloon", value=88 << 20)
    taken = until_told(up, "db", lambda vm: vm["ballooned_bytes"] == 8 << 20)["ballooned_bytes"]
    ask_qemu(up, "balloon", value=96 << 20)
    assert taken == 8 << 20


def test_what_a_disk_is_asked_for_is_what_top_says(up: Lab) -> None:
    with writes(up):
        found = until_told(up, "db", lambda vm: vm["disks"] and vm["disks"][0]["writes_ps"] > 0)
    (disk,) = found["disks"]
    assert disk["name"] == "data"
    assert disk["write_bytes_ps"] == pytest.approx(4096 * disk["writes_ps"], rel=0.01)
    assert 0 < disk["latency_ms"]["writes"]["p50"] <= disk["latency_ms"]["writes"]["p99"]
    assert told(up, "idle")["disks"] == []
    text = up.vnet("top", "--once", "--resources", "--interval", "0.3")
    assert re.search(r"^VM +USED% AVAIL BALLN +SWAP", text, re.MULTILINE)


def metrics(host: Lab) -> dict[str, float]:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(host.directory / "run" / "vnetd.sock"))
        peer.sendall(b"GET /metrics HTTP/1.0\r\nHost: vnet\r\n\r\n")
        text = b"".join(iter(lambda: peer.recv(65536), b"")).decode()
    pairs = (line.rpartition(" ") for line in text.splitlines() if line.startswith("vnet_disk_write"))
    return {name: float(value) for name, _, value in pairs}


def test_a_slow_disk_is_told_in_words(up: Lab) -> None:
    """QEMU itself keeps it at five operations a second."""
    name = 'vnet_disk_write_latency_seconds_bucket{fabric="vitals",vm="db",disk="data",le="%s"}'
    before = metrics(up)
    limits = dict.fromkeys(("bps", "bps_rd", "bps_wr", "iops_rd", "iops_wr"), 0)
    ask_qemu(up, "block_set_io_throttle", id=BACKEND, iops=5, **limits)
    with writes(up):
        event = until_event(up, "disk-slow", 40)
        found = json.loads(up.vnet("doctor", "-o", "json"))
        ask_qemu(up, "block_set_io_throttle", id=BACKEND, iops=0, **limits)
    after = metrics(up)
    assert re.fullmatch(
        r"db's disk data answers \d+ % of its (reads|writes|flushes) only after \d+ ms", event["text"]
    )
    slow = [after[name % bound] - before[name % bound] for bound in ("0.1", "+Inf")]
    assert slow[1] - slow[0] >= 5
    assert any("disk data answers" in each["text"] for each in found)


def test_a_qemu_that_hangs_is_told_and_keeps_nobody_waiting(up: Lab) -> None:
    pid = next(row["pid"] for row in up.json("ps") if row["vm"] == "db")
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        told(up, "idle", 0.3)
        assert time.monotonic() - began < 10
        event = until_event(up, "qemu-silent", 15)
        assert re.fullmatch(r"db's QEMU has not answered for \d+ s", event["text"])
    finally:
        os.kill(pid, signal.SIGCONT)
    assert until_told(up, "db", lambda vm: vm["qemu_silent_s"] < 1)["qemu_silent_s"] < 1


def test_vitals_are_told_by_the_next_daemon_and_counts_go_on(up: Lab) -> None:
    name = 'vnet_disk_write_latency_seconds_count{fabric="vitals",vm="db",disk="data"}'
    before = metrics(up)[name]
    up.kill_daemon()
    assert Path(f"/proc/{next(row['pid'] for row in up.json('ps') if row['vm'] == 'db')}").exists()
    until_told(up, "db", lambda vm: vm["guest_memory"])
    assert metrics(up)[name] == before > 0
