"""The MAC table of a fabric: what is declared, what a profile allows, what was learned."""

from __future__ import annotations

from datetime import UTC, datetime

from vnet.fabric import fdb
from vnet.fabric.declared import declare
from vnet.fabric.store import Source
from vnet.fabric.who import Directory

TEXT = """\
name: small
networks:
  lan: {vlan: 10, subnets: 10.0.0.0/24}
  far: {vlan: 20, subnets: 10.0.1.0/24}
vms:
  a: {networks: [lan]}
  b: {networks: [far]}
"""
NOW_NS = 10**12


def test_declared_and_learned_addresses_stand_together_and_aged_ones_are_gone() -> None:
    declared = declare(Source("small.vnet.yaml", TEXT), {}, datetime(2026, 1, 1, tzinfo=UTC))
    a, b = declared.inventory.nics
    learnt = [
        (10, 0x02AA, a.port, NOW_NS - 2 * 10**9),
        (10, 0x02BB, a.port, NOW_NS - 301 * 10**9),
        (30, 0x02CC, 77, NOW_NS),
    ]
    rows = fdb.rows(declared, Directory(declared), learnt, None, NOW_NS)
    told = [(row["network"], row["nic"], row["port"], row["kind"], row["age_s"]) for row in rows]
    assert told == [
        ("lan", "a.eth0", a.port, "learned", 2.0),
        ("lan", "a.eth0", a.port, "declared", None),
        ("far", "b.eth0", b.port, "declared", None),
        ("VLAN 30", None, 77, "learned", 0.0),
    ]
    assert [row["vlan"] for row in fdb.rows(declared, Directory(declared), learnt, "far", NOW_NS)] == [20]
