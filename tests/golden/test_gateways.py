"""The rules and routes of gateways: `gateways/NAME.vnet.yaml` and `NAME.txt`.

`GOLDEN=rewrite` writes the expected texts anew; review the difference.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from vnet.services.gateway import Forwarding, Side, forwarding, gateway_side, host_side
from vnet.services.gateway_rules import forward_table, gateway_table, host_table
from vnet.services.nft import Table
from vnet.topology.inventory import expand
from vnet.topology.load import load_text, read_text

FOLDER = Path(__file__).parent / "gateways"
CASES = sorted(path.name.removesuffix(".vnet.yaml") for path in FOLDER.glob("*.yaml"))


def told(case: str) -> dict[str, Forwarding]:
    path = FOLDER / f"{case}.vnet.yaml"
    topology = load_text(read_text(path), path.name, {})
    inventory = expand(topology, {})
    return {each.router: forwarding(topology, inventory, each) for each in inventory.exits}


def tables(router: str, each: Forwarding) -> Iterator[Table]:
    yield gateway_table(each, frozenset({("10.10.10.3", 8080)}))
    if each.host:
        yield host_table(f"vnet-shop.{router}", f"vnet-shop.{router}", each)


def lines(side: Side) -> Iterator[str]:
    yield from sorted(f"address {each.address} dev {each.device}" for each in side.addresses)
    yield from sorted(
        f"route {each.prefix} via {each.via} dev {each.device}{f' src {each.source}' if each.source else ''}"
        for each in side.routes
    )
    yield from sorted(
        f"neighbour {each.address} {each.mac:#014x} dev {each.device}" for each in side.neighbours
    )


def written(case: str) -> str:
    parts = []
    for router, each in told(case).items():
        parts.append(f"==== {router}: the gateway")
        parts += lines(gateway_side(each))
        if each.host:
            parts.append(f"==== {router}: the host")
            parts += lines(host_side(each, f"vnet-shop.{router}"))
        parts += [f"==== {router}: rules\n{table.text()}" for table in tables(router, each)]
    return "\n".join([*parts, f"==== the host, if it did not forward\n{forward_table().text()}"])


@pytest.mark.parametrize("case", CASES)
def test_gateways_are_told_the_expected(case: str) -> None:
    expected = FOLDER / f"{case}.txt"
    found = written(case)
    if os.environ.get("GOLDEN") == "rewrite":
        expected.write_text(found, encoding="utf-8")
    assert found == expected.read_text(encoding="utf-8")
