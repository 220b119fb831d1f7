from __future__ import annotations

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
    from dataclasses import replace

    lines = identity_lines(replace(spec(), nics=(nic(v6=False),)), 0, b"").decode().splitlines()
    assert "nic eth0 52:54:00:12:34:50 1500 0" in lines
