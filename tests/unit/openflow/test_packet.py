"""The parser against frames made by Scapy, and against frames no honest sender makes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptMTU,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Packet as Layer
from scapy.packet import Raw

from vnet.openflow.fields import FIELDS
from vnet.openflow.packet import (
    Fragment,
    Malformed,
    embedded,
    extension_bits,
    parse,
)

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
IP4 = IP(src="10.0.0.1", dst="10.0.0.2", tos=0xB9)
IP6 = IPv6(src="fd00::1", dst="fd00::2", tc=0xB9)
V6 = 0xFD << 120


def fields(*layers: Layer) -> dict[str, int]:
    frame: Layer = ETHER
    for layer in layers:
        frame = frame / layer
    return dict(parse(bytes(frame)).fields)


def reason(frame: bytes) -> str:
    with pytest.raises(Malformed) as caught:
        parse(frame)
    return str(caught.value)


def test_an_untagged_frame_has_vlan_vid_zero() -> None:
    assert fields(Raw(bytes(46))) == {
        "eth_dst": 0x020000000002,
        "eth_src": 0x020000000001,
        "eth_type": 0x9000,
        "vlan_vid": 0,
    }


@pytest.mark.parametrize("tag", [Dot1Q, Dot1AD])
def test_the_outer_tag_is_read_and_the_inner_one_hides_the_rest(tag: type[Layer]) -> None:
    got = fields(tag(vlan=10, prio=5), Dot1Q(vlan=20), IP4, UDP())
    assert (got["vlan_vid"], got["vlan_pcp"], got["eth_type"]) == (0x100A, 5, 0x8100)
    assert "ipv4_src" not in got


def test_a_tag_of_vid_zero_is_still_a_tag() -> None:
    assert fields(Dot1Q(vlan=0, prio=7), IP4)["vlan_vid"] == 0x1000


def test_a_length_instead_of_an_ethertype_is_not_ethernet_ii() -> None:
    assert parse(bytes(ETHER)[:12] + b"\x00\x2e" + bytes(46)).fields["eth_type"] == 0x05FF


def test_arp_fields() -> None:
    got = fields(
        ARP(op=2, hwsrc="02:00:00:00:00:01", hwdst="02:00:00:00:00:02", psrc="10.0.0.1", pdst="10.0.0.2")
    )
    assert {name: value for name, value in got.items() if name.startswith("arp")} == {
        "arp_op": 2,
        "arp_sha": 0x020000000001,
        "arp_tha": 0x020000000002,
        "arp_spa": 0x0A000001,
        "arp_tpa": 0x0A000002,
    }


def test_ipv4_fields_behind_options() -> None:
    got = fields(
        IP(src="10.0.0.1", dst="10.0.0.2", tos=0xB9, options=[IPOption_Router_Alert()]), TCP(sport=1, dport=2)
    )
    assert (got["ip_dscp"], got["ip_ecn"], got["ip_proto"], got["ip_frag"]) == (46, 1, 6, 0)
    assert (got["ipv4_src"], got["ipv4_dst"], got["tcp_src"], got["tcp_dst"]) == (
        0x0A000001,
        0x0A000002,
        1,
        2,
    )


def test_padding_is_no_part_of_the_packet() -> None:
    assert parse(bytes(ETHER / IP4 / UDP() / Raw(b"hi")) + bytes(40)).payload == b"hi"


@pytest.mark.parametrize(
    ("layer", "name"), [(UDP(sport=1, dport=2), "udp"), (SCTP(sport=1, dport=2), "sctp")]
)
@pytest.mark.parametrize("ip", [IP4, IP6])
def test_ports_of_udp_and_sctp(ip: Layer, layer: Layer, name: str) -> None:
    got = fields(ip, layer)
    assert (got[f"{name}_src"], got[f"{name}_dst"]) == (1, 2)


def test_tcp_flags_and_payload_are_kept() -> None:
    packet = parse(bytes(ETHER / IP4 / TCP(flags="SA", options=[("MSS", 1460)]) / Raw(b"data")))
    assert (packet.fields["tcp_flags"], packet.payload) == (0x12, b"data")


@pytest.mark.parametrize(
    ("fragment", "kind"), [({"flags": "MF"}, 1), ({"frag": 5, "flags": "MF"}, 3), ({"frag": 5}, 3)]
)
def test_ipv4_fragments_are_none_first_or_later(fragment: dict[str, object], kind: int) -> None:
    packet = parse(bytes(ETHER / IP(proto=17, id=77, **fragment) / Raw(bytes(16))))
    assert packet.fields["ip_frag"] == kind
    assert ("udp_dst" in packet.fields) == (kind == 1)
    assert packet.fragment is not None
    assert packet.fragment.identification == 77


def test_icmp_type_code_and_echo_id() -> None:
    packet = parse(bytes(ETHER / IP4 / ICMP(type=8, code=3, id=9)))
    assert (packet.fields["icmpv4_type"], packet.fields["icmpv4_code"], packet.icmp_id) == (8, 3, 9)


def test_ipv6_fields_behind_every_extension_header() -> None:
    extensions = IPv6ExtHdrHopByHop() / IPv6ExtHdrRouting(addresses=["fd00::9"]) / IPv6ExtHdrDestOpt()
    got = fields(IP6, extensions / UDP(dport=53))
    assert (got["ip_dscp"], got["ip_ecn"], got["ip_proto"], got["udp_dst"]) == (46, 1, 17, 53)
    assert (got["ipv6_src"], got["ipv6_dst"], got["ip_frag"]) == (V6 + 1, V6 + 2, 0)


@pytest.mark.parametrize(("offset", "more", "kind"), [(0, 0, 0), (0, 1, 1), (4, 1, 3), (4, 0, 3)])
def test_ipv6_fragments_are_none_first_or_later(offset: int, more: int, kind: int) -> None:
    header = IPv6ExtHdrFragment(offset=offset, m=more, id=0x12345678, nh=17)
    packet = parse(bytes(ETHER / IP6 / header / Raw(bytes(16))))
    assert (packet.fields["ip_frag"], packet.fields["ip_proto"]) == (kind, 17)
    assert ("udp_dst" in packet.fields) == (kind != 3)
    assert packet.fragment == (
        Fragment(0x12345678, offset * 8, offset * 8 + 16, bool(more)) if kind else None
    )


def test_solicitation_has_target_and_source_address() -> None:
    option = ICMPv6NDOptSrcLLAddr(lladdr="02:00:00:00:00:01")
    got = fields(IP6, ICMPv6ND_NS(tgt="fd00::7") / ICMPv6NDOptMTU() / option)
    assert (got["icmpv6_type"], got["ipv6_nd_target"], got["ipv6_nd_sll"]) == (135, V6 + 7, 0x020000000001)
    assert "ipv6_nd_tll" not in got


def test_advertisement_has_target_and_target_address() -> None:
    option = ICMPv6NDOptDstLLAddr(lladdr="02:00:00:00:00:02")
    got = fields(IP6, ICMPv6ND_NA(tgt="fd00::7") / option)
    assert (got["icmpv6_type"], got["ipv6_nd_target"], got["ipv6_nd_tll"]) == (136, V6 + 7, 0x020000000002)
    assert "ipv6_nd_sll" not in got


def test_neighbour_discovery_without_option_has_address_zero_as_in_open_vswitch() -> None:
    assert fields(IP6, ICMPv6ND_NS(tgt="fd00::7"))["ipv6_nd_sll"] == 0
    assert fields(IP6, ICMPv6ND_NA(tgt="fd00::7"))["ipv6_nd_tll"] == 0


def test_the_first_of_two_link_layer_addresses_counts_even_if_it_is_zero() -> None:
    none, some = (ICMPv6NDOptSrcLLAddr(lladdr=f"{first}:00:00:00:00:00") for first in ("00", "02"))
    assert fields(IP6, ICMPv6ND_NS(tgt="fd00::7") / none / some)["ipv6_nd_sll"] == 0


def test_other_protocols_have_only_their_number() -> None:
    got = fields(IP(proto=2), Raw(bytes(8)))
    assert got["ip_proto"] == 2
    assert not [name for name in got if name.startswith(("tcp", "udp", "icmp"))]


def test_icmp_of_the_other_ip_version_is_not_read() -> None:
    assert "icmpv6_type" not in fields(IP(proto=58), Raw(bytes(8)))
    assert "icmpv4_type" not in fields(IPv6(nh=1), Raw(bytes(8)))


def test_the_packet_an_icmp_error_quotes() -> None:
    inner = bytes(IP(src="10.0.0.2", dst="10.0.0.1", len=1500) / UDP(sport=53, dport=999))[:28]
    quoted = embedded(parse(bytes(ETHER / IP4 / ICMP(type=3, code=4) / Raw(inner))))
    assert quoted is not None
    assert (quoted.fields["ipv4_src"], quoted.fields["udp_src"], quoted.fields["udp_dst"]) == (
        0x0A000002,
        53,
        999,
    )


def test_the_packet_an_icmpv6_error_quotes() -> None:
    error = ICMPv6PacketTooBig() / IPv6(src="fd00::2", dst="fd00::1") / UDP(sport=53, dport=999)
    quoted = embedded(parse(bytes(ETHER / IP6 / error)))
    assert quoted is not None
    assert (quoted.fields["ipv6_src"], quoted.fields["udp_dst"]) == (V6 + 2, 999)


@pytest.mark.parametrize("inner", [b"", bytes(28), bytes(IP4)[:19], bytes(IP4 / UDP())[:27]])
def test_an_error_that_quotes_too_little_quotes_nothing(inner: bytes) -> None:
    assert embedded(parse(bytes(ETHER / IP4 / ICMP(type=11) / Raw(inner)))) is None


def test_an_echo_quotes_nothing() -> None:
    assert embedded(parse(bytes(ETHER / IP4 / ICMP() / Raw(bytes(IP4 / UDP()))))) is None


TCP4, TCP6 = bytes(ETHER / IP4 / TCP()), bytes(ETHER / IP6 / TCP())
NS = bytes(ETHER / IP6 / ICMPv6ND_NS() / ICMPv6NDOptSrcLLAddr())


def changed(frame: bytes, offset: int, *values: int) -> bytes:
    return frame[:offset] + bytes(values) + frame[offset + len(values) :]


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (b"", "Ethernet header truncated: 0 of 14 bytes"),
        (TCP4[:13], "Ethernet header truncated: 13 of 14 bytes"),
        (bytes(ETHER / Dot1Q())[:17], "VLAN tag truncated: 3 of 4 bytes"),
        (bytes(ETHER / ARP())[:41], "ARP truncated: 27 of 28 bytes"),
        (bytes(ETHER / ARP(hwtype=6)), "ARP for hardware 6 and protocol 0x800"),
        (TCP4[:33], "IPv4 header truncated: 19 of 20 bytes"),
        (changed(TCP4, 14, 0x65), "IPv4 packet says version 6"),
        (changed(TCP4, 14, 0x44), "IPv4 header length 16 is below 20"),
        (changed(TCP4, 14, 0x4F), "IPv4 options truncated: 40 of 60 bytes"),
        (changed(TCP4, 16, 0, 19), "IPv4 total length 19 is below the header's 20"),
        (changed(TCP4, 16, 0, 41), "IPv4 total length 41 exceeds the frame's 40"),
        (changed(TCP4, 16, 0, 39), "TCP header truncated: 19 of 20 bytes"),
        (changed(TCP4, 46, 0x40), "TCP header length 16 is below 20"),
        (changed(TCP4, 46, 0x60), "TCP options truncated: 20 of 24 bytes"),
        (bytes(ETHER / IP4 / UDP(len=8))[:-1], "IPv4 total length 28 exceeds the frame's 27"),
        (bytes(ETHER / IP(proto=17) / Raw(bytes(7))), "UDP header truncated: 7 of 8 bytes"),
        (bytes(ETHER / IP(proto=132) / Raw(bytes(11))), "SCTP header truncated: 11 of 12 bytes"),
        (bytes(ETHER / IP(proto=1) / Raw(bytes(7))), "ICMP header truncated: 7 of 8 bytes"),
        (bytes(ETHER / IP(proto=6, flags="MF") / Raw(bytes(8))), "TCP header truncated: 8 of 20 bytes"),
        (TCP6[:53], "IPv6 header truncated: 39 of 40 bytes"),
        (changed(TCP6, 14, 0x40), "IPv6 packet says version 4"),
        (changed(TCP6, 18, 0, 21), "IPv6 payload length 21 exceeds the frame's 20"),
        (changed(TCP6, 20, 0), "IPv6 extension header truncated: 20 of 8"),
        (bytes(ETHER / IPv6(nh=44) / Raw(bytes(7))), "IPv6 fragment header truncated: 7 of 8 bytes"),
        (
            bytes(ETHER / IPv6(nh=58) / Raw(bytes([135, *bytes(22)]))),
            "neighbour discovery truncated: 23 of 24",
        ),
        (changed(NS, 14 + 40 + 25, 0), "neighbour discovery option of length 0"),
        (changed(NS, 14 + 40 + 25, 2), "neighbour discovery option truncated: 8 of 16 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_malformed_frames_are_refused_with_the_reason(frame: bytes, why: str) -> None:
    if why == "IPv6 extension header truncated: 20 of 8":
        frame = changed(frame, 14 + 40, 6, 2)
        why = "IPv6 extension header truncated: 20 of 24 bytes"
    assert reason(frame).startswith(why)


def test_nine_extension_headers_are_refused() -> None:
    header = bytes([60, 0, *bytes(6)])
    nine = bytes(ETHER / IPv6(nh=60) / Raw(header * 8 + bytes([59, 0, *bytes(6)])))
    assert reason(nine) == "more than 8 IPv6 extension headers"
    eight = bytes(ETHER / IPv6(nh=60) / Raw(header * 7 + bytes([59, 0, *bytes(6)])))
    assert parse(eight).fields["ip_proto"] == 59


def test_nine_neighbour_discovery_options_are_refused() -> None:
    many = IPv6(nh=58) / Raw(bytes([135, *bytes(23)]) + bytes([14, 1, *bytes(6)]) * 9)
    assert reason(bytes(ETHER / many)) == "more than 8 neighbour discovery options"


@given(st.binary(max_size=120), st.sampled_from([0x800, 0x86DD, 0x806, 0x8100]))
def test_any_bytes_are_read_or_refused_and_values_fit_their_fields(data: bytes, ethertype: int) -> None:
    try:
        packet = parse(bytes(12) + ethertype.to_bytes(2, "big") + data)
    except Malformed:
        return
    assert all(0 <= value <= FIELDS[name].full_mask for name, value in packet.fields.items())
    embedded(packet)


LONG = bytes(ETHER / Dot1Q(vlan=3) / IP6 / IPv6ExtHdrHopByHop() / ICMPv6EchoRequest(id=4) / Raw(bytes(30)))


@pytest.mark.parametrize("length", range(len(LONG)))
def test_cutting_a_frame_never_invents_fields(length: int) -> None:
    whole = parse(LONG).fields
    try:
        cut = parse(LONG[:length]).fields
    except Malformed:
        return
    assert cut == whole


# -- the rest of OpenFlow 1.3 ----------------------------------------------------------------------


@pytest.mark.parametrize(("ip", "ttl"), [(IP(ttl=7), 7), (IPv6(hlim=9), 9)])
def test_the_ttl_of_both_versions(ip: Layer, ttl: int) -> None:
    assert fields(ip, UDP())["nw_ttl"] == ttl


def test_the_flow_label_is_20_bits() -> None:
    assert fields(IPv6(tc=0xFF, fl=0xABCDE), UDP())["ipv6_flabel"] == 0xABCDE


def test_tcp_flags_are_twelve_bits() -> None:
    assert fields(IP4, TCP(flags="FSRPAUECN", reserved=5))["tcp_flags"] == 0xBFF
    assert "tcp_flags" not in fields(IP4, UDP())


def test_the_outermost_label_is_read_and_hides_the_rest() -> None:
    inner = MPLS(label=9, cos=1, s=1, ttl=1) / IP4 / UDP()
    got = fields(MPLS(label=0xABCDE, cos=5, s=0, ttl=77), inner)
    assert (got["eth_type"], got["mpls_label"], got["mpls_tc"], got["mpls_bos"], got["mpls_ttl"]) == (
        0x8847,
        0xABCDE,
        5,
        0,
        77,
    )
    assert "ipv4_src" not in got
    assert fields(Dot1Q(vlan=5), MPLS(label=7, s=1), IP4)["mpls_label"] == 7
    assert parse(bytes(ETHER)[:12] + bytes.fromhex("88480000512a")).fields["mpls_label"] == 5
    assert reason(bytes(ETHER / MPLS())[:17]) == "MPLS label stack entry truncated: 3 of 4 bytes"


AH = Raw(bytes([17, 4, *bytes(22)]))
"""An authentication header (RFC 4302) of 24 bytes before UDP: its length counts 4 bytes each, less 2."""
HOP, DEST, ROUTER, FRAG = 1 << 6, 1 << 3, 1 << 5, 1 << 4
NONE, ESP, AUTH, UNREP, UNSEQ = 1, 2, 4, 1 << 7, 1 << 8


@pytest.mark.parametrize(
    ("headers", "bits"),
    [
        ([], 0),
        ([0], HOP),
        ([0, 60, 43, 44, 51, 50], HOP | DEST | ROUTER | FRAG | AUTH | ESP),
        ([0, 60, 43, 44, 60], HOP | DEST | ROUTER | FRAG),
        ([60, 60], DEST),
        ([60, 60, 60], DEST | UNREP),
        ([43, 0], HOP | ROUTER | UNSEQ),
        ([0, 0], HOP | UNREP),
        ([43, 43], ROUTER | UNREP),
        ([44, 43], FRAG | ROUTER | UNSEQ),
        ([60, 60, 43], DEST | ROUTER | UNSEQ),
        ([43, 60, 44], ROUTER | DEST | FRAG | UNSEQ),
        ([60, 59], DEST | NONE),
    ],
)
def test_extension_headers_are_told_with_their_order_and_repetition(headers: list[int], bits: int) -> None:
    assert extension_bits(headers) == bits


@pytest.mark.parametrize(
    ("frame", "bits"),
    [
        (ETHER / IP6 / UDP(), 0),
        (ETHER / IP6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP(), HOP | DEST),
        (ETHER / IP6 / IPv6ExtHdrFragment(offset=3, nh=60) / Raw(bytes(16)), FRAG),
        (ETHER / IPv6(nh=50) / Raw(bytes(16)), ESP),
        (ETHER / IPv6(nh=51) / AH / UDP(), AUTH),
        (ETHER / IPv6(nh=51) / Raw(bytes([59, 2, *bytes(14)])), AUTH | NONE),
        (ETHER / IPv6(nh=59), NONE),
    ],
)
def test_extension_headers_are_read_up_to_what_cannot_be(frame: Layer, bits: int) -> None:
    assert parse(bytes(frame)).fields["ipv6_exthdr"] == bits
