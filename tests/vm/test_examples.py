"""The topologies that people know, on real guests: brought up, their claims proved and probed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.vm.fabric_lab import ROOT, Lab, lab

TOPOLOGIES = ROOT / "topologies"
SMALL = ("flat", "tenant-red", "tenant-blue", "ids-mirror")


def file(name: str) -> str:
    return str(TOPOLOGIES / f"{name}.vnet.yaml")


@pytest.fixture(scope="module")
def host() -> Iterator[Lab]:
    with lab() as made:
        with (
            ThreadPoolExecutor() as threads
        ):  # the first one makes the template that the others are cloned from
            made.vnet("up", "-f", file(SMALL[0]))
            list(threads.map(lambda name: made.vnet("up", "-f", file(name)), SMALL[1:]))
        yield made


def sh(host: Lab, fabric: str, vm: str, command: str) -> str:
    return host.vnet("exec", "-n", fabric, vm, "--", "sh", "-c", command)


def test_the_small_ones_hold_what_they_claim(host: Lab) -> None:
    with ThreadPoolExecutor() as threads:
        rows = list(threads.map(lambda name: host.json("verify", "--probe", "-n", name), SMALL))
    for name, claims in zip(SMALL, rows, strict=True):
        assert claims and all(claim["passed"] for claim in claims), (name, claims)


def test_tenants_with_the_same_vlans_addresses_and_macs_do_not_meet(host: Lab) -> None:
    for fabric in ("tenant-red", "tenant-blue"):
        serve = f"echo {fabric} >/tmp/who; (while :; do nc -l -p 445 </tmp/who; done) >/dev/null 2>&1 &"
        sh(host, fabric, "files", serve)
    ask = "nc -w 2 10.0.0.12 445 </dev/null; true"
    assert sh(host, "tenant-red", "desk", ask) == "tenant-red\n"
    assert sh(host, "tenant-blue", "desk", ask) == ""
    for command in ("ping -c 1 -W 2 10.0.0.12", "ping -c 1 -W 2 fd00::12"):
        assert " 0% packet loss" in sh(host, "tenant-red", "desk", command)
    drops = host.json("drops", "-n", "tenant-red")["counts"]
    assert "SPOOF_MAC" not in {row["reason"] for row in drops}


def test_the_ids_hears_what_others_say_and_is_not_heard(host: Lab) -> None:
    count = "cat /sys/class/net/eth1/statistics/rx_packets"
    sh(host, "ids-mirror", "ids", "ip link set eth1 promisc on")  # as tcpdump and every IDS does
    before = int(sh(host, "ids-mirror", "ids", count))
    assert " 0% packet loss" in sh(host, "ids-mirror", "client", "ping -c 5 -i 0.1 10.0.0.3")
    assert int(sh(host, "ids-mirror", "ids", count)) >= before + 10, "five questions, five answers"


def test_fifty_vms_come_up_and_keep_their_tiers_apart(host: Lab) -> None:
    for name in SMALL:
        host.vnet("down", "-n", name)
    host.vnet("up", "-f", file("fifty"), timeout_s=600)

    vms = host.json("ps")
    assert [vm["state"] for vm in vms] == ["ready"] * 50
    assert all(claim["passed"] for claim in host.json("verify"))
    sh(host, "fifty", "app-16", "(while :; do echo app-16 | nc -l -p 8080; done) >/dev/null 2>&1 &")
    app = next(vm["addresses"] for vm in vms if vm["vm"] == "app-16")
    for address in (each.partition("/")[0] for each in app):
        ask = f"nc -w 2 {address} 8080 </dev/null; true"
        assert sh(host, "fifty", "web-24", ask) == "app-16\n", address
        assert sh(host, "fifty", "db-10", ask) == "", address
