"""Gateways, routers and their ways."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

import pytest

from vnet.topology.inventory import expand
from vnet.topology.load import load_text
from vnet.topology.model import Topology
from vnet.topology.routing import Routing, gateway_mac

TEXT = """
name: lab
networks:
  a: {vlan: 10, subnets: [10.0.0.0/24, "fd00::/64"]}
  b: {vlan: 20, subnets: {cidr: 10.0.1.0/24, gateway: 10.0.1.2}}
  c: {vlan: 30, subnets: 10.0.2.0/24}
routers:
  one:
    networks: [b, a]
    routes:
      - {to: 172.16.0.0/12, via: 10.0.1.9}
      - {to: 172.16.5.0/24, via: 10.0.0.9}
      - {to: 0.0.0.0/0, via: 10.0.1.9}
vms:
  w: {interfaces: {eth0: {network: a, addresses: [10.0.0.9/24]}}}
  x: {interfaces: {eth0: {network: b, addresses: [10.0.1.9/24]}}}
  y: {networks: [b], replicas: 2}
"""


def lab() -> Topology:
    return load_text(TEXT, "lab.vnet.yaml", {})


@pytest.mark.parametrize(
    ("network", "target", "leads_to"),
    [
        ("a", "10.0.1.77", ("b", None)),
        ("b", "10.0.0.77", ("a", None)),
        ("b", "fd00::77", None),  # no IPv6 gateway takes it there
        ("a", "172.16.4.1", ("b", "10.0.1.9")),
        ("b", "172.16.5.1", ("a", "10.0.0.9")),
        ("a", "8.8.8.8", ("b", "10.0.1.9")),
        ("a", "172.16.5.1", None),  # the longest prefix leads back, so no shorter one is asked
        ("a", "10.0.0.77", None),
        ("a", "fe80::1", None),
        ("a", "224.0.0.1", None),
        ("b", "fd01::1", None),
        ("c", "10.0.0.1", None),
    ],
)
def test_the_longest_prefix_says_where_packets_go(
    network: str, target: str, leads_to: tuple[str, str | None] | None
) -> None:
    way = Routing(lab()).way(network, ip_address(target))
    found = None if way is None else (way.network, None if way.via is None else str(way.via))
    assert found == leads_to


def test_the_zone_of_a_router_is_no_vlan() -> None:
    routing = Routing(lab())
    assert (routing.zone("a"), routing.zone("b"), routing.zone("c")) == (0x1014, 0x1014, None)


def test_networks_are_joined_by_one_router() -> None:
    routing = Routing(lab())
    assert routing.are_joined("a", "b") and routing.are_joined("c", "c")
    assert not routing.are_joined("a", "c")


def test_a_gateway_is_the_first_host_unless_the_file_says_another() -> None:
    routing = Routing(lab())
    assert routing.gateways("a") == (ip_address("10.0.0.1"), IPv6Address("fd00::1"))
    assert routing.gateways("b") == (ip_address("10.0.1.2"),)
    assert routing.gateways("c") == ()


def test_no_nic_is_given_the_address_of_a_gateway() -> None:
    given = [nic.addresses[0].ip for nic in expand(lab(), {}).nics if nic.vm.startswith("y")]
    assert list(map(str, given)) == ["10.0.1.1", "10.0.1.3"]


def test_an_address_that_becomes_the_gateway_is_taken_from_its_nic() -> None:
    topology = load_text(TEXT.replace("10.0.1.2}", "10.0.1.200}"), "lab.vnet.yaml", {})
    before = expand(topology, {})
    assert "10.0.1.2" in {str(nic.addresses[0].ip) for nic in before.nics}
    after = expand(lab(), before.assignments)
    assert "10.0.1.2" not in {str(nic.addresses[0].ip) for nic in after.nics}


def test_on_a_cable_without_a_router_the_gateway_of_the_file_is_somebody_beyond() -> None:
    cable = "uplinks: {c: {interface: eth1, mode: trunk, networks: [a, b, c]}}\nname: lab\n"
    text = TEXT.replace("name: lab\n", cable).replace("networks: [b, a]", "networks: [a]")
    text = text.replace("via: 10.0.1.9", "via: 10.0.0.9")
    hops = [
        list(map(str, Routing(load_text(each, "x", {})).next_hops(name)))
        for name, each in (
            ("a", text),
            ("b", text),
            ("c", text),
            ("b", text.replace("vlan: 20", "dns: true, vlan: 20")),
            ("b", text.replace(cable, "name: lab\n")),
        )
    ]
    assert hops == [["10.0.0.1", "fd00::1"], ["10.0.1.2"], [], [], []]


def test_the_mac_of_gateways_is_unicast_and_locally_administered() -> None:
    first = gateway_mac("lab") >> 40
    assert first & 3 == 2
    assert gateway_mac("lab") != gateway_mac("shop")


def test_a_vm_sends_what_is_for_others_to_its_first_gateway_of_each_version() -> None:
    text = TEXT.replace("y: {networks: [b], replicas: 2}", "z: {networks: [c, b, a]}")
    nics = {nic.name: nic for nic in expand(load_text(text, "lab.vnet.yaml", {}), {}).nics}
    assert nics["z.eth0"].gateways == ()
    assert list(map(str, nics["z.eth1"].gateways)) == ["10.0.1.2"]
    assert list(map(str, nics["z.eth2"].gateways)) == ["fd00::1"]
