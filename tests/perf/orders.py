"""What the guest is to measure: flows of the tree under test, made here because Python is slow there.

Run as a program inside the staged tree, so that `vnet` is the one under test: `orders.py ROWS FILE`.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

from tests.perf.inside.frames import End
from vnet.openflow.flow import Flow, Instructions, Output, match
from vnet.policy.compile import compile
from vnet.topology.inventory import Nic, expand
from vnet.topology.load import load_text

PAIR = """
name: perf
networks:
  n: {vlan: 10, subnets: 10.0.0.0/16}
vms:
  a: {networks: [n], groups: [a]}
  b: {networks: [n], groups: [b]}
policies:
  - {name: b-from-a, applied_to: b, ingress: [{from: a, ports: [80/tcp]}]}
"""


def orders(rows: list[int]) -> dict[str, Any]:
    """By name: the ends of the conversation, and flows."""
    topology = load_text(PAIR, "perf", {})
    inventory = expand(topology, {})
    a, b = (_end(nic) for nic in inventory.nics)
    return {
        "rows": rows,
        "ends": (a, b),
        "plain": plain((a, b)),
        "stateful": compile(topology, inventory).flows,
    }


def plain(ends: tuple[End, ...]) -> tuple[Flow, ...]:
    """Each destination address to its port."""
    return tuple(Flow(0, 10, match(eth_dst=end.mac), Instructions((Output(end.port),))) for end in ends)


def _end(nic: Nic) -> End:
    return End(nic.port, int(nic.mac), int(nic.addresses[0].ip))


if __name__ == "__main__":
    made = orders([int(row) for row in sys.argv[1].split(",")])
    Path(sys.argv[2]).write_bytes(pickle.dumps(made))
