"""Real guests that wait for each other, die and come back."""

from __future__ import annotations

import os
import signal

import pytest

from tests.vm.fabric_lab import Lab, lab
from tests.waiting import until

TEXT = """\
name: life
defaults: {image: micro, cpus: 1, memory: 96M}
networks: {lan: {vlan: 10, subnets: 10.0.0.0/24}}
vms:
  web: {networks: [lan], depends_on: {db: {condition: healthy}}}
  db:
    networks: [lan]
    restart: on-failure
    healthcheck: {test: "! cat /tmp/ill", interval: 1s, retries: 1}
policies: [{name: ping, applied_to: any, ingress: [{from: any, ports: [icmp]}]}]
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    file = tmp_path_factory.mktemp("life") / "life.vnet.yaml"
    file.write_text(TEXT)
    with lab() as made:
        made.vnet("up", "-f", str(file))
        yield made
        made.vnet("down", "-f", str(file))


def vm(host: Lab, name: str) -> dict:
    return next(row for row in host.json("ps") if row["vm"] == name)


def test_a_vm_that_another_waits_for_is_healthy_before_that_one_starts(host: Lab) -> None:
    events = host.vnet("events", "--since", "1h").splitlines()
    order = [line for line in events if "vm-started" in line or "vm-healthy" in line]
    assert "db" in order[0]
    assert "web" in order[-1]
    assert host.until_vm("db", health="healthy")["state"] == "ready"
    assert "," not in next(line for line in host.vnet("ps").splitlines() if " db " in line).split("10.0.0")[0]


def test_a_check_that_fails_shows_and_says_why(host: Lab) -> None:
    host.vnet("exec", "db", "--", "sh", "-c", "echo no memory >/tmp/ill")
    assert "no memory" in host.until_vm("db", health="unhealthy")["detail"]
    host.vnet("exec", "db", "--", "rm", "/tmp/ill")
    assert host.until_vm("db", health="healthy")["detail"] == ""


def test_a_vm_whose_qemu_is_killed_is_started_again(host: Lab) -> None:
    before = vm(host, "db")["pid"]
    os.kill(before, signal.SIGKILL)
    until(lambda: vm(host, "db")["pid"] not in (None, before))
    assert host.until_vm("db", state="ready")["pid"] != before
    host.vnet("exec", "web", "--", "ping", "-c", "1", "-W", "5", "10.0.0.2")
    assert "vm-restarted" in host.vnet("events", "--since", "1h")


def test_a_vm_that_died_while_no_daemon_ran_is_started_again_by_the_next(host: Lab) -> None:
    before = host.until_vm("db", state="ready")["pid"]
    host.kill_daemon()
    os.kill(before, signal.SIGKILL)
    row = host.until_vm("db", state="ready")
    assert row["pid"] not in (None, before)


def test_pause_resume_and_reset(host: Lab) -> None:
    host.vnet("pause", "web")
    assert vm(host, "web")["state"] == "paused"
    assert "resume it" in host.vnet("exec", "web", "--", "true", expect=1)
    host.vnet("resume", "web")
    host.vnet("exec", "web", "--", "touch", "/tmp/there")
    host.vnet("reset", "web")
    host.vnet("exec", "web", "--", "ping", "-c", "1", "-W", "5", "10.0.0.2")
    host.vnet("exec", "web", "--", "test", "!", "-e", "/tmp/there")
