"""Matches <-> OXM bytes (OpenFlow 1.3.5, section 7.2.3), each field numbered as the library has it.

Every check the specification asks of a switch is here: known field, length, mask allowed, value
within its width and mask, prerequisites before the field that needs them, no field twice.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache

from vnet.openflow.codec_error import CodecError
from vnet.openflow.codec_library import ofproto
from vnet.openflow.fields import ETH_IPV4, ETH_IPV6, FIELDS, ORIGINAL, VLAN_PRESENT, CtState, Field
from vnet.openflow.flow import Match
from vnet.openflow.message import ONF, BadMatch, ErrorType

_OFPMT_OXM = 1
_BASIC_CLASS = 0x8000
_HAS_MASK = 1 << 8
_CT_STATE_BITS = 0xFF
_CACHED = 1 << 16

_NICIRA_CLASS, _FIRST_ORIGINAL = 1, 119
UNNAMED = {name: f"field_{_NICIRA_CLASS << 7 | _FIRST_ORIGINAL + n}" for n, name in enumerate(ORIGINAL)}
"""Fields that the library knows by number only: NXM_NX_CT_NW_PROTO (119) to NXM_NX_CT_TP_DST (125)."""

_LIBRARY_NAMES = {"tcp_flags": "tcp_flags_nxm", **UNNAMED}
"""The library's names where they differ: its `tcp_flags` is the ONF's form, which is no basic OXM."""

_ALIASES = {
    "tcp_flags_nxm": "tcp_flags",
    "tunnel_id_nxm": "tunnel_id",
    "ipv6_label": "ipv6_flabel",
    "eth_dst_nxm": "eth_dst",
    "eth_src_nxm": "eth_src",
    "eth_type_nxm": "eth_type",
    "ip_proto_nxm": "ip_proto",
    "ipv4_src_nxm": "ipv4_src",
    "ipv4_dst_nxm": "ipv4_dst",
    "tcp_src_nxm": "tcp_src",
    "tcp_dst_nxm": "tcp_dst",
    "udp_src_nxm": "udp_src",
    "udp_dst_nxm": "udp_dst",
    "icmpv4_type_nxm": "icmpv4_type",
    "icmpv4_code_nxm": "icmpv4_code",
    "arp_op_nxm": "arp_op",
    "arp_spa_nxm": "arp_spa",
    "arp_tpa_nxm": "arp_tpa",
    "arp_sha_nxm": "arp_sha",
    "arp_tha_nxm": "arp_tha",
    "ipv6_src_nxm": "ipv6_src",
    "ipv6_dst_nxm": "ipv6_dst",
    "icmpv6_type_nxm": "icmpv6_type",
    "icmpv6_code_nxm": "icmpv6_code",
    "nd_target": "ipv6_nd_target",
    "nd_sll": "ipv6_nd_sll",
    "nd_tll": "ipv6_nd_tll",
    "ip_ecn_nxm": "ip_ecn",
    **{theirs: name for name, theirs in UNNAMED.items()},
}
"""Nicira's older names of fields that have the same width and meaning in the basic class."""


def library_name(name: str) -> str:
    """What the library calls a field."""
    return _LIBRARY_NAMES.get(name, name)


NUMBERS: Mapping[str, int] = {name: ofproto.oxm_from_user_header(library_name(name)) for name in FIELDS}
"""OXM class and field number, `class << 7 | field`, by name."""

_EXPERIMENTER_CLASS, _OXM_TCP_FLAGS = 0xFFFF, 42
"""OFPXMT_OFB_TCP_FLAGS of OpenFlow 1.5; in 1.3 an experimenter's field of the ONF (extension 109).

Open vSwitch reads both beside its own form, and ovs-ofctl writes the experimenter's.
"""

_BY_NUMBER: dict[int, Field] = {number: FIELDS[name] for name, number in NUMBERS.items()} | {
    ofproto.oxm_from_user_header(alias): FIELDS[name] for alias, name in _ALIASES.items()
}
_BY_NUMBER[_BASIC_CLASS << 7 | _OXM_TCP_FLAGS] = FIELDS["tcp_flags"]

_WORDS = ("ipv6_flabel", "mpls_label")
SIZES: Mapping[str, int] = {
    name: 4 if name in _WORDS else -(-field.bits // 8) for name, field in FIELDS.items()
}
"""Length of a field's value on the wire in bytes."""

_ICMP_OVER = {
    "icmpv4_type": ETH_IPV4,
    "icmpv4_code": ETH_IPV4,
    "icmpv6_type": ETH_IPV6,
    "icmpv6_code": ETH_IPV6,
}

_ORDER: Mapping[str, tuple[bool, int]] = {
    name: (number >> 7 != _BASIC_CLASS, number) for name, number in NUMBERS.items()
}
"""Basic class first, by number: so each prerequisite stands before what needs it."""


def _bad(code: BadMatch) -> CodecError:
    return CodecError(ErrorType.BAD_MATCH, code)


# -- one field ------------------------------------------------------------------------------------


@lru_cache(_CACHED)
def encode_field(name: str, value: int, mask: int) -> bytes:
    """One OXM TLV; the mask is left out when it is all ones."""
    size, number = SIZES[name], NUMBERS[name]
    if mask == FIELDS[name].full_mask:
        return (number << 9 | size).to_bytes(4, "big") + value.to_bytes(size, "big")
    header = number << 9 | _HAS_MASK | 2 * size
    return header.to_bytes(4, "big") + value.to_bytes(size, "big") + mask.to_bytes(size, "big")


def field_of(header: int) -> Field | None:
    """The field an OXM header names, None if it is not one of ours."""
    return _BY_NUMBER.get(header >> 9)


def field_named(name: str) -> Field | None:
    """The field the library calls `name`."""
    return FIELDS.get(_ALIASES.get(name, name))


@lru_cache(_CACHED)
def decode_field(tlv: bytes) -> tuple[str, int, int]:
    """Name, value and mask of one whole OXM TLV.

    Raises: CodecError with BAD_FIELD, BAD_LEN, BAD_MASK, BAD_VALUE or BAD_WILDCARDS.
    """
    if int.from_bytes(tlv[:2], "big") == _EXPERIMENTER_CLASS:
        tlv = _without_experimenter(tlv)
    header = int.from_bytes(tlv[:4], "big")
    field = field_of(header)
    if field is None:
        raise _bad(BadMatch.BAD_FIELD)
    size, masked = SIZES[field.name], bool(header & _HAS_MASK)
    if len(tlv) != 4 + size * (1 + masked):
        raise _bad(BadMatch.BAD_LEN)
    value, mask = int.from_bytes(tlv[4 : 4 + size], "big"), int.from_bytes(tlv[4 + size :], "big")
    return _checked(field, value, mask if masked else None)


def _without_experimenter(tlv: bytes) -> bytes:
    """The Nicira form of the one experimenter field there is: TCP flags."""
    if len(tlv) < 8:
        raise _bad(BadMatch.BAD_LEN)
    if tlv[2] >> 1 != _OXM_TCP_FLAGS or int.from_bytes(tlv[4:8], "big") != ONF:
        raise _bad(BadMatch.BAD_FIELD)
    header = NUMBERS["tcp_flags"] << 9 | (tlv[2] & 1) << 8 | len(tlv) - 8
    return header.to_bytes(4, "big") + tlv[8:]


def _checked(field: Field, value: int, given_mask: int | None) -> tuple[str, int, int]:
    """Refuse what the field cannot hold; a mask over the padding bits means nothing and is dropped."""
    full = field.full_mask
    if given_mask is None:
        mask = full
    else:
        mask = given_mask & full
        if value & ~given_mask:
            raise _bad(BadMatch.BAD_WILDCARDS)
    if value & ~full or field.name == "ct_state" and value & ~_CT_STATE_BITS:
        raise _bad(BadMatch.BAD_VALUE)
    if mask not in (0, full) and not field.maskable:
        raise _bad(BadMatch.BAD_MASK)
    if field.name == "ct_state" and given_mask is not None and mask & ~_CT_STATE_BITS:
        raise _bad(BadMatch.BAD_MASK)
    return field.name, value, mask


# -- whole matches --------------------------------------------------------------------------------


def meets_prerequisites(field: Field, known: Mapping[str, tuple[int, int]]) -> bool:
    """Whether a match on `known` lets `field` be matched or written (section 7.2.3.6)."""
    if field.name in ORIGINAL:
        return _tells_of_connection(*known.get("ct_state", (0, 0)))
    over = _ICMP_OVER.get(field.name)
    if over is not None and not _fixes(known, "eth_type", over):
        return False
    return not field.needs or any(_fixes(known, name, value) for name, value in field.needs)


_NEVER_INVALID = CtState.NEW | CtState.EST | CtState.REL | CtState.RPL | CtState.SNAT | CtState.DNAT


def _tells_of_connection(state: int, mask: int) -> bool:
    """Whether a match on ct_state takes only packets that are no invalid ones (Open vSwitch, is_ct_valid)."""
    tracked = state & CtState.TRK and mask & CtState.INV and not state & CtState.INV
    return bool(state & _NEVER_INVALID or tracked)


def _fixes(known: Mapping[str, tuple[int, int]], name: str, wanted: int) -> bool:
    if name not in known:
        return False
    value, mask = known[name]
    if name == "vlan_vid":
        return bool(value & mask & VLAN_PRESENT)
    return value == wanted and mask == FIELDS[name].full_mask


def encode_fields(entries: Iterable[tuple[str, int, int]]) -> bytes:
    """OXM TLVs without the header and the padding of a match."""
    ordered = sorted(entries, key=lambda entry: _ORDER[entry[0]])
    return b"".join([encode_field(name, value, mask) for name, value, mask in ordered])


def encode_match(match: Match) -> bytes:
    """`struct ofp_match` with its padding."""
    fields = encode_fields(match.entries)
    length = 4 + len(fields)
    return struct.pack("!HH", _OFPMT_OXM, length) + fields + bytes(-length % 8)


@lru_cache(_CACHED)
def _decode_fields(data: bytes) -> Match:
    known: dict[str, tuple[int, int]] = {}
    offset = 0
    while offset < len(data):
        end = offset + 4 + data[offset + 3] if offset + 4 <= len(data) else len(data) + 1
        if end > len(data):
            raise _bad(BadMatch.BAD_LEN)
        name, value, mask = decode_field(data[offset:end])
        if name in known:
            raise _bad(BadMatch.DUP_FIELD)
        if not meets_prerequisites(FIELDS[name], known):
            raise _bad(BadMatch.BAD_PREREQ)
        known[name] = value, mask
        offset = end
    return Match(tuple(sorted((name, value, mask) for name, (value, mask) in known.items() if mask)))


def decode_match(data: bytes, offset: int) -> tuple[Match, int]:
    """The match at `offset` and the offset behind its padding.

    Raises: CodecError of type BAD_MATCH.
    """
    if offset + 8 > len(data):
        raise _bad(BadMatch.BAD_LEN)
    kind, length = struct.unpack_from("!HH", data, offset)
    end = offset + length + -length % 8
    if kind != _OFPMT_OXM:
        raise _bad(BadMatch.BAD_TYPE)
    if length < 4 or end > len(data):
        raise _bad(BadMatch.BAD_LEN)
    return _decode_fields(data[offset + 4 : offset + length]), end
