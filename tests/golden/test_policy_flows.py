"""Topologies and the flows they become. `GOLDEN=rewrite` writes what is expected anew: review the diff."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vnet.policy.compile import compile
from vnet.policy.listing import listing
from vnet.policy.verify import verify
from vnet.topology.inventory import expand
from vnet.topology.load import load_text

FOLDER = Path(__file__).parent / "policy"
TOPOLOGIES = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", TOPOLOGIES, ids=lambda path: path.stem)
def test_a_topology_becomes_the_expected_flows(path: Path) -> None:
    topology = load_text(path.read_text(encoding="utf-8"), path.name, {})
    compiled = compile(topology, expand(topology, {}))
    expected = path.with_suffix(".flows")
    if os.environ.get("GOLDEN") == "rewrite":
        expected.write_text(listing(compiled), encoding="utf-8")
    assert listing(compiled) == expected.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", TOPOLOGIES, ids=lambda path: path.stem)
def test_the_claims_of_each_topology_hold(path: Path) -> None:
    topology = load_text(path.read_text(encoding="utf-8"), path.name, {})
    inventory = expand(topology, {})
    results = verify(topology, inventory, compile(topology, inventory).flows)
    assert not [str(result) for result in results if not result.holds]


def test_there_are_topologies_to_try() -> None:
    assert len(TOPOLOGIES) >= 4
