"""What the guest is to measure: flows of the tree under test, made here because Python is slow there.

Run as a program inside the staged tree, so that `vnet` is the one under test: `orders.py ROWS COUNTS FILE`.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.perf.inside.frames import End
from vnet.openflow import ofctl
from vnet.openflow.flow import Flow, Instructions, Output, Port, match
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
  c: {networks: [n], groups: [c]}
"""
POLICY = """
policies:
  - {name: b-from-a, applied_to: b, ingress: [{from: a, ports: [SERVICE]}]}
"""
RULES_A_PEER = 20_000


def orders(rows: list[int], counts: Sequence[int]) -> dict[str, Any]:
    """By name: the ends of the conversation, and flows. `counts` are the numbers of rules of row 3."""
    (*ends, third), stateful = compiled(0)
    opened = compiled(0, "1024-65535/udp")[1]
    return {
        "rows": rows,
        "ends": tuple(ends),
        "third": third,
        "plain": plain(ends),
        "layer 4": (*plain(ends), NOT_DISCARD),
        "everything": (Flow(0, 1, match(), Instructions((Output(Port.FLOOD),))),),
        "stateful": stateful,
        "open": opened,
        "open text": [ofctl.text(flow) for flow in opened],
        "rules": {count: compiled(count)[1] for count in counts} if 3 in rows else {},
    }


def compiled(rules: int, service: str = "80/tcp") -> tuple[tuple[End, ...], tuple[Flow, ...]]:
    """The ends a, b and c, and the flows of a topology where `rules` other rules hold for b.

    Ports are odd, so that no two make a range that one flow can match.
    """
    vms, policies = "", POLICY.replace("SERVICE", service)
    for number, first in enumerate(range(0, rules, RULES_A_PEER)):
        ports = ", ".join(f"{1001 + 2 * n}/tcp" for n in range(min(rules - first, RULES_A_PEER)))
        vms += f"  c{number}: {{networks: [n], groups: [c{number}]}}\n"
        policies += (
            f"  - {{name: r{number}, applied_to: b, ingress: [{{from: c{number}, ports: [{ports}]}}]}}\n"
        )
    topology = load_text(PAIR + vms + policies, "perf", {})
    inventory = expand(topology, {})
    return tuple(map(_end, inventory.nics[:3])), compile(topology, inventory).flows


NOT_DISCARD = Flow(0, 20, match(eth_type=0x0800, ip_proto=17, udp_src=9, udp_dst=9))
"""Drops a service nobody uses; with it a switch has to look at the ports of every UDP packet."""


def plain(ends: Sequence[End]) -> tuple[Flow, ...]:
    """Each destination address to its port."""
    return tuple(Flow(0, 10, match(eth_dst=end.mac), Instructions((Output(end.port),))) for end in ends)


def _end(nic: Nic) -> End:
    return End(nic.port, int(nic.mac), int(nic.addresses[0].ip))


if __name__ == "__main__":
    wanted, numbers = ([int(part) for part in text.split(",")] for text in sys.argv[1:3])
    Path(sys.argv[3]).write_bytes(pickle.dumps(orders(wanted, numbers)))
