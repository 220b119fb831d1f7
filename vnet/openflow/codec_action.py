"""Actions <-> bytes: OpenFlow 1.3.5 section 7.2.5, and nicira-ext.h.

Lengths are checked here; the library then sees one action at a time. What `vnet.openflow.flow` has
no value for (queues, PBB, learn …) is refused, never dropped silently.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from vnet.openflow import codec_conntrack, codec_setfield
from vnet.openflow.codec_error import bad_action
from vnet.openflow.codec_library import ofproto, parser
from vnet.openflow.codec_record import cached, records
from vnet.openflow.codec_setfield import NICIRA, parsed
from vnet.openflow.fields import ETH_MPLS, ETH_MPLS_MULTICAST, ETH_SVLAN, ETH_VLAN
from vnet.openflow.flow import (
    Action,
    Advertise,
    Conntrack,
    ConntrackClear,
    CopyTtlIn,
    CopyTtlOut,
    DecIpTtl,
    DecMplsTtl,
    IcmpError,
    Move,
    Output,
    OutputField,
    PopMpls,
    PopVlan,
    Port,
    PushMpls,
    PushVlan,
    Reject,
    Resubmit,
    SetField,
    SetIpTtl,
    SetMplsTtl,
    ToGroup,
)
from vnet.openflow.group import MAX_GROUP
from vnet.openflow.message import BadAction

_CACHED = 1 << 16
VNET = 0x766E6574
"""The experimenter of vnet's own actions: "vnet" in ASCII."""
_REJECT, _DEC_TTL, _ADVERTISE = 1, 2, 3
_ERROR = struct.Struct("!HHIHBBB11x16s")
"""With what a router says: version of IP, type, code, its address (an IPv4 one behind zeros)."""
_RESUBMIT, _RESUBMIT_TABLE = 1, 14
_SAME_TABLE = 0xFF
_SHORT_RESERVED, _SHORT_MAX, _SHORT_IN_PORT = 0xFFFF0000, 0xFF00, 0xFFF8
"""Ports of OpenFlow 1.0 have 16 bits; the reserved ones are those of 1.3 without the upper half."""
_WHOLE_PACKET = 0xFFFF
_RESERVED = frozenset(Port) - {Port.MAX}
_OUTPUTS = _RESERVED - {Port.ANY}


# -- encoding -------------------------------------------------------------------------------------


def _resubmit(action: Resubmit) -> bytes:
    port = _SHORT_IN_PORT if action.port is None else action.port & 0xFFFF
    table = _SAME_TABLE if action.table is None else action.table
    return struct.pack("!HHIHHB3x", ofproto.OFPAT_EXPERIMENTER, 16, NICIRA, _RESUBMIT_TABLE, port, table)


def _reject(action: Reject) -> bytes:
    if action.error is None:
        return struct.pack("!HHIH6x", ofproto.OFPAT_EXPERIMENTER, 16, VNET, _REJECT)
    return _with_error(_REJECT, action.error)


def _dec_ip_ttl(action: DecIpTtl) -> bytes:
    if action.error is None:
        return _library(lambda _: parser.OFPActionDecNwTtl())(action)
    return _with_error(_DEC_TTL, action.error)


def _with_error(subtype: int, error: IcmpError) -> bytes:
    source = error.source.to_bytes(16, "big")
    head = ofproto.OFPAT_EXPERIMENTER, _ERROR.size, VNET, subtype
    return _ERROR.pack(*head, error.family, error.kind, error.code, source)


def _library(build: Callable[[Any], Any]) -> Callable[[Any], bytes]:
    """An encoder out of what makes the library's action."""

    def encode(action: Any) -> bytes:
        buffer = bytearray()
        build(action).serialize(buffer, 0)
        return bytes(buffer)

    return encode


_ENCODERS: Mapping[type[Action], Callable[[Any], bytes]] = {
    Output: _library(lambda action: parser.OFPActionOutput(action.port, action.max_len)),
    OutputField: _library(codec_setfield.output_field),
    PushVlan: _library(lambda action: parser.OFPActionPushVlan(action.ethertype)),
    PopVlan: _library(lambda action: parser.OFPActionPopVlan()),
    PushMpls: _library(lambda action: parser.OFPActionPushMpls(action.ethertype)),
    PopMpls: _library(lambda action: parser.OFPActionPopMpls(action.ethertype)),
    SetMplsTtl: _library(lambda action: parser.OFPActionSetMplsTtl(action.ttl)),
    DecMplsTtl: _library(lambda action: parser.OFPActionDecMplsTtl()),
    SetIpTtl: _library(lambda action: parser.OFPActionSetNwTtl(action.ttl)),
    DecIpTtl: _dec_ip_ttl,
    Advertise: lambda action: struct.pack(
        "!HHIH6s", ofproto.OFPAT_EXPERIMENTER, 16, VNET, _ADVERTISE, action.mac.to_bytes(6, "big")
    ),
    CopyTtlOut: _library(lambda action: parser.OFPActionCopyTtlOut()),
    CopyTtlIn: _library(lambda action: parser.OFPActionCopyTtlIn()),
    SetField: _library(codec_setfield.set_field),
    Move: _library(codec_setfield.move),
    ToGroup: _library(lambda action: parser.OFPActionGroup(action.group)),
    Resubmit: _resubmit,
    Reject: _reject,
    Conntrack: codec_conntrack.encode_conntrack,
    ConntrackClear: codec_conntrack.encode_clear,
}


@lru_cache(_CACHED)
def encode_action(action: Action) -> bytes:
    """One action with its padding."""
    return _ENCODERS[type(action)](action)


def encode_actions(actions: tuple[Action, ...]) -> bytes:
    """A list of actions without any header."""
    return b"".join([encode_action(action) for action in actions])


# -- decoding -------------------------------------------------------------------------------------


def decode_actions(data: bytes) -> tuple[Action, ...]:
    """Raises: CodecError of type BAD_ACTION."""
    return tuple(decode_action(raw) for _, raw in records(data, bad_action(BadAction.BAD_LEN)))


@cached
def decode_action(raw: bytes) -> Action:
    """One action; `raw` is as long as its header says."""
    kind = struct.unpack_from("!H", raw)[0]
    if kind == ofproto.OFPAT_EXPERIMENTER:
        return _decode_own(raw) if struct.unpack_from("!I", raw, 4)[0] == VNET else _decode_nicira(raw)
    if kind not in _STANDARD:
        raise bad_action(_REFUSED.get(kind, BadAction.BAD_TYPE))
    length, read = _STANDARD[kind]
    if length is not None and length != len(raw):
        raise bad_action(BadAction.BAD_LEN)
    return read(raw)


def _decode_own(raw: bytes) -> Action:
    """vnet's own actions: subtype and padding as in Nicira's."""
    if len(raw) not in (16, _ERROR.size):
        raise bad_action(BadAction.BAD_LEN)
    subtype, is_short = struct.unpack_from("!H", raw, 8)[0], len(raw) == 16
    if subtype not in (_REJECT, _DEC_TTL, _ADVERTISE):
        raise bad_action(BadAction.BAD_EXP_TYPE)
    if subtype == _REJECT:
        return Reject(None if is_short else _decode_error(raw))
    if is_short is not (subtype == _ADVERTISE):
        raise bad_action(BadAction.BAD_LEN)
    return Advertise(int.from_bytes(raw[10:16], "big")) if is_short else DecIpTtl(_decode_error(raw))


def _decode_error(raw: bytes) -> IcmpError:
    *_, family, kind, code, source = _ERROR.unpack(raw)
    number = int.from_bytes(source, "big")
    if family not in (4, 6) or (family == 4 and number >> 32):
        raise bad_action(BadAction.BAD_ARGUMENT)
    return IcmpError(family, kind, code, number)


def _decode_nicira(raw: bytes) -> Action:
    if struct.unpack_from("!I", raw, 4)[0] != NICIRA:
        raise bad_action(BadAction.BAD_EXPERIMENTER)
    if len(raw) < 16:
        raise bad_action(BadAction.BAD_LEN)
    subtype = struct.unpack_from("!H", raw, 8)[0]
    if subtype not in _NICIRA_ACTIONS:
        raise bad_action(BadAction.BAD_EXP_TYPE)
    least, read = _NICIRA_ACTIONS[subtype]
    if len(raw) < least:
        raise bad_action(BadAction.BAD_LEN)
    return read(raw)


def _read_output(raw: bytes) -> Output:
    action = parsed(raw)
    if action.port == 0 or action.port > Port.MAX and action.port not in _OUTPUTS:
        raise bad_action(BadAction.BAD_OUT_PORT)
    return Output(action.port, action.max_len)  # read back as it was sent, also where it means nothing


def _ethertype(raw: bytes, allowed: tuple[int, int]) -> int:
    ethertype = int.from_bytes(raw[4:6], "big")
    if ethertype not in allowed:
        raise bad_action(BadAction.BAD_ARGUMENT)
    return ethertype


def _read_group(raw: bytes) -> ToGroup:
    """Whether there is such a group is not known here."""
    number = int.from_bytes(raw[4:8], "big")
    if number > MAX_GROUP:
        raise bad_action(BadAction.BAD_OUT_GROUP)
    return ToGroup(number)


def _read_resubmit(raw: bytes) -> Resubmit:
    """NXAST_RESUBMIT names no table; what stands in its place means nothing."""
    return Resubmit(_long_port(raw))


def _read_resubmit_table(raw: bytes) -> Resubmit:
    if any(raw[13:]):
        raise bad_action(BadAction.BAD_ARGUMENT)
    return Resubmit(_long_port(raw), None if raw[12] == _SAME_TABLE else raw[12])


def _long_port(raw: bytes) -> int | None:
    """The port in 32 bits, None for that by which the packet came in."""
    port = int.from_bytes(raw[10:12], "big")
    if port == _SHORT_IN_PORT:
        return None
    if port >= _SHORT_MAX and _SHORT_RESERVED | port not in _RESERVED:
        raise bad_action(BadAction.BAD_ARGUMENT)
    return port if port < _SHORT_MAX else _SHORT_RESERVED | port


_STANDARD: Mapping[int, tuple[int | None, Callable[[bytes], Action]]] = {
    ofproto.OFPAT_OUTPUT: (16, _read_output),
    ofproto.OFPAT_COPY_TTL_OUT: (8, lambda raw: CopyTtlOut()),
    ofproto.OFPAT_COPY_TTL_IN: (8, lambda raw: CopyTtlIn()),
    ofproto.OFPAT_SET_MPLS_TTL: (8, lambda raw: SetMplsTtl(raw[4])),
    ofproto.OFPAT_DEC_MPLS_TTL: (8, lambda raw: DecMplsTtl()),
    ofproto.OFPAT_PUSH_VLAN: (8, lambda raw: PushVlan(_ethertype(raw, (ETH_VLAN, ETH_SVLAN)))),
    ofproto.OFPAT_POP_VLAN: (8, lambda raw: PopVlan()),
    ofproto.OFPAT_PUSH_MPLS: (8, lambda raw: PushMpls(_ethertype(raw, (ETH_MPLS, ETH_MPLS_MULTICAST)))),
    ofproto.OFPAT_POP_MPLS: (8, lambda raw: PopMpls(int.from_bytes(raw[4:6], "big"))),
    ofproto.OFPAT_GROUP: (8, _read_group),
    ofproto.OFPAT_SET_NW_TTL: (8, lambda raw: SetIpTtl(raw[4])),
    ofproto.OFPAT_DEC_NW_TTL: (8, lambda raw: DecIpTtl()),
    ofproto.OFPAT_SET_FIELD: (None, codec_setfield.read_set_field),
}
"""By action type: the exact length if there is one, and how to read it."""

_NICIRA_ACTIONS: Mapping[int, tuple[int, Callable[[bytes], Action]]] = {
    _RESUBMIT: (16, _read_resubmit),
    codec_setfield.SET_TUNNEL: (16, codec_setfield.read_set_tunnel),
    codec_setfield.REG_MOVE: (24, codec_setfield.read_move),
    codec_setfield.REG_LOAD: (24, codec_setfield.read_load),
    codec_setfield.SET_TUNNEL64: (24, codec_setfield.read_set_tunnel64),
    _RESUBMIT_TABLE: (16, _read_resubmit_table),
    codec_setfield.OUTPUT_REG: (24, codec_setfield.read_output_field),
    codec_setfield.REG_LOAD2: (24, codec_setfield.read_load2),
    codec_conntrack.CT: (24, codec_conntrack.read_conntrack),
    codec_conntrack.NAT: (16, codec_conntrack.read_nat_alone),
    codec_conntrack.CT_CLEAR: (16, codec_conntrack.read_clear),
}
"""By subtype: the least length, and how to read it."""

_REFUSED = {ofproto.OFPAT_SET_QUEUE: BadAction.BAD_QUEUE}
"""Actions of OpenFlow that name what this switch has none of; any other is BAD_TYPE."""
