"""What the OpenFlow agent needs of a datapath; `live.datapath` is the eBPF one, tests use a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

from vnet.base.errors import VnetError
from vnet.openflow.flow import Action, Flow, Match
from vnet.openflow.group import Group, Meter
from vnet.openflow.message import PortConfig


def datapath_id(name: str) -> int:
    """A switch's number in OpenFlow: 48 bits that follow from its name."""
    return int.from_bytes(blake2b(name.encode(), digest_size=6).digest(), "big")


FlowKey = tuple[int, int, Match]


@dataclass(frozen=True, slots=True)
class GroupKey:
    number: int


@dataclass(frozen=True, slots=True)
class MeterKey:
    number: int


ChangeKey = FlowKey | GroupKey | MeterKey
"""What a part of a change is about."""


@dataclass(frozen=True, slots=True)
class Counter:
    packets: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class PortCounter:
    rx: Counter = Counter()
    tx: Counter = Counter()
    rx_dropped: int = 0
    """Packets that came in by this port and were lost, for whatever reason."""
    tx_dropped: int = 0
    """Packets that should have left by this port but were too long for it."""


@dataclass(frozen=True, slots=True)
class TableCounter:
    lookups: int = 0
    matched: int = 0


@dataclass(frozen=True, slots=True)
class GroupCounter:
    """What a group has treated, and each of its buckets in order."""

    total: Counter = Counter()
    buckets: tuple[Counter, ...] = ()


@dataclass(frozen=True, slots=True)
class MeterCounter:
    """What came to a meter, and what exceeded each of its bands in order."""

    total: Counter = Counter()
    bands: tuple[Counter, ...] = ()


@dataclass(frozen=True, slots=True)
class SwitchPort:
    """A port: number (1…0xFFFFFEFF), kernel interface name, MAC (48-bit integer), link state."""

    number: int
    name: str
    mac: int
    up: bool
    """The link: switched on and with a carrier."""
    config: int = 0
    """`PortConfig` bits."""


@dataclass(frozen=True, slots=True)
class Change:
    """Flows, groups and meters to add or replace, and those to remove; visible to packets all at once.

    A flow that replaces another goes on counting where that left off. A key in both was removed and
    added again: it counts from zero. A group or meter that replaces another counts from zero, but a
    meter with the same bands goes on.
    """

    put: tuple[Flow, ...] = ()
    remove: tuple[FlowKey, ...] = ()
    put_groups: tuple[Group, ...] = ()
    remove_groups: tuple[int, ...] = ()
    put_meters: tuple[Meter, ...] = ()
    remove_meters: tuple[int, ...] = ()


class Refused(VnetError):
    """The datapath cannot carry out a flow; nothing was changed.

    `error_type` and `code` are those of the OpenFlow error to answer with (section 7.5.4), `key` the
    flow, group or meter it is about, if it is about one.
    """

    def __init__(self, error_type: int, code: int, why: str, key: ChangeKey | None = None) -> None:
        self.error_type, self.code, self.key = error_type, code, key
        super().__init__(why)


class Datapath(Protocol):
    """All calls block, are called from one thread at a time, and raise HostError if the kernel refuses."""

    def flows(self) -> tuple[Flow, ...]:
        """The flows now in force (after adoption: those the kernel kept)."""

    def groups(self) -> tuple[Group, ...]:
        """The groups now in force."""

    def meters(self) -> tuple[Meter, ...]:
        """The meters now in force."""

    def check(self, flow: Flow) -> None:
        """Raise `Refused` if the flow cannot be carried out by this datapath."""

    def check_group(self, group: Group) -> None:
        """The same for a group."""

    def check_meter(self, meter: Meter) -> None:
        """The same for a meter."""

    def commit(self, change: Change) -> None:
        """Put the change in force; on return no packet is decided by what it superseded."""

    def flow_counters(self) -> Mapping[FlowKey, Counter]:
        """Since each flow was added, through all its replacements."""

    def table_counters(self) -> Mapping[int, TableCounter]:
        """By table number."""

    def port_counters(self) -> Mapping[int, PortCounter]:
        """By port number, as the switch sees it: rx is what came from the VM."""

    def group_counters(self) -> Mapping[int, GroupCounter]:
        """By group number."""

    def meter_counters(self) -> Mapping[int, MeterCounter]:
        """By meter number."""

    def ports(self) -> tuple[SwitchPort, ...]:
        """The ports attached now."""

    def configure_port(self, number: int, config: PortConfig) -> None:
        """Put OFPPC_* of a port in force; `SwitchPort.config` tells them afterwards."""

    def packet_out(self, in_port: int, actions: tuple[Action, ...], frame: bytes) -> None:
        """Carry out a controller's actions on its packet; raises `Refused` for what it cannot do.

        `in_port` may be Port.CONTROLLER, LOCAL or ANY: then no port is the ingress.
        """
