"""The dataplane's structs and numbers: the Python side of `bpf/abi.h`.

A test compares both through the object's BTF: sizes, member offsets, enum values. Integers are host
order; there is no implicit padding.
"""

from __future__ import annotations

import ctypes
from ctypes import c_uint8, c_uint16, c_uint32, c_uint64
from enum import IntEnum, IntFlag

TABLES = 64
MASKS = 2048
TABLE_MASKS = 64
MASK_WORDS = 12
SMALL_WORDS = 4
RULES = 131072
ACTIONS = 262144
RULE_ACTIONS = 64
OUTPUTS = 65536
PORTS = 4096
LOW_IFINDEX = 65536
GROUPS = 4096
BUCKETS = 64
METERS = 4096
BANDS = 8
CACHE = 16384
PATHS = 65536
CONNS = 65536
MACS = 65536
KEY_WORDS = 32
CACHE_WORDS = 8
PATH_RULES = 16
OPS = 32
CACHE_OPS = 8
STACK = 16
SCOPES = 4
SET = 64
NO_TABLE = 0xFF
NO_SLOT = NO_PORT = NO_PATH = 0xFFFFFFFF
TEXT_CHUNK = 240
TAPS = 32
FILTER_INSNS = 4096

SLOT_GROUP, SLOT_OUTPUT = 62, 63
"""Of an action set; walk.h has the same numbers."""
PACKET_OUT = 0
"""The rule that holds a controller's actions on its packet."""


class Word(IntEnum):
    """`enum vnet_word`: where the parsed packet's fields lie in the key."""

    PORT = 0
    DST = 1
    SRC = 2
    IP_SRC = 3
    IP_DST = 5
    L4 = 7
    SHA = 8
    THA = 9
    ND_TARGET = 10
    METADATA = 12
    CT = 13
    ZONE = 14
    REGS = 15
    LABEL = 23
    TUNNEL = 25
    MORE = 26
    MPLS = 27
    CT_SRC = 28
    CT_DST = 30


class Has(IntFlag):
    """The lowest bits of `Word.PORT`: what the packet has, because zero may also be a field's value."""

    L4 = 1
    STAG = 2
    DEI = 4


class Op(IntEnum):
    """`enum vnet_action_op`."""

    OUTPUT = 1
    OUTPUTS = 2
    OUTPUT_FIELD = 3
    IN_PORT = 4
    CONTROLLER = 5
    SET = 6
    MOVE = 7
    PUSH_VLAN = 8
    POP_VLAN = 9
    CT = 10
    FLOOD = 11
    NORMAL = 12
    GROUP = 13
    METER = 14
    RESUBMIT = 15
    CT_CLEAR = 16
    WRITE = 17
    CLEAR = 18
    PUSH_MPLS = 19
    POP_MPLS = 20
    DEC_TTL = 21
    DEC_MPLS_TTL = 22
    COPY_TTL_OUT = 23
    COPY_TTL_IN = 24
    SET_TYPE = 25
    DATA = 26
    SET_PROTO = 27
    REJECT = 28
    ADVERTISE = 29


class Need(IntEnum):
    """`enum vnet_need`: what a packet must have for a field to be there."""

    NOTHING = 0
    VLAN = 1
    IPV4 = 2
    IPV6 = 3
    IP = 4
    ARP = 5
    MPLS = 6
    TCP = 7
    UDP = 8
    SCTP = 9
    ICMP = 10
    ICMPV6 = 11
    ND = 12
    ND_SOLICIT = 13
    ND_ADVERT = 14


class Kind(IntFlag):
    """`VNET_KIND_*`: packets of which the flow cache's key does not tell all."""

    LINK = 1
    IP = 2
    IPV6 = 4
    TCP = 8
    MPLS = 16


class Trait(IntFlag):
    """`VNET_TRAIT_*`: what tells at a glance that no rule under a mask can match; from CT on, ct_state."""

    IPV4 = 1
    IPV6 = 2
    ARP = 4
    TCP = 8
    UDP = 16
    ICMP = 32
    SCTP = 64
    LATER = 128
    CT = 256


class CtFlag(IntFlag):
    """Flags of `Op.CT`."""

    COMMIT = 1
    RECIRC = 2
    FORCE = 4
    LABEL = 8
    NAT = 16
    SNAT = 32
    DNAT = 64
    ZONE_FIELD = 128
    NAT_ADDRESS = 256
    NAT_PORT = 512
    MOVED = 1024


class PortFlag(IntFlag):
    """`vnet_port.flags`."""

    UP = 1
    CAPTURE = 2
    NO_RECV = 4
    NO_FWD = 8
    NO_PACKET_IN = 16
    LIVE = 32
    CAPTURE_DROPS = 64
    LINE_IN = 128
    LINE_OUT = 256
    PROMISCUOUS = 512


class Point(IntEnum):
    """`enum vnet_point`: where an event was observed."""

    GUEST = 1
    DELIVERED = 2
    DROP = 3
    CONTROLLER = 4


class PathKind(IntEnum):
    """`enum vnet_path_op`."""

    OUTPUT = 1
    OUTPUTS = 2
    CONTROLLER = 3
    NORMAL = 4
    METER = 5
    SET = 6
    VLAN = 7
    PUSH_VLAN = 8
    POP_VLAN = 9
    PUSH_MPLS = 10
    POP_MPLS = 11
    DEC_TTL = 12
    NAT_INNER = 13
    TYPE = 14
    TTL_IN = 15
    PROTO = 16
    ADVERTISE = 17


class Control(ctypes.Structure):
    _fields_ = [
        ("version", c_uint32),
        ("layout", c_uint32),
        ("pad", c_uint32),
        ("capturing", c_uint32),
        ("digest", c_uint8 * 32),
        ("datapath_id", c_uint64),
        ("reads", c_uint64 * CACHE_WORDS * 2),
    ]


class Mask(ctypes.Structure):
    _fields_ = [
        ("n_words", c_uint32),
        ("table", c_uint32),
        ("word", c_uint8 * 16),
        ("mask", c_uint64 * MASK_WORDS),
    ]


class TableMask(ctypes.Structure):
    _fields_ = [("mask_id", c_uint32), ("max_priority", c_uint16), ("traits", c_uint16)]


class Table(ctypes.Structure):
    _fields_ = [("n_masks", c_uint32), ("beyond", c_uint32), ("masks", TableMask * TABLE_MASKS)]


class RuleKey(ctypes.Structure):
    _fields_ = [("mask_id", c_uint32), ("pad", c_uint32), ("words", c_uint64 * MASK_WORDS)]


class SmallKey(ctypes.Structure):
    _fields_ = [("mask_id", c_uint32), ("pad", c_uint32), ("words", c_uint64 * SMALL_WORDS)]


class Entry(ctypes.Structure):
    _fields_ = [("rule", c_uint32 * 2), ("version", c_uint32 * 2)]


class Rule(ctypes.Structure):
    _fields_ = [
        ("cookie", c_uint64),
        ("first_action", c_uint32),
        ("n_actions", c_uint16),
        ("priority", c_uint16),
        ("table", c_uint8),
        ("goto_table", c_uint8),
        ("drop_reason", c_uint8),
        ("miss", c_uint8),
        ("logged", c_uint8),
        ("pad", c_uint8 * 3),
    ]


class Action(ctypes.Structure):
    _fields_ = [
        ("op", c_uint16),
        ("a", c_uint16),
        ("b", c_uint32),
        ("value", c_uint64),
        ("mask", c_uint64),
    ]


class Counter(ctypes.Structure):
    _fields_ = [("packets", c_uint64), ("bytes", c_uint64)]


class Bucket(ctypes.Structure):
    _fields_ = [("rule", c_uint32), ("watch_port", c_uint32), ("weight", c_uint32), ("pad", c_uint32)]


class Group(ctypes.Structure):
    _fields_ = [
        ("type", c_uint32),
        ("n_buckets", c_uint32),
        ("first_bucket", c_uint32),
        ("rule", c_uint32),
    ]


class Band(ctypes.Structure):
    _fields_ = [
        ("burst", c_uint64),
        ("full_ns", c_uint64),
        ("rate", c_uint32),
        ("type", c_uint16),
        ("precedence", c_uint16),
    ]


class Meter(ctypes.Structure):
    _fields_ = [("flags", c_uint32), ("n_bands", c_uint32), ("bands", Band * BANDS)]


class Port(ctypes.Structure):
    _fields_ = [
        ("ifindex", c_uint32),
        ("flags", c_uint32),
        ("conn_quota", c_uint32),
        ("mac_quota", c_uint32),
        ("mtu", c_uint32),
        ("refusal_quota", c_uint32),
        ("broadcast_pps", c_uint32),
        ("multicast_pps", c_uint32),
        ("unknown_unicast_pps", c_uint32),
    ]


class Rate(ctypes.Structure):
    _fields_ = [("bps", c_uint64), ("depth_us", c_uint32), ("burst", c_uint32)]


class Line(ctypes.Structure):
    _fields_ = [("inward", Rate), ("outward", Rate), ("ifindex", c_uint32), ("pad", c_uint32)]


class PortCounter(ctypes.Structure):
    _fields_ = [
        ("rx_packets", c_uint64),
        ("rx_bytes", c_uint64),
        ("rx_dropped", c_uint64),
        ("tx_packets", c_uint64),
        ("tx_bytes", c_uint64),
        ("tx_dropped", c_uint64),
    ]


class PathOp(ctypes.Structure):
    _fields_ = [
        ("kind", c_uint8),
        ("a", c_uint8),
        ("b", c_uint16),
        ("arg", c_uint32),
        ("value", c_uint64),
    ]


class Path(ctypes.Structure):
    _fields_ = [
        ("ct_slot", c_uint32),
        ("ct_gen", c_uint32),
        ("ct_state", c_uint8),
        ("ct_dir", c_uint8),
        ("reason", c_uint8),
        ("table", c_uint8),
        ("min_ttl", c_uint8),
        ("n_ops", c_uint8),
        ("failure", c_uint8),
        ("reject", c_uint8),
    ]


class Cached(ctypes.Structure):
    _fields_ = [
        ("key", c_uint64 * CACHE_WORDS),
        ("version", c_uint32),
        ("path_id", c_uint32),
        ("path", Path),
        ("ops", PathOp * CACHE_OPS),
    ]


class PathRules(ctypes.Structure):
    _fields_ = [("n_rules", c_uint32), ("rules", c_uint32 * PATH_RULES), ("pad", c_uint32)]


class CtKey(ctypes.Structure):
    _fields_ = [
        ("src", c_uint64 * 2),
        ("dst", c_uint64 * 2),
        ("sport", c_uint16),
        ("dport", c_uint16),
        ("zone", c_uint16),
        ("proto", c_uint8),
        ("family", c_uint8),
    ]


class Conn(ctypes.Structure):
    _fields_ = [
        ("key", CtKey * 2),
        ("created_ns", c_uint64),
        ("last_seen_ns", c_uint64),
        ("packets", c_uint64 * 2),
        ("bytes", c_uint64 * 2),
        ("label", c_uint64 * 2),
        ("gen", c_uint32),
        ("mark", c_uint32),
        ("port", c_uint32),
        ("tcp_state", c_uint8),
        ("seen_reply", c_uint8),
        ("fin_seen", c_uint8),
        ("nat", c_uint8),
    ]


class CtControl(ctypes.Structure):
    _fields_ = [("fresh", c_uint32), ("hand", c_uint32), ("paths", c_uint32), ("tick", c_uint32)]


class Mac(ctypes.Structure):
    _fields_ = [("port", c_uint32), ("pad", c_uint32), ("seen_ns", c_uint64)]


class PortStateMap(ctypes.Structure):
    _fields_ = [
        ("conns", c_uint64),
        ("macs", c_uint64),
        ("events", c_uint64),
        ("logged", c_uint64),
        ("evictions", c_uint64),
        ("refusals", c_uint64),
        ("answers", c_uint64),
        ("broadcasts", c_uint64),
        ("multicasts", c_uint64),
        ("unknowns", c_uint64),
        ("line_in", c_uint64),
        ("line_out", c_uint64),
    ]


class ScratchHead(ctypes.Structure):
    """What a CPU worked with for its last packet, as far as Python reads it."""

    _fields_ = [
        ("key", c_uint64 * KEY_WORDS),
        ("packet", c_uint64 * CACHE_WORDS),
        ("path", Path),
        ("met", PathRules),
        ("ops", PathOp * OPS),
    ]


class FilterInsn(ctypes.Structure):
    """One instruction of classic BPF, as `struct sock_filter` and libpcap's `struct bpf_insn`."""

    _fields_ = [("code", c_uint16), ("jt", c_uint8), ("jf", c_uint8), ("k", c_uint32)]


class Tap(ctypes.Structure):
    _fields_ = [
        ("points", c_uint32),
        ("n_insns", c_uint32),
        ("snaplen", c_uint32),
        ("to_port", c_uint32),
        ("dropped", c_uint8),
        ("from_table", c_uint8),
        ("pad", c_uint8 * 2),
    ]


class TapCounter(ctypes.Structure):
    _fields_ = [("seen", c_uint64), ("matched", c_uint64), ("lost", c_uint64)]


class Event(ctypes.Structure):
    """The header of a ring buffer record; `captured` bytes of the packet follow."""

    _fields_ = [
        ("time_ns", c_uint64),
        ("cookie", c_uint64),
        ("metadata", c_uint64),
        ("tunnel", c_uint64),
        ("port", c_uint32),
        ("in_port", c_uint32),
        ("rule", c_uint32),
        ("version", c_uint32),
        ("ct_state", c_uint32),
        ("ct_mark", c_uint32),
        ("length", c_uint32),
        ("captured", c_uint32),
        ("vlan_tci", c_uint16),
        ("vlan_tpid", c_uint16),
        ("point", c_uint8),
        ("reason", c_uint8),
        ("table", c_uint8),
        ("verdict", c_uint8),
        ("n_rules", c_uint32),
        ("ct_zone", c_uint16),
        ("gso_size", c_uint16),
        ("rules", c_uint32 * PATH_RULES),
        ("taps", c_uint32),
        ("gso_segs", c_uint32),
        ("ct_label", c_uint64 * 2),
        ("registers", c_uint64 * 8),
    ]


class TextKey(ctypes.Structure):
    _fields_ = [("rule", c_uint32), ("chunk", c_uint32)]


class Text(ctypes.Structure):
    _fields_ = [
        ("since", c_uint32),
        ("until", c_uint32),
        ("length", c_uint32),
        ("pad", c_uint32),
        ("bytes", c_uint8 * TEXT_CHUNK),
    ]


STRUCTS: dict[str, type[ctypes.Structure]] = {
    "vnet_control": Control,
    "vnet_mask": Mask,
    "vnet_table_mask": TableMask,
    "vnet_table": Table,
    "vnet_rule_key": RuleKey,
    "vnet_small_key": SmallKey,
    "vnet_entry": Entry,
    "vnet_rule": Rule,
    "vnet_action": Action,
    "vnet_counter": Counter,
    "vnet_bucket": Bucket,
    "vnet_group": Group,
    "vnet_band": Band,
    "vnet_meter": Meter,
    "vnet_port": Port,
    "vnet_rate": Rate,
    "vnet_line": Line,
    "vnet_port_counter": PortCounter,
    "vnet_port_state": PortStateMap,
    "vnet_op": PathOp,
    "vnet_path": Path,
    "vnet_cached": Cached,
    "vnet_path_rules": PathRules,
    "vnet_ct_key": CtKey,
    "vnet_conn": Conn,
    "vnet_ct_control": CtControl,
    "vnet_mac": Mac,
    "vnet_filter_insn": FilterInsn,
    "vnet_tap": Tap,
    "vnet_tap_counter": TapCounter,
    "vnet_event": Event,
    "vnet_text_key": TextKey,
    "vnet_text": Text,
}
"""By the name of the C struct: what the BTF test compares."""
