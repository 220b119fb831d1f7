"""Addresses and names for real guests: they ask the server of their network, and use what they are told."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from tests.vm import fabric_lab
from tests.vm.fabric_lab import Lab, lab
from tests.waiting import until

TEXT = """\
name: served
defaults: {image: micro, cpus: 1, memory: 96M}
networks:
  lan:
    vlan: 10
    dns: true
    subnets:
      - {cidr: 10.0.0.0/24, dhcp: {range: 10.0.0.50-10.0.0.99, lease: 2m, reservations: {b.eth0: 10.0.0.7}}}
      - {cidr: "fd00::/64", ra: slaac}
  six:
    vlan: 20
    mtu: 9000
    dns: true
    subnets: {cidr: "fd00:6::/64", dhcp: true}
  both: {vlan: 30, dns: true, subnets: {cidr: "fd00:7::/64", dhcp: true, ra: slaac}}
  made: {vlan: 40, dns: true, subnets: {cidr: "fd00:8::/64", ra: slaac}}
routers: {gw: {networks: [lan, six]}}
vms:
  asker: {interfaces: {eth0: {network: six, dhcp: true}, eth1: {network: both, dhcp: true}}}
  still: {networks: [six, made]}
  maker: {interfaces: {eth0: {network: made, dhcp: true}}}
  a: {interfaces: {eth0: {network: lan, dhcp: true}}}
  b: {interfaces: {eth0: {network: lan, dhcp: true}}}
  plain: {networks: [lan]}
policies: [{name: ping, applied_to: any, ingress: [{from: any, ports: [icmp, 7/udp]}]}]
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    file = tmp_path_factory.mktemp("served") / "served.vnet.yaml"
    file.write_text(TEXT)
    with lab() as made:
        made.vnet("up", "-f", str(file))
        yield made
        made.vnet("down", "-f", str(file))


def sh(host: Lab, vm: str, command: str) -> str:
    return host.vnet("exec", vm, "--", "sh", "-c", command)


def printed(host: Lab, vm: str, command: str, wanted: str) -> str:
    """What a command prints once it has what is wanted, or after a while."""
    for _ in range(30):
        shown = sh(host, vm, command)
        if wanted in shown:
            break
        time.sleep(0.5)
    return shown


def over_ipv6(host: Lab, nic: str) -> str:
    """The address that the fabric gave a NIC."""
    rows = host.json("leases")
    return next(row["address"] for row in rows if row["nic"] == nic and ":" in row["address"])


def test_guests_get_the_addresses_that_were_chosen_for_them(host: Lab) -> None:
    for vm, wanted in (("a", "10.0.0.50/24"), ("b", "10.0.0.7/24"), ("plain", "10.0.0.51/24")):
        assert wanted in printed(host, vm, "ip -o -4 addr show dev eth0", wanted)
    rows = {row["nic"]: row for row in host.json("leases", "lan") if ":" not in row["address"]}
    assert {name: row["kind"] for name, row in rows.items()} == {
        "a.eth0": "assigned",
        "b.eth0": "reserved",
        "plain.eth0": "assigned",
    }
    assert rows["a.eth0"]["expires"]
    assert rows["b.eth0"]["expires"]
    assert rows["plain.eth0"]["expires"] is None
    six = over_ipv6(host, "a.eth0")
    assert six in printed(host, "a", "ip -o -6 addr show dev eth0", six)


def test_guests_know_each_other_by_name(host: Lab) -> None:
    assert "nameserver 10.0.0.1" in sh(host, "a", "cat /etc/resolv.conf")
    assert " 0% packet loss" in sh(host, "a", "ping -c 2 -W 2 b.served.internal")
    assert " 0% packet loss" in sh(host, "a", "ping -c 2 -W 2 plain")
    six = over_ipv6(host, "b.eth0").partition("/")[0]
    assert " 0% packet loss" in sh(host, "a", f"ping -c 2 -W 2 {six}")


def test_a_guest_of_ipv6_alone_asks_for_its_address_and_is_told_of_router_and_names(host: Lab) -> None:
    address, name = over_ipv6(host, "asker.eth0").partition("/")[0], "still.six.served.internal"
    assert address in printed(host, "asker", "ip -o -6 addr show dev eth0", address)
    route = printed(host, "asker", "ip -6 route", "default via fe80::")
    assert "default via fe80::" in route and "fd00:6::/64 dev eth0" in route
    assert "nameserver fd00:6::1" in printed(host, "asker", "cat /etc/resolv.conf", "fd00:6::1")
    assert " 0% packet loss" in sh(host, "asker", f"ping -6 -c 2 -W 2 {name}")
    far = over_ipv6(host, "b.eth0").partition("/")[0]
    assert " 0% packet loss" in sh(host, "asker", f"ping -6 -c 2 -W 2 {far}")
    rows = {row["nic"]: row for row in host.json("leases", "six")}
    assert rows["asker.eth0"]["expires"] and rows["still.eth0"]["expires"] is None


def test_a_guest_that_makes_its_address_asks_for_names_only(host: Lab) -> None:
    made = over_ipv6(host, "asker.eth1").partition("/")[0]
    assert made in printed(host, "asker", "ip -o -6 addr show dev eth1", made)
    assert "nameserver fd00:7::1" in printed(host, "asker", "cat /etc/resolv.conf", "fd00:7::1")
    made = over_ipv6(host, "maker.eth0").partition("/")[0]
    assert made in printed(host, "maker", "ip -o -6 addr show dev eth0", made)
    assert " 0% packet loss" in sh(host, "maker", "ping -6 -c 2 -W 2 still.made.served.internal")


def test_jumbo_frames_pass_between_real_guests_and_not_out_of_their_network(host: Lab) -> None:
    for vm in ("asker", "still"):
        assert "mtu 9000" in sh(host, vm, "ip link show dev eth0")
    assert "mtu 1500" in sh(host, "a", "ip link show dev eth0")
    still, far = (over_ipv6(host, nic).partition("/")[0] for nic in ("still.eth0", "b.eth0"))
    assert " 0% packet loss" in sh(host, "asker", f"ping -6 -c 2 -W 2 -s 8900 {still}")
    way = f"ip -6 route get {far}"  # busybox tells no MTU, but which way has one of its own
    assert "cache" not in sh(host, "asker", way)
    sh(host, "asker", f"head -c 4000 /dev/zero | nc.openbsd -u -w 1 {far} 7; true")
    assert "MTU" in host.vnet("drops")
    assert "cache" in sh(host, "asker", way), "told by the gateway"


def test_daemon_and_dnsmasq_are_killed_and_flows_and_leases_go_on(host: Lab) -> None:
    """While no daemon runs, b releases its lease and asks for another; a pings it 100 times a second."""
    space = f"{fabric_lab.PREFIX}served.lan"
    sh(host, "a", "ping -q -i 0.01 10.0.0.7 >/tmp/ping.log 2>&1 & echo $! >/tmp/ping.pid")
    sh(host, "b", "(sleep 2; udhcpc -i eth0 -n -q -f -s /bin/true; echo $?) >/tmp/asked.log 2>&1 &")
    host.kill_daemon()
    time.sleep(6)
    os.kill(dnsmasq(space), signal.SIGKILL)
    assert "lease of 10.0.0.7 obtained" in sh(host, "b", "cat /tmp/asked.log")  # the next daemon comes
    assert is_revived(space), "by the daemon that takes over"
    os.kill(dnsmasq(space), signal.SIGKILL)
    assert is_revived(space), "by the daemon that runs"
    assert next(row for row in host.json("leases", "lan") if row["nic"] == "b.eth0")["expires"]
    asked = "nslookup b.served.internal 10.0.0.1 || true"  # it runs before it listens
    assert "10.0.0.7" in printed(host, "a", asked, "10.0.0.7")
    assert "service-revived" in host.vnet("events", "--since", "1m")
    told = sh(host, "a", "kill -INT $(cat /tmp/ping.pid); sleep 0.2; cat /tmp/ping.log")
    assert " 0% packet loss" in told, told


def is_revived(space: str) -> bool:
    """Whether a dnsmasq runs there soon: it is looked for every second."""
    return bool(until(lambda: dnsmasq(space), 15))


def dnsmasq(space: str) -> int:
    """The process in a network's namespace; 0 if there is none."""
    done = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True, check=True)
    return int(done.stdout or 0)
