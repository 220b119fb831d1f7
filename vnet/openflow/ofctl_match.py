"""Matches and fields as text in the syntax of ovs-ofctl (ovs-fields(7))."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from vnet.openflow.fields import (
    ETH_ARP,
    ETH_IPV4,
    ETH_IPV6,
    ETH_MPLS,
    ETH_MPLS_MULTICAST,
    FIELDS,
    ICMP,
    ICMPV6,
    SCTP,
    TCP,
    UDP,
)
from vnet.openflow.flow import (
    Match,
)

PROTOCOLS = {
    (ETH_IPV4, None): "ip",
    (ETH_IPV6, None): "ipv6",
    (ETH_ARP, None): "arp",
    (ETH_MPLS, None): "mpls",
    (ETH_MPLS_MULTICAST, None): "mplsm",
    (ETH_IPV4, ICMP): "icmp",
    (ETH_IPV4, TCP): "tcp",
    (ETH_IPV4, UDP): "udp",
    (ETH_IPV4, SCTP): "sctp",
    (ETH_IPV6, ICMPV6): "icmp6",
    (ETH_IPV6, TCP): "tcp6",
    (ETH_IPV6, UDP): "udp6",
    (ETH_IPV6, SCTP): "sctp6",
}
"""Shorthands for (eth_type, ip_proto)."""

NAMES = {
    "eth_dst": "dl_dst",
    "eth_src": "dl_src",
    "eth_type": "dl_type",
    "ip_proto": "nw_proto",
    "ip_ecn": "nw_ecn",
    "ipv4_src": "nw_src",
    "ipv4_dst": "nw_dst",
    "tcp_src": "tp_src",
    "tcp_dst": "tp_dst",
    "udp_src": "tp_src",
    "udp_dst": "tp_dst",
    "sctp_src": "tp_src",
    "sctp_dst": "tp_dst",
    "ipv6_flabel": "ipv6_label",
    "tunnel_id": "tun_id",
    "icmpv4_type": "icmp_type",
    "icmpv4_code": "icmp_code",
    "icmpv6_type": "icmpv6_type",
    "icmpv6_code": "icmpv6_code",
    "ipv6_nd_target": "nd_target",
    "ipv6_nd_sll": "nd_sll",
    "ipv6_nd_tll": "nd_tll",
}
"""Names in a match where they differ from `vnet.openflow.fields`."""

CT_FLAGS = ("new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat")
"""Names of the bits of `ct_state`, from bit 0."""

TCP_FLAGS = ("fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns", "[200]", "[400]", "[800]")
"""Names of the bits of `tcp_flags`, from bit 0."""

FRAGMENTS = {
    (0, 3): "no",
    (1, 1): "yes",
    (1, 3): "first",
    (2, 2): "later",
    (3, 3): "later",
    (0, 2): "not_later",
}
"""Names of (value, mask) of `ip_frag`."""


def match_text(match: Match) -> str:
    """A match alone, for example `tcp,in_port=1,tp_dst=80`; empty for one that takes every packet."""
    return ",".join(match_words(match))


def match_words(match: Match) -> list[str]:
    """The match's entries, the protocol first, the rest in order of their names."""
    word, covered = _protocol(match)
    rest = [_entry(*entry) for entry in match if entry[0] not in covered]
    return ([word] if word else []) + rest


def _protocol(match: Match) -> tuple[str, frozenset[str]]:
    """The shorthand and the fields it stands for."""
    ethertype, protocol = match.get("eth_type"), match.get("ip_proto")
    if ethertype is None:
        return "", frozenset()
    if protocol and (both := PROTOCOLS.get((ethertype[0], protocol[0]))):
        return both, frozenset({"eth_type", "ip_proto"})
    word = PROTOCOLS.get((ethertype[0], None), "")
    return word, frozenset({"eth_type"} if word else ())


def _entry(name: str, value: int, mask: int) -> str:
    if name == "ct_state":
        return f"ct_state={_bits(CT_FLAGS, value, mask)}"
    if name == "tcp_flags":
        return f"tcp_flags={_bits(TCP_FLAGS, value, mask)}"
    if name == "ip_frag":
        return f"ip_frag={_fragment(value, mask)}"
    return f"{NAMES.get(name, name)}={value_text(name, value, mask)}"


def _bits(names: tuple[str, ...], value: int, mask: int) -> str:
    flags = ((name, 1 << bit) for bit, name in enumerate(names))
    return "".join(("+" if value & bit else "-") + name for name, bit in flags if mask & bit)


def _fragment(value: int, mask: int) -> str:
    if (value, mask) not in FRAGMENTS:
        raise ValueError(f"ip_frag={value}/{mask} has no name in ovs-ofctl")
    return FRAGMENTS[value, mask]


def value_text(name: str, value: int, mask: int) -> str:
    """A field's value, with its mask where there is one."""
    show = _shower(name)
    if mask == FIELDS[name].full_mask:
        return show(value)
    if name in (*_IPV4, "ipv6_src", "ipv6_dst", "ct_ipv6_src", "ct_ipv6_dst"):
        return f"{show(value)}/{_prefix(name, mask)}"
    return f"{show(value)}/{_mask(name, mask)}"


_IPV4 = ("ipv4_src", "ipv4_dst", "arp_spa", "arp_tpa", "ct_nw_src", "ct_nw_dst")
_DECIMAL = ("in_port", "ip_proto", "ct_zone", "nw_ttl", "mpls_label", "mpls_tc", "mpls_bos", "mpls_ttl")


def _shower(name: str) -> Callable[[int], str]:
    """How a field's values are written."""
    if name in _DECIMAL or name.endswith(("_type", "_code")) and name != "eth_type":
        return str
    if name.startswith(("eth_", "arp_sha", "arp_tha", "ipv6_nd_sll", "ipv6_nd_tll")) and name != "eth_type":
        return mac
    if name in _IPV4:
        return lambda value: str(IPv4Address(value))
    if name in ("ipv6_src", "ipv6_dst", "ipv6_nd_target", "ct_ipv6_src", "ct_ipv6_dst"):
        return lambda value: str(IPv6Address(value))
    if name.startswith(("tcp_", "udp_", "sctp_", "arp_op", "ip_", "vlan_pcp", "ct_tp_", "ct_nw_proto")):
        return str
    return hex


def _mask(name: str, mask: int) -> str:
    """A mask: in the notation of addresses for them, else hexadecimal."""
    return hex(mask) if _shower(name) in (str, hex) else _shower(name)(mask)


def _prefix(name: str, mask: int) -> str:
    """The prefix length if the mask is one, else the mask as an address."""
    bits = FIELDS[name].bits
    length = mask.bit_count()
    is_prefix = mask == FIELDS[name].full_mask >> (bits - length) << (bits - length)
    return str(length) if is_prefix else _mask(name, mask)


def mac(value: int) -> str:
    """A 48-bit integer as aa:bb:cc:dd:ee:ff."""
    return value.to_bytes(6, "big").hex(":")


NXM_NAMES = {"nw_ttl": "NXM_NX_IP_TTL"}
"""Names in NXM notation that do not follow from the field's name."""


def subfield(name: str, offset: int = 0, bits: int | None = None) -> str:
    """Part of a field in NXM notation, for example `NXM_NX_REG2[]` or `OXM_OF_TCP_DST[0..7]`."""
    whole = FIELDS[name]
    full = NXM_NAMES.get(name) or f"{'NXM_NX' if whole.nicira else 'OXM_OF'}_{name.upper()}"
    if bits is None or (offset == 0 and bits == whole.bits):
        return f"{full}[]"
    return f"{full}[{offset}]" if bits == 1 else f"{full}[{offset}..{offset + bits - 1}]"
