"""The ways out of a fabric and what is open there, as plain values for who asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vnet.fabric.state import Gateway
from vnet.services.gateway import Answer, Door


def outside_rows(gateways: Iterable[Gateway], silent: Iterable[Answer]) -> list[Mapping[str, Any]]:
    """One row of each gateway. `silent` are the targets that did not answer."""
    dead = {(each.router, each.address, each.port) for each in silent}
    return [_row(each, dead) for each in sorted(gateways, key=lambda gateway: gateway.router)]


def _row(gateway: Gateway, dead: set[tuple[str, str, int]]) -> Mapping[str, Any]:
    forwarding = gateway.forwarding
    return {
        "router": gateway.router,
        "by": "host" if forwarding.host else forwarding.device,
        "nat": "masquerade" if forwarding.masquerades else "none",
        "published": [_door(gateway.router, door, dead) for door in forwarding.doors],
        "floating": {each.address: each.target for each in forwarding.floating},
    }


def _door(router: str, door: Door, dead: set[tuple[str, str, int]]) -> Mapping[str, Any]:
    targets = [
        {"address": each, "port": door.target_port, "answers": (router, each, door.target_port) not in dead}
        for each in door.targets
    ]
    return {"port": str(door), "targets": targets}
