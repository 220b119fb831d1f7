"""A datapath that only remembers: for tests of the agent, its server and controllers."""

from __future__ import annotations

from collections.abc import Mapping

from vnet.base.errors import HostError
from vnet.openflow.flow import Action, Flow
from vnet.switch.datapath import (
    Change,
    Counter,
    FlowKey,
    PortCounter,
    Refused,
    SwitchPort,
    TableCounter,
)


class MemoryDatapath:
    """Implements `vnet.switch.datapath.Datapath`.

    `refusals` are raised for flows with that cookie; `capacity` is how many flows fit; `broken` makes
    every commit fail as if the kernel did. `sent` and `changes` record what was asked.
    """

    def __init__(self, ports: tuple[SwitchPort, ...] = (), flows: tuple[Flow, ...] = ()) -> None:
        self.installed: dict[FlowKey, Flow] = {flow.key: flow for flow in flows}
        self.counted: dict[FlowKey, Counter] = {}
        self.tables: dict[int, TableCounter] = {}
        self.port_counts: dict[int, PortCounter] = {}
        self.attached = ports
        self.refusals: dict[int, tuple[int, int]] = {}
        self.capacity = 1 << 20
        self.broken = False
        self.changes: list[Change] = []
        self.sent: list[tuple[int, tuple[Action, ...], bytes]] = []

    def flows(self) -> tuple[Flow, ...]:
        return tuple(self.installed.values())

    def check(self, flow: Flow) -> None:
        if flow.cookie in self.refusals:
            raise Refused(*self.refusals[flow.cookie], f"cookie {flow.cookie:#x} is refused", flow.key)

    def commit(self, change: Change) -> None:
        if self.broken:
            raise HostError("bpf: map update: ENOMEM")
        for flow in change.put:
            self.check(flow)
        after = {key: flow for key, flow in self.installed.items() if key not in set(change.remove)}
        after |= {flow.key: flow for flow in change.put}
        if len(after) > self.capacity:
            raise Refused(5, 1, "table full")
        for key in change.remove:
            self.counted.pop(key, None)
        self.installed = after
        self.changes.append(change)

    def flow_counters(self) -> Mapping[FlowKey, Counter]:
        return dict(self.counted)

    def table_counters(self) -> Mapping[int, TableCounter]:
        return dict(self.tables)

    def port_counters(self) -> Mapping[int, PortCounter]:
        return dict(self.port_counts)

    def ports(self) -> tuple[SwitchPort, ...]:
        return self.attached

    def packet_out(self, in_port: int, actions: tuple[Action, ...], frame: bytes) -> None:
        self.sent.append((in_port, actions, frame))
