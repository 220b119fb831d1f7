"""Profiles on real guests: an address that moves from one to another, limits that change under traffic."""

from __future__ import annotations

import time

import pytest

from tests.vm.fabric_lab import Lab, lab
from tests.waiting import until

TEXT = """\
name: moving
defaults: {image: micro, cpus: 1, memory: 96M}
networks: {lan: {vlan: 10, subnets: 10.0.0.0/24}}
profiles:
  balancer: {allowed_address_pairs: [{address: 10.0.0.100}]}
  quiet: {storm_control: {broadcast: 500}}
vms:
  a: {interfaces: {eth0: {network: lan, profile: balancer}}}
  b: {interfaces: {eth0: {network: lan, profile: balancer}}}
  client: {interfaces: {eth0: {network: lan, profile: quiet}}}
policies: [{name: ping, applied_to: any, ingress: [{from: any, ports: [icmp]}]}]
"""
VIP = "10.0.0.100"


@pytest.fixture(scope="module")
def host():
    with lab() as made:
        yield made


def written(tmp_path, text: str) -> str:
    file = tmp_path / "moving.vnet.yaml"
    file.write_text(text)
    return str(file)


def sh(host: Lab, vm: str, command: str) -> str:
    return host.vnet("exec", vm, "--", "sh", "-c", command)


def macs(host: Lab) -> dict[str, str]:
    return {vm: host.json("inspect", vm)["nics"][0]["mac"] for vm in ("a", "b")}


def test_an_address_moves_from_one_guest_to_the_other(host: Lab, tmp_path) -> None:
    host.vnet("up", "-f", written(tmp_path, TEXT))
    known = macs(host)
    sh(host, "a", f"ip address add {VIP}/24 dev eth0")
    assert " 0% packet loss" in sh(host, "client", f"ping -c 3 -W 2 {VIP}")
    assert known["a"] in sh(host, "client", f"grep -w {VIP} /proc/net/arp")
    sh(host, "a", f"ip address del {VIP}/24 dev eth0")
    sh(host, "b", f"ip address add {VIP}/24 dev eth0; arping -c 2 -U -I eth0 -s {VIP} {VIP} || true")
    assert known["b"] in sh(host, "client", f"grep -w {VIP} /proc/net/arp"), "the announcement has reached it"
    assert " 0% packet loss" in sh(host, "client", f"ping -c 3 -W 2 {VIP}")
    sh(host, "client", f"ip address add {VIP}/24 dev eth0; ping -c 1 -W 1 -I {VIP} 10.0.0.2 || true")
    sh(host, "client", f"ip address del {VIP}/24 dev eth0")
    assert {count["reason"] for count in host.json("drops")["counts"]} & {"SPOOF_ARP", "SPOOF_IP"}


def test_limits_change_under_traffic_and_lose_none_of_it(host: Lab, tmp_path) -> None:
    host.vnet("up", "-f", written(tmp_path, TEXT))
    sh(host, "client", "ping -i 0.005 -c 800 10.0.0.2 >/tmp/ping.log 2>&1 &")
    time.sleep(0.5)
    file = written(tmp_path, TEXT.replace("broadcast: 500", "broadcast: 5"))
    (line,) = host.json("plan", "-f", file)["changes"]
    assert (line["kind"], line["what"]) == ("port", "live: broadcast pps 500 → 5")
    assert host.json("up", "-f", file)["actions"] == ["change the limits of port client.eth0"]
    shown = until(lambda: sh(host, "client", "tail -n 3 /tmp/ping.log"), holds=lambda text: "loss" in text)
    assert " 0% packet loss" in shown, shown


def test_a_guest_that_asks_for_all_at_once_is_stopped(host: Lab, tmp_path) -> None:
    host.vnet("up", "-f", written(tmp_path, TEXT.replace("broadcast: 500", "broadcast: 5")))
    sh(host, "client", "for i in $(seq 150 220); do ping -c 1 -W 1 10.0.0.$i >/dev/null & done; wait; true")
    counts = {count["reason"]: count["packets"] for count in host.json("drops")["counts"]}
    assert counts["STORM"] > 50
    assert " 0% packet loss" in sh(host, "client", "ping -c 3 -W 2 10.0.0.2"), "what is for one goes on"
