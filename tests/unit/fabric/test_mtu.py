"""How long packets may be: what the file says, else what is on the way; and what cannot be."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from vnet.base.errors import InputError
from vnet.fabric.declared import work_out
from vnet.topology.inventory import expand
from vnet.topology.load import load_text
from vnet.topology.model import Topology
from vnet.topology.mtu import largest_bytes, mtu_bytes, why_not_through

TEXT = """\
name: lab
networks:
  plain: {vlan: 1, subnets: 10.0.1.0/24}
  jumbo: {vlan: 2, mtu: 9000, dns: true, subnets: [10.0.2.0/24, "fd00:2::/64"]}
  carried: {vlan: 3, mtu: CARRIED, subnets: [10.0.3.0/24, "fd00:3::/64"]}
  routed: {vlan: 4, mtu: auto, subnets: [10.0.4.0/24, "fd00:4::/64"]}
  hosted: {vlan: 5, subnets: 10.0.5.0/24}
  old: {vlan: 6, mtu: 576, subnets: 10.0.6.0/24}
uplinks:
  lan: {interface: eth1, networks: [carried]}
  wan: {interface: eth2, addresses: [192.0.2.2/24], gateway: 192.0.2.1}
routers:
  out: {networks: [routed], uplink: wan}
  home: {networks: [hosted], uplink: host}
vms:
  a: {networks: [plain, jumbo, carried, routed]}
  ears: {interfaces: {eth0: {mirror_only: true}}}
mirrors: {all: {source: network:jumbo, to: ears:eth0}}
"""


def lab(carried: str = "auto") -> Topology:
    return load_text(TEXT.replace("CARRIED", carried), "lab.vnet.yaml", {})


@pytest.mark.parametrize(
    ("interfaces", "found"),
    [
        ({}, {"carried": 1500, "routed": 1500}),
        ({"eth1": 9000, "eth2": 9000}, {"carried": 9000, "routed": 1500}),
        ({"eth1": 1450, "eth2": 1420}, {"carried": 1450, "routed": 1420}),
        ({"eth1": 65_000}, {"carried": 9216, "routed": 1500}),
    ],
)
def test_a_network_that_says_nothing_has_the_mtu_of_its_ways_out(
    interfaces: dict[str, int], found: dict[str, int]
) -> None:
    topology = lab()
    mtus = {name: mtu_bytes(topology, each, interfaces) for name, each in topology.networks.items()}
    assert mtus == {"plain": 1500, "jumbo": 9000, "hosted": 1500, "old": 576} | found


def test_what_the_file_says_holds_whatever_is_on_the_way() -> None:
    topology = lab("1400")
    assert mtu_bytes(topology, topology.networks["carried"], {"eth1": 9000}) == 1400


@pytest.mark.parametrize("interfaces", [{}, {"eth1": 1500, "eth2": 1280, "eth9": 68}])
def test_what_is_long_enough_or_unknown_is_in_nobodys_way(interfaces: dict[str, int]) -> None:
    topology = lab("1500")
    assert all(why_not_through(topology, each, interfaces) == "" for each in topology.networks.values())


@pytest.mark.parametrize(
    ("carried", "network", "interfaces", "words"),
    [
        ("9000", "carried", {"eth1": 1500}, ("uplink lan", "1500", "9000", "ip link set eth1 mtu 9000")),
        ("auto", "carried", {"eth1": 1200}, ("1200", "needs 1280", "ip link set eth1 mtu 1280")),
        ("auto", "routed", {"eth2": 1279}, ("uplink wan", "1279", "needs 1280")),
    ],
)
def test_an_impossible_way_is_told_with_what_mends_it(
    carried: str, network: str, interfaces: dict[str, int], words: tuple[str, ...]
) -> None:
    topology = lab(carried)
    why = why_not_through(topology, topology.networks[network], interfaces)
    assert all(word in why for word in words), why


def test_nics_servers_and_listeners_have_the_mtu_of_what_they_get() -> None:
    topology = lab()
    inventory = expand(topology, {}, {"eth1": 4000})
    assert {nic.network: nic.mtu_bytes for nic in inventory.nics} == {
        "plain": 1500,
        "jumbo": 9000,
        "carried": 4000,
        "routed": 1500,
    }
    assert [each.mtu_bytes for each in inventory.services] == [9000]
    assert [each.mtu_bytes for each in inventory.listeners] == [9000] == [largest_bytes(topology, {})]


def test_what_is_impossible_is_refused_before_anything_is_planned() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(InputError, match=r"lab.vnet.yaml:5:3: networks.carried.mtu: eth1, uplink lan"):
        work_out(lab("9000"), {}, now, interfaces={"eth1": 1500})
    declared = work_out(lab("9000"), {}, now, interfaces={"eth1": 9000})
    assert declared.inventory.nics[2].mtu_bytes == 9000
