"""Fabrics to drill, and a twin in memory: the slow interpreter in place of the kernel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from vnet.base.drop import DropReason
from vnet.base.limits import Limits
from vnet.drill.attack import Step
from vnet.drill.run import Observed
from vnet.drill.scene import Scene
from vnet.fabric.declared import Declared, declare
from vnet.fabric.drill import scene
from vnet.fabric.store import Source
from vnet.openflow.flow import Flow
from vnet.openflow.table import PortState, SlowSwitch
from vnet.topology.inventory import Nic

ROOT = Path(__file__).parents[3]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SMALLEST, LARGEST = 14, 1514
"""Bytes: the kernel takes no less from a TAP (drivers/net/tun.c); the switch sends no more to one."""
OPEN = """\
name: open
defaults: {image: micro}
networks:
  lan: {vlan: 10, subnets: [10.0.0.0/24, "fd00::/64"]}
  other: {vlan: 20, subnets: [10.0.1.0/24, "fd01::/64"]}
vms:
  a: {networks: [lan]}
  b: {networks: [lan], groups: [open]}
  c: {networks: [lan]}
  x: {networks: [other], groups: [open]}
policies:
  - {name: open, applied_to: open, ingress: [{from: any}]}
"""
"""`b` is open to all: there the guards are all that is left between an attacker and its victim."""


@cache
def opened() -> Declared:
    return declare(Source("open.vnet.yaml", OPEN, {}), {}, NOW)


@cache
def three_tier() -> Declared:
    text = (ROOT / "topologies" / "three-tier.vnet.yaml").read_text(encoding="utf-8")
    return declare(Source("three-tier.vnet.yaml", text, {}), {}, NOW)


def nic(declared: Declared, name: str) -> Nic:
    return next(nic for nic in declared.inventory.nics if nic.name == name)


def acting(declared: Declared, name: str, limits: Limits | None = None) -> Scene:
    return scene(declared, nic(declared, name), limits)


def numbers(declared: Declared) -> dict[str, int]:
    return {nic.name: nic.port for nic in declared.inventory.nics}


class SlowTwin:
    """See `vnet.drill.run.Twin`; `ports` are the numbers of the NICs by name. It knows no quotas."""

    def __init__(self, flows: Iterable[Flow], ports: Mapping[str, int]) -> None:
        self._switch = SlowSwitch(flows, {number: PortState() for number in ports.values()})
        self._ports = ports
        self._names = {number: name for name, number in ports.items()}
        self.dropped_by: set[int] = set()
        """The cookies of all flows that have dropped something."""

    def send(self, step: Step) -> Observed:
        reasons: Counter[DropReason] = Counter()
        cookies: dict[DropReason, int] = {}
        arrived: Counter[str] = Counter()
        taken = [frame for frame in step.frames if len(frame) >= SMALLEST]
        for frame in taken:
            outcome = self._switch.receive(self._ports[step.sender], frame, 0.0)
            reason = DropReason.MTU if outcome.outputs and len(frame) > LARGEST else outcome.drop
            if reason is None:
                arrived.update(self._names[port] for port, _ in outcome.outputs)
                continue
            reasons[reason] += 1
            last = next((one.flow for one in reversed(outcome.trail) if one.flow), None)
            if last is not None:
                cookies[reason] = last.cookie
                self.dropped_by.add(last.cookie)
        return Observed(len(step.frames), len(step.frames) - len(taken), reasons, cookies, arrived)

    def forget(self) -> None:
        self._switch.tracker.flush()
