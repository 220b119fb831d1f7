"""A datapath that only remembers: for tests of the agent, its server and controllers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from vnet.base.errors import HostError
from vnet.openflow.flow import Action, Flow, ToGroup
from vnet.openflow.group import Group, Meter
from vnet.openflow.message import PortConfig
from vnet.switch.datapath import (
    Change,
    Counter,
    FlowKey,
    GroupCounter,
    GroupKey,
    MeterCounter,
    MeterKey,
    PortCounter,
    Refused,
    SwitchPort,
    TableCounter,
)

T = TypeVar("T", Group, Meter)


class MemoryDatapath:
    """Implements `vnet.switch.datapath.Datapath`.

    `refusals` are raised for flows with that cookie, `refused_groups` and `refused_meters` for those of
    that number; `capacity` is how many flows fit; `broken` makes every commit fail as if the kernel did.
    `sent` and `changes` record what was asked.
    """

    def __init__(self, ports: tuple[SwitchPort, ...] = (), flows: tuple[Flow, ...] = ()) -> None:
        self.installed: dict[FlowKey, Flow] = {flow.key: flow for flow in flows}
        self.counted: dict[FlowKey, Counter] = {}
        self.tables: dict[int, TableCounter] = {}
        self.port_counts: dict[int, PortCounter] = {}
        self.group_table: dict[int, Group] = {}
        self.meter_table: dict[int, Meter] = {}
        self.group_counts: dict[int, GroupCounter] = {}
        self.meter_counts: dict[int, MeterCounter] = {}
        self.attached = ports
        self.refusals: dict[int, tuple[int, int]] = {}
        self.refused_groups: dict[int, tuple[int, int]] = {}
        self.refused_meters: dict[int, tuple[int, int]] = {}
        self.capacity = 1 << 20
        self.broken = False
        self.changes: list[Change] = []
        self.sent: list[tuple[int, tuple[Action, ...], bytes]] = []

    def flows(self) -> tuple[Flow, ...]:
        return tuple(self.installed.values())

    def check(self, flow: Flow) -> None:
        if flow.cookie in self.refusals:
            raise Refused(*self.refusals[flow.cookie], f"cookie {flow.cookie:#x} is refused", flow.key)

    def groups(self) -> tuple[Group, ...]:
        return tuple(self.group_table.values())

    def meters(self) -> tuple[Meter, ...]:
        return tuple(self.meter_table.values())

    def check_group(self, group: Group) -> None:
        if group.number in self.refused_groups:
            error = self.refused_groups[group.number]
            raise Refused(*error, f"group {group.number} is refused", GroupKey(group.number))

    def check_meter(self, meter: Meter) -> None:
        if meter.number in self.refused_meters:
            error = self.refused_meters[meter.number]
            raise Refused(*error, f"meter {meter.number} is refused", MeterKey(meter.number))

    def commit(self, change: Change) -> None:
        if self.broken:
            raise HostError("bpf: map update: ENOMEM")
        for group in change.put_groups:
            self.check_group(group)
        for meter in change.put_meters:
            self.check_meter(meter)
        for flow in change.put:
            self.check(flow)
        after = {key: flow for key, flow in self.installed.items() if key not in set(change.remove)}
        after |= {flow.key: flow for flow in change.put}
        if len(after) > self.capacity:
            raise Refused(5, 1, "table full")
        for key in change.remove:
            self.counted.pop(key, None)
        self.installed = after
        self.group_table = _changed(self.group_table, change.put_groups, change.remove_groups)
        self.meter_table = _changed(self.meter_table, change.put_meters, change.remove_meters)
        self._check_references()
        self.changes.append(change)

    def _check_references(self) -> None:
        """The agent never has a flow in force that needs what is not there."""
        for flow in self.installed.values():
            actions = flow.instructions.apply + flow.instructions.write
            assert all(a.group in self.group_table for a in actions if isinstance(a, ToGroup)), flow
            assert flow.instructions.meter in (None, *self.meter_table), flow

    def flow_counters(self) -> Mapping[FlowKey, Counter]:
        return dict(self.counted)

    def table_counters(self) -> Mapping[int, TableCounter]:
        return dict(self.tables)

    def port_counters(self) -> Mapping[int, PortCounter]:
        return dict(self.port_counts)

    def group_counters(self) -> Mapping[int, GroupCounter]:
        return dict(self.group_counts)

    def meter_counters(self) -> Mapping[int, MeterCounter]:
        return dict(self.meter_counts)

    def configure_port(self, number: int, config: PortConfig) -> None:
        self.attached = tuple(
            replace(port, config=int(config)) if port.number == number else port for port in self.attached
        )

    def ports(self) -> tuple[SwitchPort, ...]:
        """A port that is switched off is not up."""
        return tuple(
            replace(port, up=port.up and not port.config & PortConfig.PORT_DOWN) for port in self.attached
        )

    def packet_out(self, in_port: int, actions: tuple[Action, ...], frame: bytes) -> None:
        self.sent.append((in_port, actions, frame))


def _changed(before: dict[int, T], put: tuple[T, ...], remove: tuple[int, ...]) -> dict[int, T]:
    assert set(remove) <= before.keys(), "removes what is not there"
    kept = {number: value for number, value in before.items() if number not in remove}
    return kept | {value.number: value for value in put}
