"""Watching real guests: what they send, that one dies, that the daemon is killed meanwhile."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.vm.fabric_lab import Lab, lab
from tests.waiting import until

PAIR = """\
name: pair
defaults: {image: micro, cpus: 1, memory: 96M}
networks: {lan: {vlan: 10, subnets: 10.0.0.0/24}}
vms: {a: {networks: [lan]}, b: {networks: [lan]}}
policies: [{name: b-from-a, applied_to: 'vm:b', ingress: [{from: 'vm:a', ports: [icmp]}]}]
"""
PINGS = 80
BUSY = "timeout 60 sh -c 'while [ ! -e /tmp/enough ]; do :; done'"


@pytest.fixture(scope="module")
def up():
    with lab() as host:
        file = host.directory / "pair.vnet.yaml"
        file.write_text(PAIR)
        host.vnet("up", "-f", str(file))
        yield host
        host.vnet("down", "-f", str(file))


def top(host: Lab, *words: str) -> dict[str, Any]:
    return dict(json.loads(host.vnet("top", "--once", "--interval", "1", "-o", "json", *words)))


def events(host: Lab, *words: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in host.vnet("events", "-o", "json", *words).splitlines()]


def test_what_a_guest_sends_is_what_top_says(up: Lab) -> None:
    (address,) = next(row["addresses"] for row in up.json("ps") if row["vm"] == "b")
    target = address.partition("/")[0]
    pinging = up.start("exec", "a", "ping", "-c", str(PINGS), "-i", "0.1", "-s", "500", target)

    def all_second() -> dict[str, Any]:
        found = {vm["vm"]: vm for vm in top(up)["vms"]}
        return found if 5 <= found["a"]["sent_pps"] <= 15 else {}

    vms = until(all_second)
    connections = top(up, "--connections")["connections"]
    pinging.communicate(timeout=60)
    assert vms["a"]["sent_bytes_ps"] == pytest.approx(vms["b"]["received_bytes_ps"], rel=0.3)
    assert vms["a"]["resident_bytes"] > 20 << 20 and vms["a"]["uptime_s"] > 0
    assert [(each["client"], each["server"], each["service"]) for each in connections] == [("a", "b", "icmp")]


def test_guests_that_have_to_share_a_cpu_are_told_to_wait_for_it(up: Lab) -> None:
    for row in up.json("ps"):
        for task in Path(f"/proc/{row['pid']}/task").iterdir():
            os.sched_setaffinity(int(task.name), {min(os.sched_getaffinity(0))})
    busy = [up.start("exec", vm, "sh", "-c", BUSY) for vm in ("a", "b")]
    told = until(
        lambda: events(up, "--kind", "cpu-short"),
        holds=lambda found: {each["subject"] for each in found} == {"a", "b"},
    )
    rows, found = up.json("ps"), {vm["vm"]: vm for vm in top(up)["vms"]}
    waits = [each for each in json.loads(up.vnet("doctor", "-o", "json")) if each["check"] == "guest-waits"]
    for vm, process in zip(("a", "b"), busy, strict=True):
        up.vnet("exec", vm, "touch", "/tmp/enough")
        process.communicate(timeout=60)
    assert re.fullmatch(r"[ab] waits \d\d % of the time for a CPU: 2 vCPUs on \d+ cores?", told[0]["text"])
    assert all(row["ready_percent"] > 10 and row["cpu_percent"] > 5 for row in rows)
    assert all(vm["ready_percent"] > 20 and vm["committed_bytes"] == 160 << 20 for vm in found.values())
    assert {each["level"] for each in waits} == {"warning"}


def test_a_guest_that_dies_and_a_daemon_that_is_killed_are_told(up: Lab) -> None:
    os.kill(next(row["pid"] for row in up.json("ps") if row["vm"] == "a"), signal.SIGKILL)
    for _ in range(100):
        if events(up, "--kind", "vm-died"):
            break
        time.sleep(0.1)
    assert [event["subject"] for event in events(up, "--kind", "vm-died")] == ["a"]
    assert {vm["vm"]: vm["state"] for vm in top(up)["vms"]} == {"a": "crashed", "b": "ready"}
    assert [event["subject"] for event in events(up, "--kind", "port-down")] == ["a.eth0"]
    before = events(up)
    up.kill_daemon()
    after = events(up)
    assert after[: len(before)] == before
    assert [event["kind"] for event in after[len(before) :]][:2] == ["daemon-started", "adopted"]
    assert after[len(before) + 1]["fields"]["not_running"] == ["a"]
    assert up.json("version")["daemon"]["ready"]["ready"]
    up.vnet("start", "a")
    assert events(up)[-1]["kind"] in ("vm-started", "port-up")
