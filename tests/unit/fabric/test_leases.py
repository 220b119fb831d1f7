"""Whose each IP address is."""

from __future__ import annotations

from datetime import UTC, datetime

from vnet.fabric import leases
from vnet.fabric.declared import declare
from vnet.fabric.store import Source
from vnet.services.leases import read

TEXT = """\
name: small
networks:
  lan: {vlan: 10, subnets: [10.0.0.0/24, "fd00::/64"]}
  far: {vlan: 9, subnets: 10.0.1.0/24}
vms:
  a: {networks: [lan, far]}
  b: {interfaces: {eth0: {network: lan, addresses: [10.0.0.2/24]}}}
"""


def test_addresses_of_the_file_are_told_from_those_that_were_assigned() -> None:
    declared = declare(Source("small.vnet.yaml", TEXT), {}, datetime(2026, 1, 1, tzinfo=UTC))
    told = [(row["network"], row["address"], row["nic"], row["kind"]) for row in leases.rows(declared, None)]
    assert told == [
        ("far", "10.0.1.2/24", "a.eth1", "assigned"),
        ("lan", "10.0.0.2/24", "b.eth0", "declared"),
        ("lan", "10.0.0.3/24", "a.eth0", "assigned"),
        ("lan", "fd00::2/64", "a.eth0", "assigned"),
    ]
    assert [row["nic"] for row in leases.rows(declared, "far")] == ["a.eth1"]


SERVED = """\
name: small
networks:
  lan:
    vlan: 10
    subnets: [{cidr: 10.0.0.0/24, dhcp: {reservations: {a.eth0: 10.0.0.9}}}, {cidr: "fd00::/64", dhcp: true}]
vms: {a: {networks: [lan]}, b: {networks: [lan]}}
"""
LEASES = """\
1767229200 52:54:00:00:00:01 10.0.0.9 a 01:52:54:00:00:00:01
0 52:54:00:00:00:02 10.0.0.2 * *
1767229200 52:54:00:00:00:02 10.0.
duid 00:01:00:01:30:00:00:00:52:54:00:00:00:01
1767232800 5242881 fd00::2 a 00:03:00:01:52:54:00:00:00:01
"""


def test_what_was_handed_out_expires() -> None:
    declared = declare(Source("small.vnet.yaml", SERVED), {}, datetime(2026, 1, 1, tzinfo=UTC))
    leased = [("lan", lease) for lease in read(LEASES)]
    told = [(row["address"], row["kind"], row["expires"]) for row in leases.rows(declared, None, leased)]
    assert told == [
        ("10.0.0.2/24", "assigned", None),
        ("10.0.0.9/24", "reserved", "2026-01-01T01:00:00+00:00"),
        ("fd00::2/64", "assigned", "2026-01-01T02:00:00+00:00"),
        ("fd00::3/64", "assigned", None),
    ]


def test_half_a_line_of_the_lease_file_is_no_lease() -> None:
    assert [(str(each.address), each.client, each.name) for each in read(LEASES)] == [
        ("10.0.0.9", "52:54:00:00:00:01", "a"),
        ("10.0.0.2", "52:54:00:00:00:02", ""),
        ("fd00::2", "00:03:00:01:52:54:00:00:00:01", "a"),
    ]
