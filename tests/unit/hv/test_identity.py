from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from tests.unit.hv.machines import nic, spec
from vnet.hv.identity import identity_lines


def test_identity_names_the_guest_and_lists_each_nic_with_its_addresses():
    lines = identity_lines(spec(2), 1732400000.9, b"\x01\x02").decode().splitlines()
    assert lines == [
        "hostname web-1",
        "clock 1732400000",
        "entropy 0102",
        "nic eth0 52:54:00:12:34:50 1500 1",
        "address eth0 10.10.10.11/24",
        "address eth0 fd00:10::b/64",
        "nic eth1 52:54:00:12:34:51 1500 1",
        "address eth1 10.10.10.12/24",
        "address eth1 fd00:10::c/64",
    ]


def test_a_nic_without_an_ipv6_address_has_no_ipv6_at_all():
    lines = identity_lines(replace(spec(), nics=(nic(v6=False),)), 0, b"").decode().splitlines()
    assert "nic eth0 52:54:00:12:34:50 1500 0" in lines


def test_what_a_guest_asks_for_it_is_not_configured_with():
    four, six = nic().addresses
    lines = {}
    for asked in ((four,), (six,), (four, six)):
        asking = replace(spec(), nics=(replace(nic(), asked=asked),))
        lines[asked] = identity_lines(asking, 0, b"").decode().splitlines()[3:]
    mac = "52:54:00:12:34:50"
    assert lines[four,] == [f"nic eth0 {mac} 1500 1", f"address eth0 {six}", "dhcp eth0"]
    assert lines[six,] == [f"nic eth0 {mac} 1500 2", f"address eth0 {four}"]
    assert lines[four, six] == [f"nic eth0 {mac} 1500 2", "dhcp eth0"]


def test_a_guest_is_told_what_to_ask_by_dhcpv6_and_who_answers_names():
    (four, six), resolver = nic().addresses, ip_address("fd00:10::1")
    asking = replace(
        nic(), asked=(six,), dhcpv6="address", resolvers=(resolver,), domain="lab.internal", mtu=9000
    )
    lines = identity_lines(replace(spec(), nics=(asking,)), 0, b"").decode().splitlines()[3:]
    assert lines == [
        "nic eth0 52:54:00:12:34:50 9000 2",
        f"address eth0 {four}",
        "resolver fd00:10::1 lab.internal",
        "dhcp6 eth0 address",
    ]


def test_a_guest_is_told_the_gateways_of_its_default_routes():
    routed = replace(nic(), gateways=(ip_address("10.10.10.1"), ip_address("fd00:10::1")))
    lines = identity_lines(replace(spec(), nics=(routed,)), 0, b"").decode().splitlines()
    assert lines[-2:] == ["gateway eth0 10.10.10.1", "gateway eth0 fd00:10::1"]
