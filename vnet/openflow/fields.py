"""The match fields: OXM basic class of OpenFlow 1.3.5 (table 11) and Nicira extensions.

One table of data that codec, interpreter and `switch.lower` share. `needs` lists the alternatives of
the prerequisite: a match on the field must also match one of them exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

from vnet.base import protocols

Prerequisite = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Field:
    """One match field: its width, whether a mask is allowed, whether Set-Field may write it.

    `reshapes`: what follows in the packet is something else after it was written, so it is only written as a
    whole and by Set-Field.
    """

    name: str
    bits: int
    maskable: bool = False
    needs: tuple[Prerequisite, ...] = ()
    writable: bool = True
    nicira: bool = False
    reshapes: bool = False

    @property
    def full_mask(self) -> int:
        """All ones over the field's width."""
        return (1 << self.bits) - 1

    def takes(self, value: int, mask: int) -> bool:
        """Whether Set-Field may write so. A tag is pushed; writing its EtherType would make none."""
        if not self.reshapes:
            return self.writable
        return mask == self.full_mask and (self.name != "eth_type" or value in _WRITABLE_TYPES)


ETH_IPV4, ETH_IPV6, ETH_ARP, ETH_VLAN, ETH_SVLAN = 0x0800, 0x86DD, 0x0806, 0x8100, 0x88A8
ETH_MPLS, ETH_MPLS_MULTICAST = 0x8847, 0x8848
FIRST_ETHERTYPE = 0x0600
"""Lower numbers are lengths (IEEE 802.3)."""
_WRITABLE_TYPES = frozenset(range(FIRST_ETHERTYPE, 1 << 16)) - {ETH_VLAN, ETH_SVLAN}
TCP, UDP, SCTP, ICMP, ICMPV6 = protocols.TCP, protocols.UDP, protocols.SCTP, protocols.ICMP, protocols.ICMPV6
VLAN_PRESENT = 0x1000

_IPV4 = (("eth_type", ETH_IPV4),)
_IPV6 = (("eth_type", ETH_IPV6),)
_IP = _IPV4 + _IPV6
_ARP = (("eth_type", ETH_ARP),)
_MPLS = (("eth_type", ETH_MPLS), ("eth_type", ETH_MPLS_MULTICAST))
_ND = (("icmpv6_type", 135), ("icmpv6_type", 136))


def _proto(number: int) -> tuple[Prerequisite, ...]:
    return (("ip_proto", number),)


_ALL = (
    Field("in_port", 32, writable=False),
    Field("metadata", 64, maskable=True),
    Field("eth_dst", 48, maskable=True),
    Field("eth_src", 48, maskable=True),
    Field("eth_type", 16, reshapes=True),
    Field("vlan_vid", 13, maskable=True),
    Field("vlan_pcp", 3, needs=(("vlan_vid", VLAN_PRESENT),)),
    Field("ip_dscp", 6, needs=_IP),
    Field("ip_ecn", 2, needs=_IP),
    Field("ip_proto", 8, needs=_IP, reshapes=True),
    Field("ipv4_src", 32, maskable=True, needs=_IPV4),
    Field("ipv4_dst", 32, maskable=True, needs=_IPV4),
    Field("ipv6_src", 128, maskable=True, needs=_IPV6),
    Field("ipv6_dst", 128, maskable=True, needs=_IPV6),
    Field("ipv6_flabel", 20, maskable=True, needs=_IPV6),
    Field("ipv6_exthdr", 9, maskable=True, needs=_IPV6, writable=False),
    Field("mpls_label", 20, needs=_MPLS),
    Field("mpls_tc", 3, needs=_MPLS),
    Field("mpls_bos", 1, needs=_MPLS),
    Field("tunnel_id", 64, maskable=True),
    Field("tcp_src", 16, maskable=True, needs=_proto(TCP)),
    Field("tcp_dst", 16, maskable=True, needs=_proto(TCP)),
    Field("udp_src", 16, maskable=True, needs=_proto(UDP)),
    Field("udp_dst", 16, maskable=True, needs=_proto(UDP)),
    Field("sctp_src", 16, maskable=True, needs=_proto(SCTP)),
    Field("sctp_dst", 16, maskable=True, needs=_proto(SCTP)),
    Field("icmpv4_type", 8, needs=_proto(ICMP)),
    Field("icmpv4_code", 8, needs=_proto(ICMP)),
    Field("icmpv6_type", 8, needs=_proto(ICMPV6)),
    Field("icmpv6_code", 8, needs=_proto(ICMPV6)),
    Field("arp_op", 16, needs=_ARP),
    Field("arp_spa", 32, maskable=True, needs=_ARP),
    Field("arp_tpa", 32, maskable=True, needs=_ARP),
    Field("arp_sha", 48, maskable=True, needs=_ARP),
    Field("arp_tha", 48, maskable=True, needs=_ARP),
    Field("ipv6_nd_target", 128, maskable=True, needs=_ND),
    Field("ipv6_nd_sll", 48, maskable=True, needs=(("icmpv6_type", 135),)),
    Field("ipv6_nd_tll", 48, maskable=True, needs=(("icmpv6_type", 136),)),
    Field("ip_frag", 2, maskable=True, needs=_IP, writable=False, nicira=True),
    Field("nw_ttl", 8, needs=_IP, nicira=True),
    Field("mpls_ttl", 8, needs=_MPLS, nicira=True),
    Field("tcp_flags", 12, maskable=True, needs=_proto(TCP), writable=False, nicira=True),
    Field("ct_state", 32, maskable=True, writable=False, nicira=True),
    Field("ct_zone", 16, writable=False, nicira=True),
    Field("ct_mark", 32, maskable=True, writable=False, nicira=True),
    Field("ct_label", 128, maskable=True, writable=False, nicira=True),
    Field("ct_nw_proto", 8, writable=False, nicira=True),
    Field("ct_nw_src", 32, maskable=True, writable=False, nicira=True),
    Field("ct_nw_dst", 32, maskable=True, writable=False, nicira=True),
    Field("ct_ipv6_src", 128, maskable=True, writable=False, nicira=True),
    Field("ct_ipv6_dst", 128, maskable=True, writable=False, nicira=True),
    Field("ct_tp_src", 16, maskable=True, writable=False, nicira=True),
    Field("ct_tp_dst", 16, maskable=True, writable=False, nicira=True),
    *(Field(f"reg{n}", 32, maskable=True, nicira=True) for n in range(16)),
)

FIELDS: dict[str, Field] = {field.name: field for field in _ALL}

ORIGINAL = ("ct_nw_proto", "ct_nw_src", "ct_nw_dst", "ct_ipv6_src", "ct_ipv6_dst", "ct_tp_src", "ct_tp_dst")
"""Of the original direction of a packet's connection; of ICMP the ports are type and code."""

REGISTERS = tuple(f"reg{n}" for n in range(16))


class CtState:
    """Bits of `ct_state` (ovs-fields(7))."""

    NEW, EST, REL, RPL, INV, TRK, SNAT, DNAT = (1 << bit for bit in range(8))


class Frag:
    """Values of `ip_frag` (NXM_NX_IP_FRAG): 0 not a fragment, 1 first, 3 a later one; bit 0 = any."""

    ANY = 1
    LATER = 2


class ExtHeader:
    """Bits of `ipv6_exthdr` (OpenFlow 1.3.5, section 7.2.3.7, OFPIEH_*)."""

    NO_NEXT, ESP, AUTH, DEST, FRAG, ROUTER, HOP, UNREP, UNSEQ = (1 << bit for bit in range(9))
