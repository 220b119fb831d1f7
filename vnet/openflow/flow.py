"""Flows as values: match, actions, instructions.

Field names, widths and prerequisites are those of OpenFlow 1.3.5 section 7.2.3.7 (OXM) and of the
Nicira extensions (`nicira-ext.h`): see `vnet.openflow.fields`. All field values are unsigned
integers in host order: a MAC is a 48-bit integer, an IPv6 address a 128-bit one.
`vlan_vid` follows OpenFlow: 0 = untagged, 0x1000|vid = tagged, 0x1000/0x1000 = any tag.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

NO_BUFFER = 0xFFFFFFFF
ALL_TABLES = 0xFF


class Port(IntEnum):
    """Reserved ports (OpenFlow 1.3.5, section 7.2.1)."""

    MAX = 0xFFFFFF00
    IN_PORT = 0xFFFFFFF8
    TABLE = 0xFFFFFFF9
    NORMAL = 0xFFFFFFFA
    FLOOD = 0xFFFFFFFB
    ALL = 0xFFFFFFFC
    CONTROLLER = 0xFFFFFFFD
    LOCAL = 0xFFFFFFFE
    ANY = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, order=True)
class Match:
    """A conjunction of `field: (value, mask)`; an empty match takes every packet.

    Entries are sorted by field name and normalised: value & ~mask == 0. `mask` is all ones
    (see `fields.FIELDS[name].full_mask`) for an exact match. Build with `match(...)`.
    """

    entries: tuple[tuple[str, int, int], ...] = ()

    def __iter__(self) -> Iterator[tuple[str, int, int]]:
        return iter(self.entries)

    def get(self, name: str) -> tuple[int, int] | None:
        """The (value, mask) of one field, or None when it is not matched."""
        for entry, value, mask in self.entries:
            if entry == name:
                return value, mask
        return None


def match(**wanted: int | tuple[int, int]) -> Match:
    """Build a match from `name=value` or `name=(value, mask)`.

    Raises: KeyError for an unknown field, ValueError for a value wider than its field.
    """
    from vnet.openflow.fields import FIELDS

    entries = []
    for name, given in sorted(wanted.items()):
        full = FIELDS[name].full_mask
        value, mask = given if isinstance(given, tuple) else (given, full)
        if value & ~full or mask & ~full:
            raise ValueError(f"{name}={value:#x}/{mask:#x} is wider than {FIELDS[name].bits} bits")
        if mask:
            entries.append((name, value & mask, mask))
    return Match(tuple(entries))


@dataclass(frozen=True, slots=True)
class Output:
    """Send to a port. `max_len` would count for packets that are buffered (section 7.4.1): none are."""

    port: int
    max_len: int = 0xFFFF


@dataclass(frozen=True, slots=True)
class OutputField:
    """Send to the port whose number a field or a part of it holds (NXAST_OUTPUT_REG), for example `reg2`."""

    field: str
    offset: int = 0
    bits: int | None = None
    """None: the whole field."""


@dataclass(frozen=True, slots=True)
class PushVlan:
    """Push a tag, a copy of the outermost one or VID 0. `ethertype` 0x8100 or 0x88a8."""

    ethertype: int = 0x8100


@dataclass(frozen=True, slots=True)
class PopVlan:
    """Remove the outermost tag."""


@dataclass(frozen=True, slots=True)
class PushMpls:
    """Push a label stack entry behind the outermost VLAN tag. `ethertype` 0x8847 or 0x8848.

    Label, TC and TTL are copied from the entry below if there is one; else label and TC are 0 and the TTL
    is that of IP, or 0 without IP.
    """

    ethertype: int = 0x8847


@dataclass(frozen=True, slots=True)
class PopMpls:
    """Remove the outermost label stack entry; `ethertype` is that of what it carried."""

    ethertype: int


@dataclass(frozen=True, slots=True)
class SetMplsTtl:
    ttl: int


@dataclass(frozen=True, slots=True)
class DecMplsTtl:
    """A packet whose TTL would become 0 is sent to the controllers (INVALID_TTL) and goes no further."""


@dataclass(frozen=True, slots=True)
class SetIpTtl:
    """OFPAT_SET_NW_TTL: IPv4 TTL or IPv6 hop limit."""

    ttl: int


@dataclass(frozen=True, slots=True)
class IcmpError:
    """What a router tells the sender of a packet: ICMP for IPv4, ICMPv6 for IPv6, in its own name.

    `family` is 4 or 6, that of the packets it is for, `source` the router's address as an integer.
    """

    family: int
    kind: int
    code: int
    source: int


@dataclass(frozen=True, slots=True)
class DecIpTtl:
    """OFPAT_DEC_NW_TTL. Like DecMplsTtl when the TTL would become 0; with an error, a router tells the sender
    instead, which is vnet's own."""

    error: IcmpError | None = None


@dataclass(frozen=True, slots=True)
class CopyTtlOut:
    """From the next-to-outermost header with a TTL to the outermost: MPLS to MPLS, or IP to MPLS."""


@dataclass(frozen=True, slots=True)
class CopyTtlIn:
    """From the outermost header with a TTL to the next one: MPLS to MPLS, or MPLS to IP."""


@dataclass(frozen=True, slots=True)
class SetField:
    """Write a field: OFPAT_SET_FIELD when the mask is full, NXAST_REG_LOAD-style otherwise."""

    field: str
    value: int
    mask: int | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """Copy `bits` bits from `source[source_offset…]` to `target[target_offset…]` (NXAST_REG_MOVE)."""

    source: str
    target: str
    bits: int
    source_offset: int = 0
    target_offset: int = 0

    @property
    def target_mask(self) -> int:
        """The bits of the target that are written."""
        return (1 << self.bits) - 1 << self.target_offset


@dataclass(frozen=True, slots=True)
class ToGroup:
    """OFPAT_GROUP: let a group treat the packet."""

    group: int


@dataclass(frozen=True, slots=True)
class Resubmit:
    """Search a table and carry out what it finds, then go on with the next action (NXAST_RESUBMIT_TABLE).

    `port` replaces in_port for that search (None = as it is); `table` None = the current one.
    """

    port: int | None = None
    table: int | None = None


@dataclass(frozen=True, slots=True)
class ConntrackClear:
    """Forget ct_state, ct_zone, ct_mark and ct_label (NXAST_CT_CLEAR)."""


@dataclass(frozen=True, slots=True)
class Nat:
    """Address translation inside `ct` (NXAST_NAT). `source` True = SNAT, False = DNAT, None = as committed.

    `addresses` (first, last) and `ports` (first, last) bound what is chosen; None = unchanged. `family`
    is 4 or 6, that of `addresses`.
    """

    source: bool | None = None
    family: int = 4
    addresses: tuple[int, int] | None = None
    ports: tuple[int, int] | None = None
    flags: int = 0
    """NX_NAT_F_PERSISTENT 4, PROTO_HASH 8, PROTO_RANDOM 16, as the wire has them."""


@dataclass(frozen=True, slots=True)
class Conntrack:
    """Nicira `ct`: send through the connection tracker, with Open vSwitch's meaning.

    `table` resumes the pipeline there with `ct_state` filled in; None does not resume.
    `commit` enters the connection into the table of `zone`.
    """

    zone: int = 0
    table: int | None = None
    commit: bool = False
    force: bool = False
    mark: tuple[int, int] | None = None
    """(value, mask) written to the connection's mark on commit."""
    label: tuple[int, int] | None = None
    """(value, mask), 128 bits, written to the connection's label on commit."""
    nat: Nat | None = None
    zone_field: tuple[str, int, int] | None = None
    """(field, offset, bits) the zone is read from instead of `zone`."""
    moves: tuple[Move, ...] = ()
    """What is copied into the connection's mark and label on commit, after `mark` and `label`."""


@dataclass(frozen=True, slots=True)
class Advertise:
    """Turn a neighbour solicitation (RFC 4861, section 4.3) into its answer: the target has this MAC.

    A router's, solicited, overriding; the Ethernet header stays. vnet's own action.
    """

    mac: int


@dataclass(frozen=True, slots=True)
class Reject:
    """Drop the packet and tell its sender: TCP by a reset, other IP by ICMP "administratively prohibited".

    That looks as if its destination said so. With an error a router says that, whatever the protocol.
    vnet's own action; `vnet.openflow.answer` says what the answer is.
    """

    error: IcmpError | None = None


def is_own(action: Action) -> bool:
    """Whether no other switch knows the action; of vnet's only flows have it, and only apply it."""
    match action:
        case Reject() | Advertise():
            return True
        case DecIpTtl(error):
            return error is not None
        case _:
            return False


def rejects(actions: Iterable[Action]) -> bool:
    """Whether some action tells the sender that the packet was lost."""
    return any(isinstance(action, Reject) for action in actions)


Action = (
    Output
    | OutputField
    | PushVlan
    | PopVlan
    | PushMpls
    | PopMpls
    | SetMplsTtl
    | DecMplsTtl
    | SetIpTtl
    | DecIpTtl
    | CopyTtlOut
    | CopyTtlIn
    | SetField
    | Move
    | ToGroup
    | Resubmit
    | Conntrack
    | ConntrackClear
    | Advertise
    | Reject
)


@dataclass(frozen=True, slots=True)
class Instructions:
    """What a matched flow does, in OpenFlow's order: meter, apply, clear, write, metadata, goto."""

    apply: tuple[Action, ...] = ()
    clear: bool = False
    write: tuple[Action, ...] = ()
    metadata: tuple[int, int] | None = None
    """(value, mask) of Write-Metadata."""
    goto: int | None = None
    meter: int | None = None
    """The meter a packet must pass before anything else is done."""


class FlowFlag(IntEnum):
    """OFPFF_* (section 7.3.4.1)."""

    SEND_FLOW_REM = 1
    CHECK_OVERLAP = 2
    RESET_COUNTS = 4
    NO_PACKET_COUNTS = 8
    NO_BYTE_COUNTS = 16


@dataclass(frozen=True, slots=True)
class Flow:
    """One entry of one table. Timeouts are seconds, 0 = never."""

    table: int
    priority: int
    match: Match = field(default_factory=Match)
    instructions: Instructions = field(default_factory=Instructions)
    cookie: int = 0
    idle_timeout_s: int = 0
    hard_timeout_s: int = 0
    flags: int = 0

    @property
    def key(self) -> tuple[int, int, Match]:
        """What makes two flows the same entry: table, priority and match."""
        return self.table, self.priority, self.match


FlowTable = Mapping[tuple[int, int, Match], Flow]
"""A whole switch's flows by `Flow.key`."""
