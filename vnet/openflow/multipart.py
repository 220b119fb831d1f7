"""Multipart requests and replies as values (OpenFlow 1.3.5, section 7.3.5).

A reply with more=True is followed by others of the same xid.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntFlag

from vnet.openflow.flow import ALL_TABLES, Flow, Match, Port
from vnet.openflow.group import ALL_GROUPS, ALL_METERS, ANY_GROUP, Group, Meter

ALL_QUEUES = 0xFFFFFFFF


class PortConfig(IntFlag):
    """OFPPC_*."""

    PORT_DOWN = 1
    NO_RECV = 4
    NO_FWD = 32
    NO_PACKET_IN = 64


class PortState(IntFlag):
    """OFPPS_*."""

    LINK_DOWN = 1
    BLOCKED = 2
    LIVE = 4


@dataclass(frozen=True, slots=True)
class PortDescription:
    """`struct ofp_port`; `name` is cut to 15 bytes, speeds are in kbit/s, the rest are OFPPF_* bits."""

    number: int
    mac: int
    name: str
    config: int = 0
    state: int = 0
    current: int = 0
    advertised: int = 0
    supported: int = 0
    peer: int = 0
    current_speed_kbps: int = 0
    max_speed_kbps: int = 0


@dataclass(frozen=True, slots=True)
class DescRequest:
    pass


@dataclass(frozen=True, slots=True)
class DescReply:
    manufacturer: str = ""
    hardware: str = ""
    software: str = ""
    serial: str = ""
    datapath: str = ""
    more: bool = False


@dataclass(frozen=True, slots=True)
class FlowStatsRequest:
    """Which flows: table, match (not strict), cookie under mask, an output or group they send to."""

    table: int = ALL_TABLES
    match: Match = field(default_factory=Match)
    cookie: int = 0
    cookie_mask: int = 0
    out_port: int = Port.ANY
    out_group: int = ANY_GROUP


@dataclass(frozen=True, slots=True)
class FlowStats:
    """One flow and how much it has matched since it was added."""

    flow: Flow
    duration_ns: int = 0
    packets: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class FlowStatsReply:
    flows: tuple[FlowStats, ...] = ()
    more: bool = False


@dataclass(frozen=True, slots=True)
class AggregateRequest:
    table: int = ALL_TABLES
    match: Match = field(default_factory=Match)
    cookie: int = 0
    cookie_mask: int = 0
    out_port: int = Port.ANY
    out_group: int = ANY_GROUP


@dataclass(frozen=True, slots=True)
class AggregateReply:
    packets: int = 0
    bytes: int = 0
    flows: int = 0
    more: bool = False


@dataclass(frozen=True, slots=True)
class TableStatsRequest:
    pass


@dataclass(frozen=True, slots=True)
class TableStats:
    table: int
    active: int = 0
    lookups: int = 0
    matched: int = 0


@dataclass(frozen=True, slots=True)
class TableStatsReply:
    tables: tuple[TableStats, ...] = ()
    more: bool = False


@dataclass(frozen=True, slots=True)
class PortStatsRequest:
    port: int = Port.ANY


@dataclass(frozen=True, slots=True)
class PortStats:
    """What the switch received (rx) and sent (tx) by a port."""

    port: int
    rx_packets: int = 0
    tx_packets: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    rx_dropped: int = 0
    tx_dropped: int = 0
    duration_ns: int = 0


@dataclass(frozen=True, slots=True)
class PortStatsReply:
    ports: tuple[PortStats, ...] = ()
    more: bool = False


@dataclass(frozen=True, slots=True)
class PortDescRequest:
    pass


@dataclass(frozen=True, slots=True)
class PortDescReply:
    ports: tuple[PortDescription, ...] = ()
    more: bool = False


@dataclass(frozen=True, slots=True)
class TableFeatures:
    """What one table can do; `fields` names are those of `vnet.openflow.fields`.

    `instructions` and `actions` are OFPIT_* and OFPAT_* numbers, `next_tables` the targets of goto.
    """

    table: int
    name: str
    max_entries: int
    metadata_match: int = 0
    metadata_write: int = 0
    match_fields: tuple[str, ...] = ()
    masked_fields: tuple[str, ...] = ()
    """Those of `match_fields` that may be matched under a mask."""
    set_fields: tuple[str, ...] = ()
    instructions: tuple[int, ...] = ()
    actions: tuple[int, ...] = ()
    next_tables: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TableFeaturesRequest:
    """With a body it asks to change the tables, which this switch refuses; the body is not kept."""

    has_body: bool = False


@dataclass(frozen=True, slots=True)
class TableFeaturesReply:
    tables: tuple[TableFeatures, ...] = ()
    more: bool = False


@dataclass(frozen=True, slots=True)
class QueueStatsRequest:
    port: int = Port.ANY
    queue: int = ALL_QUEUES


@dataclass(frozen=True, slots=True)
class QueueStatsReply:
    """No queues: this switch has none."""

    more: bool = False


@dataclass(frozen=True, slots=True)
class GroupStatsRequest:
    group: int = ALL_GROUPS


@dataclass(frozen=True, slots=True)
class GroupStats:
    """How much a group has treated. `ref_count` is the number of flows and groups that send to it."""

    group: int
    ref_count: int = 0
    packets: int = 0
    bytes: int = 0
    duration_ns: int = 0
    buckets: tuple[tuple[int, int], ...] = ()
    """(packets, bytes) of each bucket in order."""


@dataclass(frozen=True, slots=True)
class GroupStatsReply:
    groups: tuple[GroupStats, ...] = ()
    more: bool = False


@dataclass(frozen=True, slots=True)
class GroupDescRequest:
    pass


@dataclass(frozen=True, slots=True)
class GroupDescReply:
    groups: tuple[Group, ...] = ()
    more: bool = False


@dataclass(frozen=True, slots=True)
class GroupFeaturesRequest:
    pass


class GroupCapability(IntFlag):
    """OFPGFC_*."""

    SELECT_WEIGHT = 1
    SELECT_LIVENESS = 2
    CHAINING = 4
    CHAINING_CHECKS = 8


@dataclass(frozen=True, slots=True)
class GroupFeaturesReply:
    """What groups there can be; the fours are by `GroupType`."""

    types: int = 0
    """Bit n = GroupType n."""
    capabilities: int = 0
    max_groups: tuple[int, int, int, int] = (0, 0, 0, 0)
    actions: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Bit n = OFPAT_* n."""
    more: bool = False


@dataclass(frozen=True, slots=True)
class MeterStatsRequest:
    meter: int = ALL_METERS


@dataclass(frozen=True, slots=True)
class MeterStats:
    """How much a meter has let in and each of its bands has acted on."""

    meter: int
    flow_count: int = 0
    packets_in: int = 0
    bytes_in: int = 0
    duration_ns: int = 0
    bands: tuple[tuple[int, int], ...] = ()
    """(packets, bytes) of each band in order."""


@dataclass(frozen=True, slots=True)
class MeterStatsReply:
    meters: tuple[MeterStats, ...] = ()
    more: bool = False


@dataclass(frozen=True, slots=True)
class MeterConfigRequest:
    meter: int = ALL_METERS


@dataclass(frozen=True, slots=True)
class MeterConfigReply:
    meters: tuple[Meter, ...] = ()
    more: bool = False


@dataclass(frozen=True, slots=True)
class MeterFeaturesRequest:
    pass


@dataclass(frozen=True, slots=True)
class MeterFeaturesReply:
    max_meter: int = 0
    band_types: int = 0
    """Bit n = BandType n."""
    capabilities: int = 0
    """Which flags of `MeterFlag` a meter may have."""
    max_bands: int = 0
    max_color: int = 0
    more: bool = False


MultipartRequest = (
    DescRequest
    | FlowStatsRequest
    | AggregateRequest
    | TableStatsRequest
    | PortStatsRequest
    | PortDescRequest
    | TableFeaturesRequest
    | QueueStatsRequest
    | GroupStatsRequest
    | GroupDescRequest
    | GroupFeaturesRequest
    | MeterStatsRequest
    | MeterConfigRequest
    | MeterFeaturesRequest
)

MultipartReply = (
    DescReply
    | FlowStatsReply
    | AggregateReply
    | TableStatsReply
    | PortStatsReply
    | PortDescReply
    | TableFeaturesReply
    | QueueStatsReply
    | GroupStatsReply
    | GroupDescReply
    | GroupFeaturesReply
    | MeterStatsReply
    | MeterConfigReply
    | MeterFeaturesReply
)
