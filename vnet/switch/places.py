"""Where each OpenFlow field lies in the parsed key, which `bpf/abi.h` draws, and which packets have it."""

from __future__ import annotations

from dataclasses import dataclass

from vnet.openflow.fields import FIELDS
from vnet.switch.abi import Has, Need, Word

WORD_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where a field lies: bits `shift…` of `word`."""

    word: int
    shift: int
    has: int = 0
    """What a packet must have for the field to match at all; zero may also be a field's value."""
    need: Need = Need.NOTHING
    """What it must have for the field to be written or read."""
    wide: bool = False
    """128 bits: the high half in `word`, the low one in the next."""
    family: int = 0
    """Of a connection's address: 4 or 6, which `Word.ZONE` must tell for the field to match at all."""


def _l4(shift: int, need: Need) -> Place:
    return Place(Word.L4, shift, Has.L4, need)


CT_FAMILY_SHIFT = 16
"""Where `Word.ZONE` tells the IP version of a packet's connection."""

PLACES: dict[str, Place] = {
    "in_port": Place(Word.PORT, 32),
    "ip_proto": Place(Word.PORT, 24, need=Need.IP),
    "ip_dscp": Place(Word.PORT, 18, need=Need.IP),
    "ip_ecn": Place(Word.PORT, 16, need=Need.IP),
    "ip_frag": Place(Word.PORT, 8, need=Need.IP),
    "eth_dst": Place(Word.DST, 16),
    "vlan_pcp": Place(Word.DST, 13, need=Need.VLAN),
    "vlan_vid": Place(Word.DST, 0, need=Need.VLAN),
    "eth_src": Place(Word.SRC, 16),
    "eth_type": Place(Word.SRC, 0),
    "ipv4_src": Place(Word.IP_SRC + 1, 0, need=Need.IPV4),
    "arp_spa": Place(Word.IP_SRC + 1, 0, need=Need.ARP),
    "ipv6_src": Place(Word.IP_SRC, 0, need=Need.IPV6, wide=True),
    "ipv4_dst": Place(Word.IP_DST + 1, 0, need=Need.IPV4),
    "arp_tpa": Place(Word.IP_DST + 1, 0, need=Need.ARP),
    "ipv6_dst": Place(Word.IP_DST, 0, need=Need.IPV6, wide=True),
    "tcp_src": _l4(48, Need.TCP),
    "udp_src": _l4(48, Need.UDP),
    "sctp_src": _l4(48, Need.SCTP),
    "icmpv4_type": _l4(48, Need.ICMP),
    "icmpv6_type": _l4(48, Need.ICMPV6),
    "tcp_dst": _l4(32, Need.TCP),
    "udp_dst": _l4(32, Need.UDP),
    "sctp_dst": _l4(32, Need.SCTP),
    "icmpv4_code": _l4(32, Need.ICMP),
    "icmpv6_code": _l4(32, Need.ICMPV6),
    "arp_op": Place(Word.L4, 0, need=Need.ARP),
    "arp_sha": Place(Word.SHA, 0, need=Need.ARP),
    "ipv6_nd_sll": Place(Word.SHA, 0, need=Need.ND_SOLICIT),
    "arp_tha": Place(Word.THA, 0, need=Need.ARP),
    "ipv6_nd_tll": Place(Word.THA, 0, need=Need.ND_ADVERT),
    "ipv6_nd_target": Place(Word.ND_TARGET, 0, need=Need.ND, wide=True),
    "metadata": Place(Word.METADATA, 0),
    "ct_state": Place(Word.CT, 0),
    "ct_mark": Place(Word.CT, 32),
    "ct_zone": Place(Word.ZONE, 0),
    "ct_label": Place(Word.LABEL, 0, wide=True),
    "ct_nw_proto": Place(Word.ZONE, 24),
    "ct_tp_dst": Place(Word.ZONE, 32),
    "ct_tp_src": Place(Word.ZONE, 48),
    "ct_nw_src": Place(Word.CT_SRC + 1, 0, need=Need.IPV4, family=4),
    "ct_nw_dst": Place(Word.CT_DST + 1, 0, need=Need.IPV4, family=4),
    "ct_ipv6_src": Place(Word.CT_SRC, 0, need=Need.IPV6, wide=True, family=6),
    "ct_ipv6_dst": Place(Word.CT_DST, 0, need=Need.IPV6, wide=True, family=6),
    "tunnel_id": Place(Word.TUNNEL, 0),
    "nw_ttl": Place(Word.MORE, 56, need=Need.IP),
    "ipv6_exthdr": Place(Word.MORE, 44, need=Need.IPV6),
    "tcp_flags": Place(Word.MORE, 32, Has.L4, Need.TCP),
    "ipv6_flabel": Place(Word.MORE, 0, need=Need.IPV6),
    "mpls_label": Place(Word.MPLS, 12, need=Need.MPLS),
    "mpls_tc": Place(Word.MPLS, 9, need=Need.MPLS),
    "mpls_bos": Place(Word.MPLS, 8, need=Need.MPLS),
    "mpls_ttl": Place(Word.MPLS, 0, need=Need.MPLS),
    **{f"reg{n}": Place(Word.REGS + n // 2, 32 * (n % 2)) for n in range(16)},
}

WRITABLE = frozenset(name for name in PLACES if FIELDS[name].writable)
"""Fields that Set-Field and Move may write."""


def spread(place: Place, value: int, mask: int) -> list[tuple[int, int, int]]:
    """(word, value, mask) of each word that the bits `mask` of a field lie in, in place."""
    if not place.wide:
        return [(place.word, value << place.shift, mask << place.shift)]
    parts = (
        (place.word, value >> 64, mask >> 64),
        (place.word + 1, value & WORD_MASK, mask & WORD_MASK),
    )
    return [part for part in parts if part[2]]


def pieces(place: Place, offset: int, bits: int) -> list[tuple[int, int, int]]:
    """(word, shift, bits) of each word that `bits` bits from `offset` up lie in, lowest first."""
    if not place.wide:
        return [(place.word, place.shift + offset, bits)]
    low = max(0, min(bits, 64 - offset))
    parts = [(place.word + 1, offset, low)] if low else []
    return parts + ([(place.word, max(0, offset - 64), bits - low)] if bits > low else [])
