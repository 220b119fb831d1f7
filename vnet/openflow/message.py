"""OpenFlow 1.3 messages as values, in both directions.

The transaction id is no part of a message: it travels beside it, as in `codec.encode(message, xid)`
and `xid, message = codec.decode(data)`. Numbers are in host order; MACs are 48-bit integers.
Errors and multipart messages are in `errors` and `multipart`; their names can be imported from here too.
Source: OpenFlow Switch Specification 1.3.5, section 7; bundles are ONF extension 230.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

from vnet.openflow.errors import *  # noqa: F403 - one place to import from
from vnet.openflow.flow import NO_BUFFER, Action, Flow, Match, Port
from vnet.openflow.group import ANY_GROUP, Group, Meter
from vnet.openflow.multipart import *  # noqa: F403
from vnet.openflow.multipart import MultipartReply, MultipartRequest, PortDescription

VERSION = 4
"""OpenFlow 1.3 on the wire."""

ONF = 0x4F4E4600
"""Experimenter id of the Open Networking Foundation, which bundles use in 1.3."""


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


class GroupCommand(IntEnum):
    """OFPGC_*; ADD_OR_MODIFY is an extension of Open vSwitch."""

    ADD = 0
    MODIFY = 1
    DELETE = 2
    ADD_OR_MODIFY = 0x8000


@dataclass(frozen=True, slots=True)
class GroupMod:
    """Change a group. For DELETE only the number counts, which may be ALL_GROUPS."""

    command: GroupCommand
    group: Group


class MeterCommand(IntEnum):
    """OFPMC_*."""

    ADD = 0
    MODIFY = 1
    DELETE = 2


@dataclass(frozen=True, slots=True)
class MeterMod:
    """Change a meter. For DELETE only the number counts, which may be ALL_METERS."""

    command: MeterCommand
    meter: Meter


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
    """`match` holds the pipeline fields (in_port, metadata, registers)."""

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


class PortReason(IntEnum):
    """OFPPR_*."""

    ADD = 0
    DELETE = 1
    MODIFY = 2


@dataclass(frozen=True, slots=True)
class PortStatus:
    reason: int
    port: PortDescription


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
