"""Whose each IP address is."""

from __future__ import annotations

from datetime import UTC, datetime

from vnet.fabric import leases
from vnet.fabric.declared import declare
from vnet.fabric.store import Source

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
