"""DHCP, router advertisements and names in the topology, and the addresses that come of them."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network

import pytest

from vnet.base.errors import InputError
from vnet.cli.expanded import expanded
from vnet.policy.endpoint import link_local
from vnet.services.dhcp import files
from vnet.topology.inventory import Dhcpv6, expand
from vnet.topology.load import load_text
from vnet.topology.model import AddressRange, Advertised, Dhcp, Topology

HEAD = "name: lab\nnetworks:\n"
VMS = "\nvms: {a: {networks: [n]}, b: {networks: [n], replicas: 2}}"


def load(network: str, vms: str = VMS) -> Topology:
    return load_text(f"{HEAD}  n: {network}{vms}", "lab.yaml", {})


def addresses(topology: Topology, previous: Topology | None = None) -> dict[str, list[str]]:
    before = expand(previous, {}).assignments if previous else {}
    found = expand(topology, before)
    return {nic.name: [str(each) for each in nic.addresses] for nic in found.nics}


def test_a_network_of_plain_subnets_has_no_services() -> None:
    network = load("{vlan: 1, subnets: 10.0.0.0/24}").networks["n"]
    assert not network.has_services and network.served == () and network.domain == ""


def test_dhcp_and_dns_by_one_word_each() -> None:
    network = load("{vlan: 1, dns: true, subnets: {cidr: 10.0.0.0/24, dhcp: true}}").networks["n"]
    assert network.has_services and network.domain == "lab.internal"
    assert network.serves(ip_network("10.0.0.0/24")).dhcp == Dhcp()


def test_false_is_the_same_as_left_out() -> None:
    plain = load("{vlan: 1, subnets: 10.0.0.0/24}").networks["n"]
    said = load("{vlan: 1, dns: false, subnets: {cidr: 10.0.0.0/24, dhcp: false}}").networks["n"]
    assert (said.served, said.domain) == (plain.served, plain.domain)


@pytest.mark.parametrize(
    ("subnet", "advertised"),
    [
        ('{cidr: "fd00::/64"}', Advertised.NONE),
        ('{cidr: "fd00::/64", dhcp: true}', Advertised.MANAGED),
        ('{cidr: "fd00::/64", dhcp: true, ra: none}', Advertised.NONE),
        ('{cidr: "fd00::/64", ra: slaac}', Advertised.SLAAC),
        ("{cidr: 10.0.0.0/24, dhcp: true}", Advertised.NONE),
    ],
)
def test_what_is_advertised_when_the_file_does_not_say(subnet: str, advertised: Advertised) -> None:
    network = load(f"{{vlan: 1, subnets: {subnet}}}").networks["n"]
    assert network.serves(network.subnets[0]).ra is advertised


def test_addresses_are_chosen_from_the_range() -> None:
    found = load("{vlan: 1, subnets: {cidr: 10.0.0.0/24, dhcp: {range: 10.0.0.50-10.0.0.60, lease: 2h}}}")
    dhcp = found.networks["n"].served[0].dhcp
    assert dhcp == Dhcp(AddressRange(ip_address("10.0.0.50"), ip_address("10.0.0.60")), 7200)
    assert addresses(found) == {
        "a.eth0": ["10.0.0.50/24"],
        "b-1.eth0": ["10.0.0.51/24"],
        "b-2.eth0": ["10.0.0.52/24"],
    }


def test_reservations_are_kept_for_their_owner() -> None:
    found = load("{vlan: 1, subnets: {cidr: 10.0.0.0/24, dhcp: {reservations: {b-2.eth0: 10.0.0.2}}}}")
    assert addresses(found) == {
        "a.eth0": ["10.0.0.3/24"],
        "b-1.eth0": ["10.0.0.4/24"],
        "b-2.eth0": ["10.0.0.2/24"],
    }


def test_a_reservation_takes_the_address_from_who_had_it() -> None:
    before = load("{vlan: 1, subnets: 10.0.0.0/24}")
    after = load("{vlan: 1, subnets: {cidr: 10.0.0.0/24, dhcp: {reservations: {b-2.eth0: 10.0.0.2}}}}")
    assert addresses(before)["a.eth0"] == ["10.0.0.2/24"]
    found = addresses(after, before)
    assert found["b-2.eth0"] == ["10.0.0.2/24"] and found["b-1.eth0"] == ["10.0.0.3/24"]
    assert found["a.eth0"] not in (found["b-1.eth0"], found["b-2.eth0"])


def test_a_reservation_of_a_derived_mac_is_that_of_its_nic() -> None:
    plain = load("{vlan: 1, subnets: 10.0.0.0/24}")
    mac = next(nic.mac for nic in expand(plain, {}).nics if nic.name == "a.eth0").to_bytes(6, "big").hex(":")
    found = load(
        f'{{vlan: 1, subnets: {{cidr: 10.0.0.0/24, dhcp: {{reservations: {{"{mac.upper()}": 10.0.0.9}}}}}}}}'
    )
    assert addresses(found)["a.eth0"] == ["10.0.0.9/24"]


def test_what_is_reserved_for_a_mac_of_nobody_is_given_to_nobody() -> None:
    network = '{vlan: 1, subnets: {cidr: 10.0.0.0/24, dhcp: {reservations: {"02:00:00:00:00:01": 10.0.0.2}}}}'
    assert all("10.0.0.2/24" not in each for each in addresses(load(network)).values())


def test_slaac_makes_addresses_of_macs() -> None:
    found = load('{vlan: 1, subnets: {cidr: "fd00:1::/64", ra: slaac}}')
    for nic in expand(found, {}).nics:
        own = int(link_local(nic.mac)) & (1 << 64) - 1
        assert [each.ip for each in nic.addresses] == [ip_address(int(ip_address("fd00:1::")) | own)]


def test_two_nics_never_have_one_address() -> None:
    network = "{vlan: 1, subnets: {cidr: 10.0.0.0/29, dhcp: {reservations: {b-1.eth0: 10.0.0.3}}}}"
    found = [each for nic in addresses(load(network)).values() for each in nic]
    assert len(set(found)) == len(found) == 3


def test_a_subnet_that_reservations_fill_is_too_small() -> None:
    network = (
        "{vlan: 1, subnets: {cidr: 10.0.0.0/29, dhcp: {range: 10.0.0.2-10.0.0.3,"
        ' reservations: {"02:00:00:00:00:01": 10.0.0.2}}}}'
    )
    with pytest.raises(InputError, match=r"10.0.0.2-10.0.0.3 of 10.0.0.0/29 is too small"):
        load(network)


def test_what_is_written_out_says_the_same() -> None:
    text = (
        "{vlan: 1, dns: lab.example, subnets: [{cidr: 10.0.0.0/24, dhcp: {range: 10.0.0.9-10.0.0.19,"
        ' lease: 5m, reservations: {a.eth0: 10.0.0.30, "02:00:00:00:00:01": 10.0.0.31}}},'
        ' {cidr: "fd00::/64", ra: slaac}]}'
    )
    vms = "\nvms: {a: {interfaces: {eth0: {network: n, dhcp: true}}}, b: {networks: [n], replicas: 2}}"
    found = load(text, vms)
    again = load_text(json.dumps(expanded(found, expand(found, {}))), "again.json", {})
    assert addresses(again) == addresses(found)
    assert [nic.asked for nic in expand(again, {}).nics] == [nic.asked for nic in expand(found, {}).nics]
    network = expanded(found, expand(found, {}))["networks"]["n"]
    assert network == {
        "vlan": 1,
        "dns": "lab.example",
        "subnets": [
            {
                "cidr": "10.0.0.0/24",
                "dhcp": {
                    "range": "10.0.0.9-10.0.0.19",
                    "lease": "300s",
                    "reservations": {"02:00:00:00:00:01": "10.0.0.31"},
                },
            },
            {"cidr": "fd00::/64", "ra": "slaac"},
        ],
    }


@pytest.mark.parametrize(
    ("subnets", "asked"),
    [
        ("[{cidr: 10.0.0.0/24, dhcp: true}]", ["10.0.0.2/24"]),
        ('[{cidr: 10.0.0.0/24, dhcp: true}, "fd00::/64"]', ["10.0.0.2/24"]),
        ('[10.0.0.0/24, {cidr: "fd00::/64", ra: slaac}]', ["fd00::5054:ff:fe00:1/64"]),
        ('[10.0.0.0/24, {cidr: "fd00::/64", dhcp: true}]', ["fd00::2/64"]),
        ('[{cidr: 10.0.0.0/24, dhcp: true}, {cidr: "fd00::/64", dhcp: true, ra: none}]', ["10.0.0.2/24"]),
    ],
)
def test_a_guest_asks_only_for_what_somebody_tells_it(subnets: str, asked: list[str]) -> None:
    vms = '\nvms: {a: {interfaces: {eth0: {network: n, mac: "52:54:00:00:00:01", dhcp: true}}}}'
    found = load(f"{{vlan: 1, subnets: {subnets}}}", vms)
    (nic,) = expand(found, {}).nics
    assert [str(each) for each in nic.asked] == asked
    assert set(nic.asked) <= set(nic.addresses)


@pytest.mark.parametrize(
    ("subnets", "dhcpv6", "resolvers"),
    [
        ('{cidr: "fd00::/64", dhcp: true}', Dhcpv6.ADDRESS, []),
        ('{cidr: "fd00::/64", dhcp: true, ra: slaac}', Dhcpv6.INFORMATION, []),
        ('{cidr: "fd00::/64", ra: slaac}', Dhcpv6.NOTHING, ["fd00::1"]),
        ('[{cidr: 10.0.0.0/24, dhcp: true}, "fd00::/64"]', Dhcpv6.NOTHING, ["fd00::1"]),
    ],
)
def test_a_guest_is_configured_with_who_answers_names_unless_dhcp_tells_it(
    subnets: str, dhcpv6: Dhcpv6, resolvers: list[str]
) -> None:
    vms = "\nvms: {a: {interfaces: {eth0: {network: n, dhcp: true}}}, still: {networks: [n]}}"
    nic, still = expand(load(f"{{vlan: 1, dns: true, subnets: {subnets}}}", vms), {}).nics
    assert (nic.dhcpv6, [str(each) for each in nic.resolvers]) == (dhcpv6, resolvers)
    assert (still.dhcpv6, len(still.resolvers)) == (Dhcpv6.NOTHING, len(still.addresses))
    assert nic.domain == ("lab.internal" if resolvers else "")


@pytest.mark.parametrize(
    ("dns", "domain", "forwarders"),
    [
        ("{forwarders: 10.9.0.5}", "lab.internal", ["10.9.0.5"]),
        (
            '{domain: lab.example, forwarders: [10.9.0.5, "fd00:9::5"]}',
            "lab.example",
            ["10.9.0.5", "fd00:9::5"],
        ),
        ("{domain: lab.example}", "lab.example", []),
    ],
)
def test_names_outside_are_asked_of_forwarders(dns: str, domain: str, forwarders: list[str]) -> None:
    more = (
        '\n  far: {vlan: 9, subnets: [10.9.0.0/24, "fd00:9::/64"]}\nrouters: {gw: {networks: [n, far]}}\n'
        "vms: {a: {networks: [n]}}"
    )
    found = load(f'{{vlan: 1, dns: {dns}, subnets: [10.0.0.0/24, "fd00::/64"]}}', more)
    network = found.networks["n"]
    assert (network.domain, [str(each) for each in network.forwarders]) == (domain, forwarders)
    again = load_text(json.dumps(expanded(found, expand(found, {}))), "again.json", {})
    assert (again.networks["n"].domain, again.networks["n"].forwarders) == (domain, network.forwarders)
    (service,) = expand(found, {}).services
    lines = files(found, expand(found, {}), service).config.splitlines()
    assert [line for line in lines if line.startswith("server=")] == [f"server={each}" for each in forwarders]
