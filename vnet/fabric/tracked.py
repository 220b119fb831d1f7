"""The connections of a fabric for people: who talks to whom, how much, in which state, let by which rule."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vnet.base.errors import UsageError
from vnet.base.protocols import protocol_name
from vnet.fabric.who import Directory, address
from vnet.openflow.conntrack import State
from vnet.openflow.fields import ICMP, ICMPV6
from vnet.switch.connections import Tracked, tracked

SORTS: Mapping[str, Callable[[Tracked], int]] = {
    "bytes": lambda one: -sum(one.octets),
    "packets": lambda one: -sum(one.packets),
    "age": lambda one: one.created_ns,
    "idle": lambda one: -one.last_seen_ns,
}
"""What `--sort` takes, with the number that is smallest for what comes first."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which connections are asked for; None is any.

    `who` (a VM or one of its NICs) is either end, `to` the server; `state` a name such as `established`.
    """

    who: str | None = None
    to: str | None = None
    port: int | None = None
    state: str | None = None
    sort: str = "bytes"
    limit: int = 1000

    def __post_init__(self) -> None:
        if self.sort not in SORTS:
            raise UsageError(f"--sort {self.sort}: write one of {', '.join(SORTS)}")
        if self.state is not None and self.state not in {state.value for state in State}:
            known = ", ".join(state.value for state in State)
            raise UsageError(f"--state {self.state}: write one of {known}")

    def takes(self, one: Tracked, directory: Directory) -> bool:
        """Whether a connection is meant."""
        if self.port is not None and one.service_port != self.port:
            return False
        if self.state is not None and one.state.value != self.state:
            return False
        if self.who is None and self.to is None:
            return True
        client, server = (directory.name(one.zone, each) for each in _addresses(one))
        if self.to is not None and not is_meant(self.to, server):
            return False
        return self.who is None or is_meant(self.who, client) or is_meant(self.who, server)


def is_meant(wanted: str, nic: str | None) -> bool:
    """Whether `web-1` or `web-1.eth0` means this NIC."""
    return nic is not None and (nic == wanted or nic.rpartition(".")[0] == wanted)


def _addresses(one: Tracked) -> tuple[Any, Any]:
    return address(one.client, one.version), address(one.server, one.version)


@dataclass(slots=True)
class Best:
    """Of connections that come by and by, the first `limit` of an order, and how many there were in all."""

    wanted: Wanted
    directory: Directory
    now_ns: int
    """CLOCK_MONOTONIC."""
    total: int = 0
    _kept: list[Tracked] = field(default_factory=list)

    def take(self, first: int, values: bytes) -> None:
        """A part of the table."""
        found = [one for one in tracked(values, first) if self._is_meant(one)]
        self.total += len(found)
        rank = SORTS[self.wanted.sort]
        self._kept = heapq.nsmallest(self.wanted.limit, (*self._kept, *found), key=rank)

    def _is_meant(self, one: Tracked) -> bool:
        """Ended ones are told until they are forgotten or opened anew; those that timed out are not there."""
        return one.is_there and not one.is_silent(self.now_ns) and self.wanted.takes(one, self.directory)

    def plain(self) -> Mapping[str, Any]:
        """The answer: rows, and the number that they are cut from."""
        rows = [plain(one, self.directory, self.now_ns) for one in self._kept]
        return {"connections": rows, "total": self.total, "cut": self.total > len(rows)}


def plain(one: Tracked, directory: Directory, now_ns: int) -> Mapping[str, Any]:
    """The fields of `vnet ct -o json`."""
    client, server = _addresses(one)
    let = directory.let(one)
    return {
        "network": directory.network(one.zone),
        "zone": one.zone,
        "protocol": protocol_name(one.protocol),
        "client": directory.name(one.zone, client),
        "client_address": str(client),
        "client_port": one.client_port or None,
        "server": directory.name(one.zone, server),
        "server_address": str(server),
        "server_port": None if one.protocol in (ICMP, ICMPV6) else one.service_port,
        "state": one.state.value,
        "packets": list(one.packets),
        "bytes": list(one.octets),
        "age_s": _seconds(now_ns - one.created_ns),
        "idle_s": _seconds(now_ns - one.last_seen_ns),
        "mark": one.mark,
        "label": f"{one.label:#x}",
        "verdict": "" if let is None else "audited" if let.audited else "allowed" if let.allowed else "cut",
        "policy": (let.by.policy or None) if let else None,
        "rule": (let.by.rule or None) if let else None,
        "at": let.by.at if let else None,
        "text": let.by.text if let else None,
    }


def _seconds(span_ns: int) -> float:
    return round(max(0, span_ns) / 1e9, 1)
