"""A real distribution beside vnet's own guest: told by cloud-init, asked through its own agent."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from tests.vm.fabric_lab import Lab, lab
from tests.waiting import until

TEXT = """\
name: cloud
networks: {lan: {vlan: 10, subnets: [10.0.0.0/24, "fd00:10::/64"], mtu: 1400}}
vms:
  db:
    image: distro
    memory: 512M
    networks: [lan]
    disk: 4G
    cloud_init: {user: ada, runcmd: ["echo $$((6 * 7)) >/var/lib/answer"]}
    healthcheck: {test: "test -e /var/lib/answer", interval: 2s, start_period: 5m}
  web: {image: micro, networks: [lan]}
policies: [{name: db, applied_to: vm:db, ingress: [{from: vm:web, ports: [icmp, 7000/tcp]}]}]
"""
STORE = Path(os.environ.get("VNET_TEST_STORE", "/var/lib/vnet/image-store"))
BOOTS_WITHIN_S = "360"


@pytest.fixture(scope="module")
def host():
    """With a store of its own: what a clone is made of must not lie in the host's."""
    assert (STORE / "names" / "distro").exists(), "`make distro` makes it"
    with lab() as made:
        shutil.copytree(STORE, made.directory / "state" / "image-store", symlinks=True)
        file(made).write_text(TEXT)
        made.vnet("up", "-f", str(file(made)))
        made.vnet("exec", "--timeout", BOOTS_WITHIN_S, "db", "--", "true")
        yield made
        made.vnet("down", "-n", "cloud", "--disks")


def file(host: Lab) -> Path:
    return host.directory / "cloud.vnet.yaml"


def sh(host: Lab, command: str, vm: str = "db") -> str:
    return host.vnet("exec", vm, "--", "sh", "-c", command)


def until_says(host: Lab, command: str, wanted: str) -> None:
    """Waits for a command in the distribution to print what is wanted."""
    until(lambda: sh(host, f"{command} 2>&1 || true"), float(BOOTS_WITHIN_S), 1, lambda said: said == wanted)


pytestmark = pytest.mark.timeout(600)


def test_it_has_the_name_and_the_addresses_of_the_topology(host: Lab) -> None:
    show = "ip -o addr show dev eth0 scope global"
    until_says(host, f"{show} | grep -c inet", "2\n")
    found = sh(host, f"{show}; ip link show dev eth0; hostname")
    assert "10.0.0.2/24" in found and "fd00:10::2/64" in found
    assert "mtu 1400" in found
    assert found.endswith("db\n")


def test_policies_hold_between_it_and_vnet_s_own_guest(host: Lab) -> None:
    host.vnet("exec", "web", "--", "ping", "-c", "1", "-W", "10", "10.0.0.2")
    for port in (7000, 7001):
        sh(host, f"setsid sh -c 'while echo {port} | nc -l -N {port}; do :; done' >/dev/null 2>&1 &")
    asked = "for i in 1 2 3 4 5; do nc -w 5 10.0.0.2 {} && break; sleep 1; done </dev/null"
    assert sh(host, asked.format(7000), "web") == "7000\n"
    host.vnet("exec", "web", "--", "nc", "-w", "3", "10.0.0.2", "7001", expect=1)
    assert "POLICY" in {count["reason"] for count in host.json("drops")["counts"]}


def test_files_go_in_and_come_out_through_its_agent(host: Lab, tmp_path: Path) -> None:
    data = os.urandom(5 << 20)
    (tmp_path / "in").write_bytes(data)
    host.vnet("cp", str(tmp_path / "in"), "db:/var/tmp/there")
    host.vnet("cp", "db:/var/tmp/there", str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == data


def test_the_first_boot_does_what_it_was_told_and_the_health_check_sees_it(host: Lab) -> None:
    until_says(host, "cat /var/lib/answer", "42\n")
    host.until_vm("db", health="healthy")
    blocks = sh(host, "df --output=size -m / | tail -1")
    assert int(blocks) > 3500  # the file system has grown to the disk


def test_ssh_needs_no_rule_and_no_belief_and_gives_the_exit_code(host: Lab) -> None:
    assert host.vnet("ssh", "db", "--", "id", "-un") == "ada\n"
    host.vnet("ssh", "db", "sudo sh -c 'exit 7'", expect=7)
    config = host.vnet("ssh-config", "db")
    assert "User ada" in config and "ProxyCommand" in config and "StrictHostKeyChecking yes" in config


def test_its_own_agent_lets_its_file_systems_stand_still_for_a_backup(host: Lab) -> None:
    sh(host, "echo kept >/var/lib/kept")
    (made,) = host.json("backup", "create", "db", "--freeze", "require")
    assert made["freeze"] == {"is_frozen": True, "why": ""}
    (row,) = host.json("backup", "verify", made["id"])
    assert row["is_good"]
    sh(host, "echo on >>/var/lib/kept && sync")


def test_it_is_found_again_by_the_next_daemon_and_powers_off_when_told(host: Lab) -> None:
    host.kill_daemon()
    assert sh(host, "echo again") == "again\n"
    began_s = time.monotonic()
    host.vnet("stop", "db", "--wait", "120")
    assert time.monotonic() - began_s < 110  # it was not killed
    assert next(each for each in host.json("ps") if each["vm"] == "db")["state"] == "stopped"


def test_a_linked_clone_of_it_is_another_machine_with_what_was_on_its_disk(host: Lab) -> None:
    who = "cat /etc/machine-id /etc/hostname /etc/ssh/ssh_host_ed25519_key.pub /sys/class/net/eth0/address"
    answer = host.json("clone", "-f", str(file(host)), "--linked", "db", "db-2")
    assert answer["linked"] == ["root"]
    host.vnet("up", "-f", str(file(host)))
    told = {}
    for vm in ("db", "db-2"):
        host.vnet("exec", "--timeout", BOOTS_WITHIN_S, vm, "--", "cloud-init", "status", "--wait")
        told[vm] = [line.split()[:2] for line in sh(host, who, vm).splitlines()]
    assert all(mine != others for mine, others in zip(told["db"], told["db-2"], strict=True)), told
    assert sh(host, "cat /var/lib/kept", "db-2") == "kept\non\n"
    sh(host, "echo its own >/var/lib/kept; sync", "db-2")
    assert sh(host, "cat /var/lib/kept") == "kept\non\n"
