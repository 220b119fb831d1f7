"""Which MAC address is where: what the topology declares, and what the switch learnt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vnet.fabric.declared import Declared
from vnet.fabric.who import Directory
from vnet.hv.spec import format_mac
from vnet.policy.endpoint import endpoints
from vnet.topology.inventory import Nic

AGE_NS = 300 * 10**9
"""VNET_MAC_AGE_NS: an entry that is older is as good as none."""


def rows(
    declared: Declared,
    directory: Directory,
    learnt: Iterable[tuple[int, int, int, int]],
    network: str | None,
    now_ns: int,
) -> list[Mapping[str, Any]]:
    """The table, by network and MAC.

    Args:
        learnt: VLAN, MAC, port and CLOCK_MONOTONIC of the last frame; network: only this one.
    """
    found = [*_declared(declared), *_learnt(directory, learnt, now_ns)]
    chosen = (row for row in found if network in (None, row["network"]))
    return sorted(chosen, key=lambda row: (row["vlan"], row["mac"], row["kind"]))


def _declared(declared: Declared) -> Iterator[Mapping[str, Any]]:
    for nic in declared.inventory.nics:
        yield _row(nic.vlan, nic.network, nic.mac, nic, "declared")
    told = set()
    for end in endpoints(declared.topology, declared.inventory):
        for mac in end.macs:
            if mac != end.nic.mac and (end.name, mac) not in told:
                told.add((end.name, mac))
                yield _row(end.nic.vlan, end.nic.network, mac, end.nic, "allowed")


def _learnt(
    directory: Directory, entries: Iterable[tuple[int, int, int, int]], now_ns: int
) -> Iterator[Mapping[str, Any]]:
    for vlan, mac, port, seen_ns in entries:
        if now_ns - seen_ns > AGE_NS:
            continue
        row = _row(vlan, directory.network(vlan), mac, directory.nic(port), "learned")
        yield {**row, "port": port, "age_s": round(max(0, now_ns - seen_ns) / 1e9, 1)}


def _row(vlan: int, network: str, mac: int, nic: Nic | None, kind: str) -> Mapping[str, Any]:
    return {
        "network": network,
        "vlan": vlan,
        "mac": format_mac(mac),
        "nic": nic.name if nic else None,
        "port": nic.port if nic else None,
        "kind": kind,
        "age_s": None,
    }
