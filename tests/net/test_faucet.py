"""Faucet drives the switch: VLANs, an ACL, a trunk; the same on Open vSwitch, as a check of the scenario.

Hosts 1 and 2 are in VLAN 100, host 3 in 200, host 4 at a trunk of both. What comes in by port 1 must not go
to TCP port 5001.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.exams.conntrack.hosts import Host, until
from tests.net.controller_lab import ROOT, SWITCHES, ControllerLab
from tests.ovs.harness import why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")

VENV = ROOT / "build" / "venv-faucet"
METRICS = 9302
"""Where Faucet tells its metrics."""
CONFIG = """
vlans:
  office: {vid: 100}
  guests: {vid: 200}
acls:
  no-5001:
    - rule: {eth_type: 0x800, ip_proto: 6, tcp_dst: 5001, actions: {allow: false}}
    - rule: {actions: {allow: true}}
dps:
  exam:
    dp_id: 1
    hardware: Open vSwitch
    interfaces:
      1: {native_vlan: office, acl_in: no-5001}
      2: {native_vlan: office}
      3: {native_vlan: guests}
      4: {tagged_vlans: [office, guests]}
"""
BLOCKED, OPEN = 5001, 5002
READY = "Cold start configuring DP"

OF_ITS_OWN = "send_flow_msgs: DP not up"
"""What Faucet says whenever a switch connects, of messages that it makes too early."""


class Faucet:
    """Faucet in charge of a switch, and the hosts."""

    def __init__(self, lab: ControllerLab) -> None:
        self.lab, self.hosts = lab, lab.hosts
        assert (VENV / "bin" / "faucet").exists(), "Faucet is not installed: run `tools/setup.sh faucet`"
        (lab.folder / "faucet.yaml").write_text(CONFIG)
        environment = {
            "FAUCET_CONFIG": str(lab.folder / "faucet.yaml"),
            "FAUCET_LOG": str(lab.folder / "faucet.log"),
            "FAUCET_EXCEPTION_LOG": str(lab.folder / "exceptions.log"),
            "FAUCET_EVENT_SOCK": "",
            "FAUCET_PROMETHEUS_ADDR": "127.0.0.1",
            "PATH": f"{VENV / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin",
        }
        command = ("--ryu-ofp-listen-host=127.0.0.1", "--ryu-config-file=")
        lab.spawn("process", str(VENV / "bin" / "faucet"), *command, environment=environment)
        lab.start_switch()
        lab.await_log("faucet", READY)

    def metric(self, name: str, **labels: object) -> list[float]:
        """The values of a metric whose labels are these."""
        found = re.findall(rf"^{name}\{{(.*)\}} (\S+)$", self.lab.http(METRICS), re.MULTILINE)
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return [float(value) for text, value in found if all(part in text for part in wanted)]

    def complaints(self) -> str:
        """What went wrong in Faucet's eyes."""
        lines = self.lab.log("faucet").splitlines()
        errors = [line for line in lines if " ERROR " in line and not line.endswith(OF_ITS_OWN)]
        return self.lab.log("exceptions") + "\n".join(errors)


@pytest.fixture(scope="module", params=SWITCHES)
def faucet(request: pytest.FixtureRequest) -> Iterator[Faucet]:
    with ControllerLab(request.param, hosts=4) as lab:
        _configure(lab.hosts)
        driven = Faucet(lab)
        lab.await_answer(1, "10.1.0.2")
        yield driven
        assert driven.complaints() == ""


def _configure(hosts: dict[int, Host]) -> None:
    hosts[1].configure("10.1.0.1/24", "10.2.0.1/24")  # with an address of the other VLAN's, to reach across
    hosts[2].configure("10.1.0.2/24")
    hosts[3].configure("10.2.0.3/24", "10.1.0.3/24")
    hosts[1].checksum_in_software()  # the VLAN devices of host 4 take frames as they are
    hosts[4].vlan(100, "10.1.0.4/24")
    hosts[4].vlan(200, "10.2.0.4/24")
    for host in hosts.values():
        host.serve_http(BLOCKED)
        host.serve_http(OPEN)


def test_hosts_of_a_vlan_reach_each_other(faucet: Faucet) -> None:
    assert faucet.hosts[1].ping("10.1.0.2").all_answered
    assert faucet.hosts[2].ping("10.1.0.1").all_answered


def test_hosts_of_different_vlans_do_not(faucet: Faucet) -> None:
    """Both have addresses of the other's net, so only the VLAN is between them."""
    assert faucet.hosts[1].ping("10.2.0.3", expect=False).none_answered
    assert faucet.hosts[1].ping("10.1.0.3", expect=False).none_answered
    assert faucet.hosts[3].ping("10.1.0.2", expect=False).none_answered


def test_a_trunk_carries_both_vlans(faucet: Faucet) -> None:
    assert faucet.hosts[1].ping("10.1.0.4").all_answered
    assert faucet.hosts[3].ping("10.2.0.4").all_answered


def test_an_acl_blocks_one_tcp_port_and_no_other(faucet: Faucet) -> None:
    assert not faucet.hosts[1].get_http("10.1.0.2", BLOCKED, expect=False)
    assert faucet.hosts[1].get_http("10.1.0.2", OPEN)
    assert faucet.hosts[2].get_http("10.1.0.1", BLOCKED), "the ACL is of port 1"
    assert faucet.hosts[1].get_http("10.1.0.4", OPEN), "over the trunk"


def test_faucet_learns_where_hosts_are(faucet: Faucet) -> None:
    faucet.hosts[4].ping("10.1.0.1")
    for number, vid in ((1, 100), (2, 100), (4, 100)):
        mac = int(faucet.hosts[number].mac.replace(":", ""), 16)
        until(
            lambda number=number, vid=vid, mac=mac: (
                mac in faucet.metric("learned_macs", port=number, vlan=vid)
            ),
            f"host {number} is learned",
            10,
        )
        assert f"L2 learned on Port {number} {faucet.hosts[number].mac}" in faucet.lab.log("faucet")


def test_a_port_that_goes_down_and_up_is_served_again(faucet: Faucet) -> None:
    faucet.hosts[2].ip("link set eth0 down")
    until(lambda: faucet.metric("port_status", port=2) == [0], "Faucet knows that port 2 is down", 10)
    assert faucet.hosts[1].ping("10.1.0.2", expect=False).none_answered
    faucet.hosts[2].ip("link set eth0 up")
    until(lambda: faucet.metric("port_status", port=2) == [1], "Faucet knows that port 2 is up", 10)
    faucet.lab.await_answer(1, "10.1.0.2")


@pytest.mark.parametrize("faucet", ["vnet"], indirect=True)
def test_no_packet_is_lost_while_the_agent_is_dead_and_taken_over(faucet: Faucet) -> None:
    """Open vSwitch in user space forwards nothing without its process.

    Then Faucet configures the switch anew, from an empty one: what that costs is its own choice.
    """
    command = f"ip netns exec {faucet.hosts[1].netns} ping -q -i 0.002 -c 500 10.1.0.2".split()
    faucet.hosts[1].ping("10.1.0.2")
    connected = faucet.lab.log("faucet").count(READY)
    faucet.lab.kill_switch()
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert "500 received, 0% packet loss" in done.stdout, done.stdout
    faucet.lab.start_switch()
    faucet.lab.await_log("faucet", READY, connected + 1)
    faucet.lab.await_answer(1, "10.1.0.2")
    assert faucet.hosts[1].ping("10.2.0.3", expect=False).none_answered
    assert not faucet.hosts[1].get_http("10.1.0.2", BLOCKED, expect=False)
    assert faucet.hosts[1].get_http("10.1.0.2", OPEN)
