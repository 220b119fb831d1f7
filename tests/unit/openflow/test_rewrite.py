"""Rewritten frames against what Scapy makes of the same packet from scratch, checksums included."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.layers.sctp import SCTP, SCTPChunkData
from scapy.packet import Packet as Layer
from scapy.packet import Raw

from vnet.openflow.fields import FIELDS
from vnet.openflow.packet import Malformed, embedded, parse
from vnet.openflow.rewrite import (
    copy_ttl_in,
    copy_ttl_out,
    crc32c,
    pop_mpls,
    pop_vlan,
    push_mpls,
    push_vlan,
    raise_drop_precedence,
    set_field,
    write,
)

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
IP4 = IP(src="10.0.0.1", dst="10.0.0.2", tos=0xB9, ttl=9)
IP6 = IPv6(src="fd00::1", dst="fd00::2", tc=0xB9, hlim=9, fl=5)
TEXT = Raw(b"seven b")
V6 = 0xFD << 120


def made(*layers: Layer) -> bytes:
    frame: Layer = ETHER
    for layer in layers:
        frame = frame / layer
    return bytes(frame)


def ip4(**changed: object) -> IP:
    return IP(**({"src": "10.0.0.1", "dst": "10.0.0.2", "tos": 0xB9, "ttl": 9} | changed))


def ip6(**changed: object) -> IPv6:
    return IPv6(**({"src": "fd00::1", "dst": "fd00::2", "tc": 0xB9, "hlim": 9, "fl": 5} | changed))


@pytest.mark.parametrize("inner", [TCP(), UDP(), ICMP(), SCTP() / SCTPChunkData(data=b"data")])
@pytest.mark.parametrize(
    ("name", "value", "changed"),
    [
        ("ipv4_src", 0xC0000201, {"src": "192.0.2.1"}),
        ("ipv4_dst", 0xFFFFFFFF, {"dst": "255.255.255.255"}),
        ("ip_dscp", 0, {"tos": 1}),
        ("ip_ecn", 3, {"tos": 0xBB}),
        ("nw_ttl", 255, {"ttl": 255}),
    ],
)
def test_ipv4_fields_are_written_and_every_checksum_follows(
    name: str, value: int, changed: dict[str, object], inner: Layer
) -> None:
    assert set_field(made(IP4, inner, TEXT), name, value) == made(ip4(**changed), inner, TEXT)


@pytest.mark.parametrize("inner", [TCP(), UDP(), ICMPv6EchoRequest()])
@pytest.mark.parametrize("extension", [None, IPv6ExtHdrHopByHop()])
@pytest.mark.parametrize(
    ("name", "value", "changed"),
    [
        ("ipv6_src", V6 | 0x99, {"src": "fd00::99"}),
        ("ipv6_dst", V6 | 0x99, {"dst": "fd00::99"}),
        ("ip_dscp", 0, {"tc": 1}),
        ("ip_ecn", 3, {"tc": 0xBB}),
        ("nw_ttl", 1, {"hlim": 1}),
        ("ipv6_flabel", 0xFFFFF, {"fl": 0xFFFFF}),
    ],
)
def test_ipv6_fields_are_written_and_every_checksum_follows(
    name: str, value: int, changed: dict[str, object], extension: Layer | None, inner: Layer
) -> None:
    behind = (inner, TEXT) if extension is None else (extension, inner, TEXT)
    assert set_field(made(IP6, *behind), name, value) == made(ip6(**changed), *behind)


def test_before_a_waypoint_the_checksum_covers_the_last_destination_only() -> None:
    route = IPv6ExtHdrRouting(addresses=["fd00::9"], segleft=1)
    before, after = made(IP6, route, UDP(), TEXT), made(ip6(dst="fd00::99"), route, UDP(), TEXT)
    assert set_field(before, "ipv6_dst", V6 | 0x99) == after
    assert set_field(before, "ipv6_src", V6 | 0x98) == made(ip6(src="fd00::98"), route, UDP(), TEXT)


@pytest.mark.parametrize("ip", [IP4, IP6])
@pytest.mark.parametrize(("kind", "name"), [(TCP, "tcp"), (UDP, "udp"), (SCTP, "sctp")])
def test_ports_are_written_and_the_checksum_follows(ip: Layer, kind: type[Layer], name: str) -> None:
    data = SCTPChunkData(data=b"data") if kind is SCTP else TEXT
    frame = made(ip, kind(sport=1, dport=2), data)
    changed = set_field(set_field(frame, f"{name}_src", 40001), f"{name}_dst", 65535)
    assert changed == made(ip, kind(sport=40001, dport=65535), data)


@pytest.mark.parametrize(
    ("before", "name", "value", "after"),
    [
        (made(IP4, ICMP(type=15)), "icmpv4_type", 16, made(IP4, ICMP(type=16))),
        (made(IP4, ICMP(code=0)), "icmpv4_code", 3, made(IP4, ICMP(code=3))),
        (made(IP6, ICMPv6EchoRequest()), "icmpv6_code", 3, made(IP6, ICMPv6EchoRequest(code=3))),
        (made(IP6, ICMPv6ND_NS()), "ipv6_nd_target", V6 | 7, made(IP6, ICMPv6ND_NS(tgt="fd00::7"))),
        (
            made(IP6, ICMPv6ND_NS(), ICMPv6NDOptSrcLLAddr()),
            "ipv6_nd_sll",
            0x020000000009,
            made(IP6, ICMPv6ND_NS(), ICMPv6NDOptSrcLLAddr(lladdr="02:00:00:00:00:09")),
        ),
        (
            made(IP6, ICMPv6ND_NA(), ICMPv6NDOptDstLLAddr()),
            "ipv6_nd_tll",
            0x020000000009,
            made(IP6, ICMPv6ND_NA(), ICMPv6NDOptDstLLAddr(lladdr="02:00:00:00:00:09")),
        ),
        (made(ARP()), "arp_op", 2, made(ARP(op=2))),
        (made(ARP()), "arp_spa", 0x0A000009, made(ARP(psrc="10.0.0.9"))),
        (made(ARP()), "arp_tpa", 0x0A000009, made(ARP(pdst="10.0.0.9"))),
        (made(ARP()), "arp_sha", 9, made(ARP(hwsrc="00:00:00:00:00:09"))),
        (made(ARP()), "arp_tha", 9, made(ARP(hwdst="00:00:00:00:00:09"))),
        (made(MPLS(label=5)), "mpls_label", 0xFFFFF, made(MPLS(label=0xFFFFF))),
        (made(MPLS(cos=5)), "mpls_tc", 2, made(MPLS(cos=2))),
        (made(MPLS(ttl=5)), "mpls_ttl", 255, made(MPLS(ttl=255))),
        (made(Dot1Q(vlan=1, prio=6, dei=1)), "vlan_vid", 0x1FFF, made(Dot1Q(vlan=0xFFF, prio=6))),
        (made(Dot1Q(vlan=1, prio=6, dei=1)), "vlan_pcp", 0, made(Dot1Q(vlan=1, prio=0))),
    ],
)
def test_other_fields_are_written(before: bytes, name: str, value: int, after: bytes) -> None:
    assert set_field(before, name, value) == after


def test_macs_are_written_in_place() -> None:
    got = parse(set_field(set_field(made(IP4), "eth_dst", 1), "eth_src", 0xFFFFFFFFFFFF)).fields
    assert (got["eth_dst"], got["eth_src"]) == (1, 0xFFFFFFFFFFFF)


@pytest.mark.parametrize("frame", [made(ARP()), made(Dot1Q(), Dot1Q(), IP4, TCP()), made(IP6, UDP())])
def test_a_header_that_is_not_there_is_not_written(frame: bytes) -> None:
    for name in ("ipv4_src", "tcp_dst", "mpls_label", "icmpv4_code", "ipv6_nd_sll"):
        assert set_field(frame, name, 1) == frame
    assert set_field(made(IP4), "vlan_vid", 5) == made(IP4)


def test_neighbour_discovery_without_the_option_has_no_address_to_write() -> None:
    assert set_field(made(IP6, ICMPv6ND_NS()), "ipv6_nd_sll", 5) == made(IP6, ICMPv6ND_NS())


# -- checksums ------------------------------------------------------------------------------------


def test_a_checksum_that_was_wrong_stays_wrong_by_as_much() -> None:
    frame = set_field(made(ip4(chksum=0x1234), TCP(chksum=0x4321)), "ipv4_dst", 0x0A000003)
    assert frame[24:26] == bytes.fromhex("1233")
    assert frame[50:52] == bytes.fromhex("4320")


def test_udp_without_a_checksum_stays_without() -> None:
    frame = set_field(made(IP4, UDP(chksum=0), TEXT), "udp_dst", 99)
    assert frame == made(IP4, UDP(chksum=0, dport=99), TEXT)


def test_a_udp_checksum_that_becomes_zero_is_sent_as_ones() -> None:
    frame = made(IP4, UDP(sport=0, chksum=0x0007))
    assert set_field(frame, "udp_src", 7)[40:42] == b"\xff\xff"
    assert set_field(made(IP4, TCP(sport=0, chksum=0x0007)), "tcp_src", 7)[50:52] == b"\x00\x00"


def test_the_checksum_of_a_first_fragment_follows_though_the_rest_is_elsewhere() -> None:
    data = Raw(bytes(range(80)))
    whole = made(ip4(dst="10.0.0.9"), TCP(), data)
    checksum = int.from_bytes(made(IP4, TCP(), data)[50:52], "big")
    first = made(ip4(flags="MF"), TCP(chksum=checksum))
    assert set_field(first, "ipv4_dst", 0x0A000009)[50:52] == whole[50:52]


def test_the_payload_of_a_later_fragment_is_left_alone() -> None:
    data = Raw(bytes(range(40)))
    later = made(ip4(frag=3, proto=6), data)
    assert set_field(later, "ipv4_dst", 0x0A000009) == made(ip4(frag=3, proto=6, dst="10.0.0.9"), data)
    assert set_field(later, "tcp_dst", 99) == later


def test_the_crc_of_the_standard_example() -> None:
    assert crc32c(b"123456789") == 0xE3069283


PORTS = st.integers(0, 0xFFFF)


@given(PORTS, PORTS, st.sampled_from([IP4, IP6]), st.sampled_from([TCP, UDP]), st.binary(max_size=9))
def test_any_port_can_be_written_and_written_back(
    one: int, other: int, ip: Layer, kind: type[Layer], data: bytes
) -> None:
    name = "tcp_dst" if kind is TCP else "udp_dst"
    frame = made(ip, kind(dport=one), Raw(data))
    assert set_field(frame, name, other) == made(ip, kind(dport=other), Raw(data))


@pytest.mark.parametrize("inner", [TCP(), UDP(), TCP(chksum=7), UDP(chksum=0), ICMP()])
def test_the_protocol_is_written_into_both_headers_that_repeat_it(inner: Layer) -> None:
    """Layer 4 stays what it was; its checksum is as right or wrong with the new protocol."""
    before = made(IP4, inner, TEXT)
    after = made(ip4(proto=99, len=len(before) - 14), Raw(_resummed(before, inner, 99)))
    assert set_field(before, "ip_proto", 99) == after


def _resummed(frame: bytes, inner: Layer, protocol: int) -> bytes:
    """Layer 4 of an IPv4 frame whose checksum takes `protocol` into account."""
    layer4 = bytearray(frame[34:])
    at = {TCP: 16, UDP: 6}.get(type(inner))
    if at is None or inner.chksum == 0:
        return bytes(layer4)
    total = (0xFFFF - int.from_bytes(layer4[at : at + 2], "big")) - frame[23] + protocol
    layer4[at : at + 2] = (0xFFFF - (total & 0xFFFF) - (total >> 16)).to_bytes(2, "big")
    return bytes(layer4)


@pytest.mark.parametrize("behind", [(TCP(),), (UDP(),), (ICMPv6EchoRequest(),)])
def test_the_protocol_of_ipv6_is_that_of_the_last_extension_header(behind: tuple[Layer, ...]) -> None:
    hop, options = IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt()
    frame = made(IP6, hop, options, *behind, TEXT)
    written = set_field(frame, "ip_proto", 99)
    assert parse(written).fields["ip_proto"] == 99
    assert written[14 + 40 : 14 + 41] == frame[14 + 40 : 14 + 41]
    assert set_field(made(IP6, *behind), "ip_proto", 99)[20] == 99
    at = {TCP: 16, UDP: 6}.get(type(behind[0]), 2) + 14 + 40 + 16
    change = int.from_bytes(frame[at : at + 2], "big") - int.from_bytes(written[at : at + 2], "big")
    assert change % 0xFFFF == (99 - parse(frame).fields["ip_proto"]) % 0xFFFF
    assert [n for n in range(len(frame)) if frame[n] != written[n] and n not in (at, at + 1)] == [62]


def test_an_ethertype_is_written_behind_the_outermost_tag_and_what_follows_is_read_anew() -> None:
    frame = set_field(made(Dot1Q(vlan=5), IP4, TCP()), "eth_type", 0x86DD)
    assert frame == made(Dot1Q(vlan=5, type=0x86DD), Raw(bytes(IP4 / TCP())))
    with pytest.raises(Malformed):
        parse(frame)


def test_the_bottom_of_stack_is_written_alone() -> None:
    label = {"label": 7, "cos": 3, "ttl": 9}
    assert set_field(made(MPLS(s=1, **label), IP4), "mpls_bos", 0) == made(MPLS(s=0, **label), IP4)


@given(st.data())
def test_writing_any_field_changes_that_field_alone(data: st.DataObject) -> None:
    frames = (made(Dot1Q(), IP4, TCP()), made(IP6, UDP()), made(ARP()), made(MPLS()))
    frame = data.draw(st.sampled_from(frames))
    packet = parse(frame)
    names = sorted(name for name in packet.places if FIELDS[name].writable and not FIELDS[name].reshapes)
    name = data.draw(st.sampled_from(names))
    value = data.draw(st.integers(0, (1 << packet.places[name].bits) - 1))
    after = dict(parse(set_field(frame, name, value)).fields)
    present = 0x1000 if name == "vlan_vid" else 0
    assert after == {**packet.fields, name: value | present}


def test_a_quoted_packet_is_rewritten_with_all_checksums_around_it() -> None:
    def error(inner: Layer, code: int = 0) -> bytes:
        return made(IP4, ICMP(type=3, code=code), inner)

    def inner(port: int) -> Layer:
        return IP(bytes(IP(src="10.0.0.2", dst="192.0.2.1") / UDP(sport=53, dport=port) / TEXT))

    quoted = embedded(parse(error(inner(999))))
    assert quoted is not None
    assert write(quoted, {"udp_dst": 5000}) == error(inner(5000))
    assert write(quoted, {"ipv4_dst": 0xC0000201}) == error(inner(999))


def test_a_quoted_packet_without_its_checksum_is_rewritten_all_the_same() -> None:
    cut = bytes(IP(src="10.0.0.2", dst="192.0.2.1") / TCP(sport=53, dport=7))[:28]
    want = bytes(IP(src="10.0.0.2", dst="192.0.2.1") / TCP(sport=53, dport=9))[:28]
    quoted = embedded(parse(made(IP4, ICMP(type=3), Raw(cut))))
    assert quoted is not None
    assert write(quoted, {"tcp_dst": 9}) == made(IP4, ICMP(type=3), Raw(want))


# -- tags and labels ------------------------------------------------------------------------------


def test_pushing_a_tag_keeps_all_else_and_popping_restores_the_frame() -> None:
    plain = made(IP4, TCP())
    tagged = set_field(set_field(push_vlan(plain), "vlan_vid", 10), "vlan_pcp", 3)
    assert tagged == made(Dot1Q(vlan=10, prio=3), IP4, TCP())
    assert pop_vlan(tagged) == plain
    assert pop_vlan(plain) == plain


def test_a_second_tag_goes_outside_as_a_copy_of_the_first() -> None:
    inner = made(Dot1Q(vlan=20, prio=5), IP4)
    assert push_vlan(inner, 0x88A8) == made(Dot1AD(vlan=20, prio=5), Dot1Q(vlan=20, prio=5), IP4)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (made(IP4, TCP()), made(MPLS(label=0, cos=0, s=1, ttl=9), IP4, TCP())),
        (made(IP6, TCP()), made(MPLS(label=0, cos=0, s=1, ttl=9), IP6, TCP())),
        (made(ARP()), made(MPLS(label=0, cos=0, s=1, ttl=0), ARP())),
        (
            made(MPLS(label=7, cos=5, s=1, ttl=3), IP4),
            made(MPLS(label=7, cos=5, s=0, ttl=3), MPLS(label=7, cos=5, s=1, ttl=3), IP4),
        ),
    ],
)
def test_a_label_is_pushed_with_what_is_below_it(before: bytes, after: bytes) -> None:
    pushed = push_mpls(before, 0x8847)
    assert pushed == after
    assert pop_mpls(pushed, int.from_bytes(before[12:14], "big")) == before


def test_a_label_is_pushed_behind_a_tag() -> None:
    tagged = made(Dot1Q(vlan=10), IP4)
    pushed = push_mpls(tagged, 0x8848)
    assert pushed == tagged[:16] + bytes.fromhex("884800000109") + tagged[18:]
    assert pop_mpls(pushed, 0x800) == tagged


def test_a_label_behind_a_tag_is_pushed_in_front_of_the_one_that_was_there() -> None:
    tagged = made(Dot1Q(vlan=10), MPLS(label=7, cos=5, s=1, ttl=3), IP4)
    labels = MPLS(label=7, cos=5, s=0, ttl=3) / MPLS(label=7, cos=5, s=1, ttl=3)
    assert push_mpls(tagged, 0x8847) == made(Dot1Q(vlan=10), labels, IP4)


def test_a_label_behind_a_tag_is_popped_there() -> None:
    tagged = made(Dot1Q(vlan=10), MPLS(label=5, s=1), IP4, TCP(), TEXT)
    assert pop_mpls(tagged, 0x800) == made(Dot1Q(vlan=10), IP4, TCP(), TEXT)
    assert pop_mpls(made(IP4), 0x800) == made(IP4)


@pytest.mark.parametrize(("before", "after"), [(59, 55), (60, 60), (62, 60), (63, 60), (64, 60), (65, 61)])
def test_a_frame_that_is_long_enough_for_ethernet_stays_so_without_its_label(before: int, after: int) -> None:
    frame = made(MPLS(label=5, s=1), Raw(bytes(range(1, before - 17))))
    popped = pop_mpls(frame, 0x88B5)
    assert (len(frame), len(popped)) == (before, after)
    assert popped == (frame[:12] + b"\x88\xb5" + frame[18:]).ljust(after, b"\0")


# -- TTL and meters -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (lambda ttl: MPLS(ttl=ttl, s=1), lambda ttl: ip4(ttl=ttl) / TCP()),
        (lambda ttl: MPLS(ttl=ttl, s=1), lambda ttl: ip6(hlim=ttl) / TCP()),
        (lambda ttl: MPLS(ttl=ttl, s=0), lambda ttl: MPLS(ttl=ttl, s=1) / IP4),
        (lambda ttl: Dot1Q() / MPLS(ttl=ttl, s=1), lambda ttl: ip4(ttl=ttl) / TCP()),
    ],
)
def test_a_ttl_is_copied_outwards_and_inwards(outer: object, inner: object) -> None:
    assert callable(outer)
    assert callable(inner)
    frame = made(outer(7), inner(9))
    assert copy_ttl_out(frame) == made(outer(9), inner(9))
    assert copy_ttl_in(frame) == made(outer(7), inner(7))


@pytest.mark.parametrize(
    "frame", [made(IP4, TCP()), made(MPLS(s=1), ARP()), made(MPLS(s=0)), made(MPLS(s=1))]
)
def test_without_two_ttls_none_is_copied(frame: bytes) -> None:
    assert copy_ttl_out(frame) == frame
    assert copy_ttl_in(frame) == frame


@pytest.mark.parametrize(
    ("dscp", "by", "after"),
    [(10, 1, 12), (10, 9, 14), (34, 1, 36), (46, 1, 46), (0, 1, 0), (8, 1, 8), (40, 1, 40)],
)
def test_only_assured_forwarding_has_a_drop_precedence_to_raise(dscp: int, by: int, after: int) -> None:
    assert raise_drop_precedence(made(ip4(tos=dscp << 2)), by) == made(ip4(tos=after << 2))
