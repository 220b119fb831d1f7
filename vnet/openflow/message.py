"""OpenFlow 1.3 messages as values, in both directions.

The transaction id is no part of a message: it travels beside it, as in `codec.encode(message, xid)`
and `xid, message = codec.decode(data)`. Numbers are in host order; MACs are 48-bit integers.
Source: OpenFlow Switch Specification 1.3.5, section 7; bundles are ONF extension 230.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

from vnet.openflow.flow import ALL_TABLES, NO_BUFFER, Action, Flow, Match, Port
from vnet.openflow.group import ALL_GROUPS, ALL_METERS, ANY_GROUP

VERSION = 4
"""OpenFlow 1.3 on the wire."""

ALL_QUEUES = 0xFFFFFFFF
ONF = 0x4F4E4600
"""Experimenter id of the Open Networking Foundation, which bundles use in 1.3."""


# -- errors ---------------------------------------------------------------------------------------


class ErrorType(IntEnum):
    """OFPET_* (section 7.5.4)."""

    HELLO_FAILED = 0
    BAD_REQUEST = 1
    BAD_ACTION = 2
    BAD_INSTRUCTION = 3
    BAD_MATCH = 4
    FLOW_MOD_FAILED = 5
    GROUP_MOD_FAILED = 6
    PORT_MOD_FAILED = 7
    TABLE_MOD_FAILED = 8
    QUEUE_OP_FAILED = 9
    SWITCH_CONFIG_FAILED = 10
    ROLE_REQUEST_FAILED = 11
    METER_MOD_FAILED = 12
    TABLE_FEATURES_FAILED = 13
    EXPERIMENTER = 0xFFFF


class HelloFailed(IntEnum):
    """OFPHFC_*."""

    INCOMPATIBLE = 0
    EPERM = 1


class BadRequest(IntEnum):
    """OFPBRC_*."""

    BAD_VERSION = 0
    BAD_TYPE = 1
    BAD_MULTIPART = 2
    BAD_EXPERIMENTER = 3
    BAD_EXP_TYPE = 4
    EPERM = 5
    BAD_LEN = 6
    BUFFER_EMPTY = 7
    BUFFER_UNKNOWN = 8
    BAD_TABLE_ID = 9
    IS_SLAVE = 10
    BAD_PORT = 11
    BAD_PACKET = 12
    MULTIPART_BUFFER_OVERFLOW = 13


class BadAction(IntEnum):
    """OFPBAC_*."""

    BAD_TYPE = 0
    BAD_LEN = 1
    BAD_EXPERIMENTER = 2
    BAD_EXP_TYPE = 3
    BAD_OUT_PORT = 4
    BAD_ARGUMENT = 5
    EPERM = 6
    TOO_MANY = 7
    BAD_QUEUE = 8
    BAD_OUT_GROUP = 9
    MATCH_INCONSISTENT = 10
    UNSUPPORTED_ORDER = 11
    BAD_TAG = 12
    BAD_SET_TYPE = 13
    BAD_SET_LEN = 14
    BAD_SET_ARGUMENT = 15


class BadInstruction(IntEnum):
    """OFPBIC_*."""

    UNKNOWN_INST = 0
    UNSUP_INST = 1
    BAD_TABLE_ID = 2
    UNSUP_METADATA = 3
    UNSUP_METADATA_MASK = 4
    BAD_EXPERIMENTER = 5
    BAD_EXP_TYPE = 6
    BAD_LEN = 7
    EPERM = 8
    DUP_INST = 9
    """From 1.4.1; Open vSwitch answers with it in 1.3 too."""


class BadMatch(IntEnum):
    """OFPBMC_*."""

    BAD_TYPE = 0
    BAD_LEN = 1
    BAD_TAG = 2
    BAD_DL_ADDR_MASK = 3
    BAD_NW_ADDR_MASK = 4
    BAD_WILDCARDS = 5
    BAD_FIELD = 6
    BAD_VALUE = 7
    BAD_MASK = 8
    BAD_PREREQ = 9
    DUP_FIELD = 10
    EPERM = 11


class FlowModFailed(IntEnum):
    """OFPFMFC_*."""

    UNKNOWN = 0
    TABLE_FULL = 1
    BAD_TABLE_ID = 2
    OVERLAP = 3
    EPERM = 4
    BAD_TIMEOUT = 5
    BAD_COMMAND = 6
    BAD_FLAGS = 7


class GroupModFailed(IntEnum):
    """OFPGMFC_*."""

    GROUP_EXISTS = 0
    INVALID_GROUP = 1
    WEIGHT_UNSUPPORTED = 2
    OUT_OF_GROUPS = 3
    OUT_OF_BUCKETS = 4
    CHAINING_UNSUPPORTED = 5
    WATCH_UNSUPPORTED = 6
    LOOP = 7
    UNKNOWN_GROUP = 8
    CHAINED_GROUP = 9
    BAD_TYPE = 10
    BAD_COMMAND = 11
    BAD_BUCKET = 12
    BAD_WATCH = 13
    EPERM = 14


class PortModFailed(IntEnum):
    """OFPPMFC_*."""

    BAD_PORT = 0
    BAD_HW_ADDR = 1
    BAD_CONFIG = 2
    BAD_ADVERTISE = 3
    EPERM = 4


class TableModFailed(IntEnum):
    """OFPTMFC_*."""

    BAD_TABLE = 0
    BAD_CONFIG = 1
    EPERM = 2


class QueueOpFailed(IntEnum):
    """OFPQOFC_*."""

    BAD_PORT = 0
    BAD_QUEUE = 1
    EPERM = 2


class SwitchConfigFailed(IntEnum):
    """OFPSCFC_*."""

    BAD_FLAGS = 0
    BAD_LEN = 1
    EPERM = 2


class RoleRequestFailed(IntEnum):
    """OFPRRFC_*."""

    STALE = 0
    UNSUP = 1
    BAD_ROLE = 2


class MeterModFailed(IntEnum):
    """OFPMMFC_*."""

    UNKNOWN = 0
    METER_EXISTS = 1
    INVALID_METER = 2
    UNKNOWN_METER = 3
    BAD_COMMAND = 4
    BAD_FLAGS = 5
    BAD_RATE = 6
    BAD_BURST = 7
    BAD_BAND = 8
    BAD_BAND_VALUE = 9
    OUT_OF_METERS = 10
    OUT_OF_BANDS = 11


class TableFeaturesFailed(IntEnum):
    """OFPTFFC_*."""

    BAD_TABLE = 0
    BAD_METADATA = 1
    BAD_TYPE = 2
    BAD_LEN = 3
    BAD_ARGUMENT = 4
    EPERM = 5


class BundleFailed(IntEnum):
    """ONFERR_ET_* of extension 230: experimenter errors whose experimenter is `ONF`."""

    UNKNOWN = 2300
    EPERM = 2301
    BAD_ID = 2302
    BUNDLE_EXIST = 2303
    BUNDLE_CLOSED = 2304
    OUT_OF_BUNDLES = 2305
    BAD_TYPE = 2306
    BAD_FLAGS = 2307
    MSG_BAD_LEN = 2308
    MSG_BAD_XID = 2309
    MSG_UNSUP = 2310
    MSG_CONFLICT = 2311
    MSG_TOO_MANY = 2312
    MSG_FAILED = 2313
    TIMEOUT = 2314
    BUNDLE_IN_PROGRESS = 2315


# -- symmetric and handshake ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """`version` is that of the header, `versions` those of the bitmap (empty: none was sent)."""

    version: int = VERSION
    versions: tuple[int, ...] = (VERSION,)

    def speaks(self, version: int) -> bool:
        """Whether both sides can use `version` (section 6.3.1)."""
        return version in self.versions if self.versions else version <= self.version


@dataclass(frozen=True, slots=True)
class Error:
    """`data` is at least the first 64 bytes of the request, or a text for HELLO_FAILED.

    For ErrorType.EXPERIMENTER `code` is the exp_type and `experimenter` its owner.
    """

    type: int
    code: int
    data: bytes = b""
    experimenter: int = 0


@dataclass(frozen=True, slots=True)
class EchoRequest:
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class EchoReply:
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Experimenter:
    """A vendor message that no other class here stands for."""

    experimenter: int
    exp_type: int
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class FeaturesRequest:
    pass


class Capability(IntFlag):
    """OFPC_* (section 7.3.1)."""

    FLOW_STATS = 1
    TABLE_STATS = 2
    PORT_STATS = 4
    GROUP_STATS = 8
    IP_REASM = 32
    QUEUE_STATS = 64
    PORT_BLOCKED = 256


@dataclass(frozen=True, slots=True)
class FeaturesReply:
    datapath_id: int
    n_tables: int
    n_buffers: int = 0
    auxiliary_id: int = 0
    capabilities: int = 0


@dataclass(frozen=True, slots=True)
class GetConfigRequest:
    pass


@dataclass(frozen=True, slots=True)
class GetConfigReply:
    """`flags`: handling of IP fragments, 0 = normal. `miss_send_len` in bytes, 0xFFFF = whole packet."""

    flags: int = 0
    miss_send_len: int = 128


@dataclass(frozen=True, slots=True)
class SetConfig:
    flags: int = 0
    miss_send_len: int = 128


@dataclass(frozen=True, slots=True)
class BarrierRequest:
    pass


@dataclass(frozen=True, slots=True)
class BarrierReply:
    pass


# -- controller to switch: state ------------------------------------------------------------------


class FlowCommand(IntEnum):
    """OFPFC_*."""

    ADD = 0
    MODIFY = 1
    MODIFY_STRICT = 2
    DELETE = 3
    DELETE_STRICT = 4


@dataclass(frozen=True, slots=True)
class FlowMod:
    """Change flows. For the deletions `flow.table` may be ALL_TABLES and `flow.cookie` is a filter.

    `cookie_mask` restricts MODIFY and DELETE to flows with equal bits there; 0 = no restriction.
    `out_port` and `out_group` restrict DELETE to flows that send there.
    """

    command: FlowCommand
    flow: Flow
    cookie_mask: int = 0
    out_port: int = Port.ANY
    out_group: int = ANY_GROUP
    buffer_id: int = NO_BUFFER


@dataclass(frozen=True, slots=True)
class PacketOut:
    """Send a packet: `frame` if `buffer_id` is NO_BUFFER."""

    in_port: int
    actions: tuple[Action, ...]
    frame: bytes = b""
    buffer_id: int = NO_BUFFER


@dataclass(frozen=True, slots=True)
class PortMod:
    number: int
    mac: int
    config: int = 0
    mask: int = 0
    advertise: int = 0


@dataclass(frozen=True, slots=True)
class TableMod:
    table: int
    config: int = 0


@dataclass(frozen=True, slots=True)
class GroupMod:
    """Its buckets are not kept: this switch has no groups to put them in."""

    command: int
    kind: int
    group: int


@dataclass(frozen=True, slots=True)
class MeterMod:
    """Its bands are not kept: this switch has no meters to put them in."""

    command: int
    flags: int
    meter: int


class Role(IntEnum):
    """OFPCR_ROLE_*."""

    NOCHANGE = 0
    EQUAL = 1
    MASTER = 2
    SLAVE = 3


@dataclass(frozen=True, slots=True)
class RoleRequest:
    role: int
    generation_id: int = 0


@dataclass(frozen=True, slots=True)
class RoleReply:
    role: int
    generation_id: int = 0


@dataclass(frozen=True, slots=True)
class AsyncMasks:
    """Which reasons are sent: bit n = reason n; each pair is (as master or equal, as slave)."""

    packet_in: tuple[int, int] = (0b011, 0)
    port_status: tuple[int, int] = (0b111, 0b111)
    flow_removed: tuple[int, int] = (0b1111, 0)


@dataclass(frozen=True, slots=True)
class GetAsyncRequest:
    pass


@dataclass(frozen=True, slots=True)
class GetAsyncReply:
    masks: AsyncMasks = field(default_factory=AsyncMasks)


@dataclass(frozen=True, slots=True)
class SetAsync:
    masks: AsyncMasks = field(default_factory=AsyncMasks)


@dataclass(frozen=True, slots=True)
class QueueGetConfigRequest:
    port: int = Port.ANY


@dataclass(frozen=True, slots=True)
class QueueGetConfigReply:
    """No queues: this switch has none."""

    port: int = Port.ANY


# -- switch to controller: events -----------------------------------------------------------------


class PacketInReason(IntEnum):
    """OFPR_*."""

    NO_MATCH = 0
    """Sent by a table-miss flow (section 5.4)."""
    ACTION = 1
    INVALID_TTL = 2


@dataclass(frozen=True, slots=True)
class PacketIn:
    """`match` holds the pipeline fields (in_port, metadata, registers); `frame` may be cut to max_len."""

    reason: int
    table: int
    cookie: int
    match: Match
    frame: bytes
    total_len: int
    buffer_id: int = NO_BUFFER


class FlowRemovedReason(IntEnum):
    """OFPRR_*."""

    IDLE_TIMEOUT = 0
    HARD_TIMEOUT = 1
    DELETE = 2
    GROUP_DELETE = 3


@dataclass(frozen=True, slots=True)
class FlowRemoved:
    """`flow.instructions` and `flow.flags` do not travel: they are empty after decoding."""

    reason: int
    flow: Flow
    duration_ns: int = 0
    packets: int = 0
    bytes: int = 0


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


class PortReason(IntEnum):
    """OFPPR_*."""

    ADD = 0
    DELETE = 1
    MODIFY = 2


@dataclass(frozen=True, slots=True)
class PortStatus:
    reason: int
    port: PortDescription


# -- multipart ------------------------------------------------------------------------------------
# A reply with more=True is followed by others of the same xid.


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
class GroupStatsReply:
    """No groups: this switch has none."""

    more: bool = False


@dataclass(frozen=True, slots=True)
class GroupDescRequest:
    pass


@dataclass(frozen=True, slots=True)
class GroupDescReply:
    """No groups: this switch has none."""

    more: bool = False


@dataclass(frozen=True, slots=True)
class GroupFeaturesRequest:
    pass


@dataclass(frozen=True, slots=True)
class GroupFeaturesReply:
    """All zeros: no type of group, none of them."""

    more: bool = False


@dataclass(frozen=True, slots=True)
class MeterStatsRequest:
    meter: int = ALL_METERS


@dataclass(frozen=True, slots=True)
class MeterStatsReply:
    """No meters: this switch has none."""

    more: bool = False


@dataclass(frozen=True, slots=True)
class MeterConfigRequest:
    meter: int = ALL_METERS


@dataclass(frozen=True, slots=True)
class MeterConfigReply:
    """No meters: this switch has none."""

    more: bool = False


@dataclass(frozen=True, slots=True)
class MeterFeaturesRequest:
    pass


@dataclass(frozen=True, slots=True)
class MeterFeaturesReply:
    """All zeros: no type of band, no meters."""

    more: bool = False


# -- bundles --------------------------------------------------------------------------------------


class BundleControlType(IntEnum):
    """ONF_BCT_*."""

    OPEN_REQUEST = 0
    OPEN_REPLY = 1
    CLOSE_REQUEST = 2
    CLOSE_REPLY = 3
    COMMIT_REQUEST = 4
    COMMIT_REPLY = 5
    DISCARD_REQUEST = 6
    DISCARD_REPLY = 7


class BundleFlag(IntFlag):
    """ONF_BF_*: apply all or nothing; apply in the order given."""

    ATOMIC = 1
    ORDERED = 2


@dataclass(frozen=True, slots=True)
class BundleControl:
    bundle_id: int
    type: int
    flags: int = 0


@dataclass(frozen=True, slots=True)
class BundleAdd:
    """Its message bears the same xid on the wire as the BundleAdd itself."""

    bundle_id: int
    message: Message
    flags: int = 0


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

Message = (
    Hello
    | Error
    | EchoRequest
    | EchoReply
    | Experimenter
    | FeaturesRequest
    | FeaturesReply
    | GetConfigRequest
    | GetConfigReply
    | SetConfig
    | PacketIn
    | FlowRemoved
    | PortStatus
    | PacketOut
    | FlowMod
    | GroupMod
    | PortMod
    | TableMod
    | MultipartRequest
    | MultipartReply
    | BarrierRequest
    | BarrierReply
    | QueueGetConfigRequest
    | QueueGetConfigReply
    | RoleRequest
    | RoleReply
    | GetAsyncRequest
    | GetAsyncReply
    | SetAsync
    | MeterMod
    | BundleControl
    | BundleAdd
)
