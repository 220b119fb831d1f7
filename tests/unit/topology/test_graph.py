"""The fabric as a graph."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from vnet.topology.graph import NETWORK, VM, graph
from vnet.topology.inventory import expand
from vnet.topology.load import load_file

THREE_TIER = Path(__file__).parents[3] / "topologies" / "three-tier.vnet.yaml"


def test_vms_and_networks_are_nodes_and_nics_are_edges() -> None:
    topology = load_file(THREE_TIER, {})
    inventory = expand(topology, {})
    found = graph(topology, inventory)
    assert {name for kind, name in found.nodes if kind == VM} == {"web-1", "web-2", "app", "db", "intruder"}
    assert found.nodes[NETWORK, "front"]["vlan"] == 10
    assert {key for _, _, key in found.edges(keys=True)} == {nic.name for nic in inventory.nics}
    assert set(found.neighbors((VM, "app"))) == {(NETWORK, "front"), (NETWORK, "back")}


def test_networkx_is_imported_only_to_draw() -> None:
    code = "import sys, vnet.topology.graph, vnet.topology.load; sys.exit('networkx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
