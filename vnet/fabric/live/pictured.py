"""What a picture of a fabric that is up is drawn from: its topology, what its NICs got, how its VMs are."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from vnet.base.drop import DropReason
from vnet.base.errors import HostError
from vnet.fabric.cable import Presence
from vnet.fabric.live.registry import Fabric

DROPPING_S = 60
"""A VM is `dropping` when a packet of its own or for it was dropped in so many seconds.

Multicast does not count: every guest greets routers and groups when it starts.
"""
_AS_IT_IS = ("ready", "running")
"""States of a guest with which nothing is wrong that the switch does not know better."""


def pictured(
    fabric: Fabric, vms: Iterable[Mapping[str, Any]], now_ns: int | None = None
) -> Mapping[str, Any]:
    """In plain JSON values; `vms` are those that `vnet ps` lists.

    Raises: HostError when the fabric's topology is not known.
    """
    if fabric.declared is None:
        raise HostError(f"the topology of {fabric.record.name} could not be read again: {fabric.trouble}")
    assignments = fabric.declared.inventory.assignments
    since_ns = (time.time_ns() if now_ns is None else now_ns) - DROPPING_S * 10**9
    recent = fabric.parts.switch.watch.recent
    dropping = {
        record.nic.partition(".")[0]
        for record in recent
        if record.time_ns >= since_ns and record.reason is not DropReason.MULTICAST
    }
    return {
        "source": asdict(fabric.record.source),
        "assignments": {
            nic: {"port": got.port, "mac": got.mac, "addresses": [str(address) for address in got.addresses]}
            for nic, got in assignments.items()
        },
        "states": {vm["vm"]: _state(vm, vm["vm"] in dropping) for vm in vms},
    }


def _state(vm: Mapping[str, Any], is_dropping: bool) -> str:
    """What is worst: the guest's own state, rules that are not in force, packets dropped."""
    state: str = vm["state"]
    if vm.get("endpoint"):
        state = "ready" if state == Presence.CONNECTED.value else "stopped"
    if state not in _AS_IT_IS:
        return state
    if vm["enforced"] != vm["generation"]:
        return "not enforced"
    return "dropping" if is_dropping else state
