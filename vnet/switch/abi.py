"""The dataplane's structs and numbers: the Python side of `bpf/abi.h`.

A test compares both through the object's BTF: sizes, member offsets, enum values. Integers are host
order; there is no implicit padding.
"""

from __future__ import annotations

import ctypes
from ctypes import c_uint8, c_uint16, c_uint32, c_uint64
from enum import IntEnum, IntFlag

TABLES = 32
MASKS = 1024
TABLE_MASKS = 64
MASK_WORDS = 12
RULES = 131072
ACTIONS = 262144
RULE_ACTIONS = 32
OUTPUTS = 65536
PORTS = 4096
KEY_WORDS = 32
CACHE_WORDS = 8
PATH_RULES = 16
PATH_OPS = 8
NO_TABLE = 0xFF
NO_SLOT = 0xFFFFFFFF
TEXT_CHUNK = 240


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


class Has(IntFlag):
    """The lowest bits of `Word.PORT`: what the packet has, because zero may also be a field's value."""

    L4 = 1


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


class CtFlag(IntFlag):
    """Flags of `Op.CT`."""

    COMMIT = 1
    RECIRC = 2
    FORCE = 4


class PortFlag(IntFlag):
    """`vnet_port.flags`."""

    UP = 1
    CAPTURE = 2


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


class Control(ctypes.Structure):
    _fields_ = [
        ("version", c_uint32),
        ("layout", c_uint32),
        ("snaplen", c_uint32),
        ("capturing", c_uint32),
        ("digest", c_uint8 * 32),
        ("datapath_id", c_uint64),
    ]


class Mask(ctypes.Structure):
    _fields_ = [
        ("n_words", c_uint32),
        ("table", c_uint32),
        ("word", c_uint8 * 16),
        ("mask", c_uint64 * MASK_WORDS),
    ]


class TableMask(ctypes.Structure):
    _fields_ = [("mask_id", c_uint32), ("max_priority", c_uint32)]


class Table(ctypes.Structure):
    _fields_ = [("n_masks", c_uint32), ("pad", c_uint32), ("masks", TableMask * TABLE_MASKS)]


class RuleKey(ctypes.Structure):
    _fields_ = [("mask_id", c_uint32), ("pad", c_uint32), ("words", c_uint64 * MASK_WORDS)]


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
        ("pad", c_uint8 * 5),
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


class Port(ctypes.Structure):
    _fields_ = [
        ("ifindex", c_uint32),
        ("flags", c_uint32),
        ("conn_quota", c_uint32),
        ("pad", c_uint32),
    ]


class PortCounter(ctypes.Structure):
    _fields_ = [
        ("rx_packets", c_uint64),
        ("rx_bytes", c_uint64),
        ("rx_dropped", c_uint64),
        ("tx_packets", c_uint64),
        ("tx_bytes", c_uint64),
    ]


class PathOp(ctypes.Structure):
    _fields_ = [("kind", c_uint8), ("pad", c_uint8), ("vlan_tci", c_uint16), ("arg", c_uint32)]


class Path(ctypes.Structure):
    _fields_ = [
        ("version", c_uint32),
        ("ct_slot", c_uint32),
        ("ct_gen", c_uint32),
        ("ct_state", c_uint8),
        ("ct_dir", c_uint8),
        ("reason", c_uint8),
        ("table", c_uint8),
        ("n_rules", c_uint32),
        ("n_ops", c_uint32),
        ("rules", c_uint32 * PATH_RULES),
        ("ops", PathOp * PATH_OPS),
        ("seal", c_uint64),
    ]


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
        ("key", CtKey),
        ("created_ns", c_uint64),
        ("last_seen_ns", c_uint64),
        ("packets", c_uint64 * 2),
        ("bytes", c_uint64 * 2),
        ("gen", c_uint32),
        ("mark", c_uint32),
        ("port", c_uint32),
        ("tcp_state", c_uint8),
        ("seen_reply", c_uint8),
        ("fin_seen", c_uint8),
        ("pad", c_uint8),
    ]


class Scratch(ctypes.Structure):
    """What a CPU worked with for its last packet; `path` tells what became of it."""

    _fields_ = [
        ("key", c_uint64 * KEY_WORDS),
        ("packet", c_uint64 * CACHE_WORDS),
        ("rule_key", RuleKey),
        ("path", Path),
        ("conn", Conn),
        ("ct_key", CtKey),
        ("ct_reverse", CtKey),
        ("now_ns", c_uint64),
        ("in_port", c_uint32),
        ("version", c_uint32),
        ("l4_offset", c_uint32),
        ("l4_length", c_uint32),
        ("icmp_id", c_uint32),
        ("ct_slot", c_uint32),
        ("ct_gen", c_uint32),
        ("ct_dir", c_uint32),
        ("vlan_tci", c_uint16),
        ("vlan_tpid", c_uint16),
        ("inner_type", c_uint16),
        ("tcp_flags", c_uint8),
        ("next_table", c_uint8),
        ("tracked", c_uint8),
        ("cacheable", c_uint8),
        ("same_port", c_uint8),
        ("pad", c_uint8 * 2),
    ]


class Event(ctypes.Structure):
    """The header of a ring buffer record; `captured` bytes of the packet follow."""

    _fields_ = [
        ("time_ns", c_uint64),
        ("cookie", c_uint64),
        ("metadata", c_uint64),
        ("port", c_uint32),
        ("in_port", c_uint32),
        ("rule", c_uint32),
        ("version", c_uint32),
        ("ct_state", c_uint32),
        ("length", c_uint32),
        ("captured", c_uint32),
        ("vlan_tci", c_uint16),
        ("vlan_tpid", c_uint16),
        ("point", c_uint8),
        ("reason", c_uint8),
        ("table", c_uint8),
        ("verdict", c_uint8),
        ("n_rules", c_uint32),
        ("rules", c_uint32 * PATH_RULES),
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
    "vnet_entry": Entry,
    "vnet_rule": Rule,
    "vnet_action": Action,
    "vnet_counter": Counter,
    "vnet_port": Port,
    "vnet_port_counter": PortCounter,
    "vnet_op": PathOp,
    "vnet_path": Path,
    "vnet_ct_key": CtKey,
    "vnet_conn": Conn,
    "vnet_scratch": Scratch,
    "vnet_event": Event,
    "vnet_text_key": TextKey,
    "vnet_text": Text,
}
"""By the name of the C struct: what the BTF test compares."""
