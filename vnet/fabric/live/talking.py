"""Who talks most: the connections that carried most since the last look, with the VMs at their ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from vnet.base.protocols import protocol_name
from vnet.fabric.live.registry import Fabric
from vnet.openflow.fields import ETH_IPV4
from vnet.switch.talkers import Look, Talker, talkers

LEAST_S = 0.5
"""Who asks so soon after another is given the same answer."""
MOST_S = 15.0
"""A look that is older says nothing of now."""


class Talking:
    """The looks at the connections of each fabric. Belongs to one event loop."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[Look, Mapping[str, Any]]] = {}
        self._turn = asyncio.Lock()

    async def most(self, fabric: Fabric) -> Mapping[str, Any]:
        """`span_s` and `connections`, the most first; none at a look that has nothing to compare with."""
        name = fabric.record.name
        async with self._turn:
            before, answer = self._last.get(name, (Look(), _NOTHING))
            parts = [part async for _, part in fabric.parts.switch.slots()]
            now = Look(time.monotonic(), b"".join(parts))
            if now.at_s - before.at_s >= LEAST_S:
                answer = await asyncio.to_thread(_answer, fabric, before, now)
                recent = {key: seen for key, seen in self._last.items() if now.at_s - seen[0].at_s <= MOST_S}
                self._last = {**recent, name: (now, answer)}
            return answer


_NOTHING: Mapping[str, Any] = {"span_s": 0.0, "connections": []}


def _answer(fabric: Fabric, before: Look, now: Look) -> Mapping[str, Any]:
    span_s = now.at_s - before.at_s
    if span_s > MOST_S:
        return _NOTHING
    nics = fabric.declared.inventory.nics if fabric.declared else ()
    by_port = {nic.port: nic.vm for nic in nics}
    by_address = {int(address.ip): nic.vm for nic in nics for address in nic.addresses}
    rows = [_row(each, by_port, by_address, span_s) for each in talkers(before, now)]
    named = [{"fabric": fabric.record.name, **row} for row in rows]
    return {"span_s": round(span_s, 3), "connections": named}


def _row(
    talker: Talker, by_port: Mapping[int, str], by_address: Mapping[int, str], span_s: float
) -> dict[str, Any]:
    connection = talker.connection
    address = IPv4Address if connection.family == ETH_IPV4 else IPv6Address
    source, target = connection.source, connection.target
    protocol = protocol_name(connection.protocol)
    ports = protocol not in ("icmp", "icmpv6")
    return {
        "client": by_port.get(talker.port, ""),
        "client_address": str(address(source.address)),
        "client_port": source.port if ports else None,
        "server": by_address.get(target.address, ""),
        "server_address": str(address(target.address)),
        "server_port": target.port if ports else None,
        "protocol": protocol,
        "sent_bytes_ps": round(talker.sent_bytes / span_s, 1),
        "received_bytes_ps": round(talker.received_bytes / span_s, 1),
    }
