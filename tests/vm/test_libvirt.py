"""A VM that a real libvirtd launches is an endpoint: under the same policies, whatever becomes of it."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests import leftovers
from tests.vm.fabric_lab import Lab, lab
from tests.vm.libvirt_lab import Libvirt, libvirtd
from vnet.topology.foreign.libvirt import imported

HOST = f"{leftovers.prefix('lv')}host"
TAP, MAC = "tap-lv", "52:54:00:aa:bb:01"
TEXT = f"""\
name: mixed
networks: {{lan: {{vlan: 10, subnets: {{cidr: 10.0.0.0/24, dhcp: true}}}}}}
vms: {{web: {{interfaces: {{eth0: {{network: lan, addresses: [10.0.0.10/24]}}}}}}}}
endpoints:
  lv: {{tap: {TAP}, network: lan, mac: "{MAC}", addresses: [10.0.0.50/24], dhcp: true, groups: [guests]}}
policies:
  - {{name: to-web, applied_to: vm:web, ingress: [{{from: guests, ports: [icmp, 8080/tcp]}}]}}
"""
BOTH_WAYS = "  - {name: to-lv, applied_to: guests, ingress: [{from: vm:web, ports: [icmp]}]}\n"


@dataclass(frozen=True)
class Mixed:
    """The fabric's host, and the libvirtd beside it."""

    lab: Lab
    libvirt: Libvirt

    def up(self, text: str) -> None:
        file = self.lab.directory / "mixed.vnet.yaml"
        file.write_text(text)
        self.lab.vnet("up", "-f", str(file))

    def state(self) -> str:
        (row,) = [row for row in self.lab.json("ps") if row["vm"] == "lv"]
        return str(row["state"])

    def launch(self) -> None:
        """Start the domain; it asks for its address by DHCP, as such guests do."""
        self.libvirt.create("lv", TAP, MAC)
        ask = "mkdir -p /run/names; ip link set eth0 up; udhcpc -nq -i eth0 -t 20 -T 1 -s /sbin/leased"
        code, said = self.libvirt.run("lv", f"{ask}; ip addr show dev eth0")
        assert code == 0 and "10.0.0.50/24" in said, said

    def lv_pings(self) -> bool:
        return self.libvirt.run("lv", "ping -c1 -W2 10.0.0.10")[0] == 0

    def web_pings(self) -> bool:
        done = self.lab.start("exec", "-n", "mixed", "web", "--", "ping", "-c1", "-W2", "10.0.0.50")
        done.communicate(timeout=60)
        return done.returncode == 0


@pytest.fixture(scope="module")
def mixed() -> Iterator[Mixed]:
    missing = [each for each in ("libvirtd", "virsh") if not shutil.which(each)]
    assert not missing, f"{', '.join(missing)} is missing: tools/setup.sh test installs it"
    subprocess.run(["ip", "netns", "add", HOST], check=True)
    try:
        with lab(HOST) as made:
            made.have_image()
            folder = made.directory / "lv"
            with libvirtd(folder, made.directory / "state/images/micro", HOST) as libvirt:
                found = Mixed(made, libvirt)
                found.up(TEXT)
                assert found.state() == "waiting"
                libvirt.wait()
                found.launch()
                yield found
                libvirt.virsh("destroy", "lv")
                made.vnet("down", "-n", "mixed")
    finally:
        subprocess.run(["ip", "netns", "del", HOST], check=True)


def test_a_domain_of_libvirt_reaches_what_the_policies_open_and_nothing_else(mixed: Mixed) -> None:
    assert mixed.state() == "connected"
    assert mixed.lv_pings()
    assert not mixed.web_pings(), "nothing opens its ingress"
    mixed.lab.vnet(
        "exec", "-n", "mixed", "web", "--", "sh", "-c", "nc -ll -p 8080 -e true & nc -ll -p 8081 -e true &"
    )
    assert mixed.libvirt.run("lv", "nc -w2 10.0.0.10 8080 </dev/null")[0] == 0
    assert mixed.libvirt.run("lv", "nc -w2 10.0.0.10 8081 </dev/null")[0] != 0
    mixed.up(TEXT + BOTH_WAYS)
    assert mixed.web_pings()
    mixed.up(TEXT)
    assert not mixed.web_pings()


def test_it_cannot_pretend_to_be_another(mixed: Mixed) -> None:
    mixed.libvirt.run("lv", "ip addr del 10.0.0.50/24 dev eth0; ip addr add 10.0.0.66/24 dev eth0")
    assert not mixed.lv_pings()
    mixed.libvirt.run("lv", "ip addr del 10.0.0.66/24 dev eth0; ip addr add 10.0.0.50/24 dev eth0")
    assert mixed.lv_pings()
    drops = mixed.lab.json("drops", "-n", "mixed")
    assert {each["reason"] for each in drops["counts"]} & {"SPOOF_IP", "SPOOF_ARP"}, drops["counts"]


def test_its_death_is_seen_and_a_new_start_goes_on_where_it_was(mixed: Mixed) -> None:
    mixed.libvirt.virsh("destroy", "lv")
    deadline_s = time.monotonic() + 5
    while mixed.state() != "waiting" and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert mixed.state() == "waiting"
    mixed.lab.kill_daemon()
    mixed.launch()  # no daemon is needed for it: the TAP and the rules are the kernel's
    assert mixed.lv_pings()
    assert mixed.state() == "connected"
    assert "nothing to change" in _planned(mixed)


def _planned(mixed: Mixed) -> str:
    return mixed.lab.vnet("plan", "-f", str(mixed.lab.directory / "mixed.vnet.yaml"))


def test_what_starts_and_stops_vms_says_that_it_is_not_one(mixed: Mixed) -> None:
    for words in (("stop", "lv"), ("start", "lv"), ("exec", "lv", "--", "true")):
        assert "endpoint" in mixed.lab.vnet(words[0], "-n", "mixed", *words[1:], expect=1)


def test_what_libvirt_says_of_the_domain_can_be_imported(mixed: Mixed) -> None:
    document = imported({"lv.xml": mixed.libvirt.virsh("dumpxml", "lv")}, "lab")
    (vm,) = document["vms"].values()
    assert (vm["memory"], vm["cpus"], vm["interfaces"]["eth0"]["mac"]) == ("128M", 1, MAC)
    assert vm["boot"]["kernel"].endswith("/vmlinuz")
