"""Between whom a frame goes: as Scapy made it, and as the careful parser reads it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from vnet.capture.ends import UNKNOWN, Ends, ends_of

FOUR = IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")
SIX = IPv6Address("fd00::1"), IPv6Address("fd00::2")
IP4, IP6 = IP(src=str(FOUR[0]), dst=str(FOUR[1])), IPv6(src=str(SIX[0]), dst=str(SIX[1]))


@pytest.mark.parametrize(
    ("packet", "ends"),
    [
        (Ether() / IP4 / TCP(sport=1, dport=2, flags="SA"), Ends(*FOUR, 6, 1, 2, 0x12)),
        (Ether() / Dot1Q(vlan=5) / Dot1Q(vlan=6) / IP4 / UDP(sport=1, dport=2), Ends(*FOUR, 17, 1, 2)),
        (
            Ether() / IP(src="10.0.0.1", dst="10.0.0.2", options=b"\x01" * 4) / ICMP(type=8),
            Ends(*FOUR, 1, None, 8),
        ),
        (
            Ether() / IP(src="10.0.0.1", dst="10.0.0.2", frag=3, proto=17) / Raw(b"x" * 8),
            Ends(*FOUR, 17, fragment_at=24),
        ),
        (Ether() / IP4 / Raw(b""), Ends(*FOUR, 0)),
        (Ether() / IP6 / IPv6ExtHdrHopByHop() / UDP(sport=1, dport=2), Ends(*SIX, 17, 1, 2)),
        (Ether() / IP6 / IPv6ExtHdrFragment(m=1) / UDP(sport=1, dport=2), Ends(*SIX, 17, 1, 2)),
        (
            Ether() / IP6 / IPv6ExtHdrFragment(offset=9, nh=17) / Raw(b"x" * 8),
            Ends(*SIX, 17, fragment_at=72),
        ),
        (Ether() / IP6 / ICMPv6EchoRequest(), Ends(*SIX, 58, None, 128)),
        (Ether() / ARP(psrc="10.0.0.1", pdst="10.0.0.2"), Ends(*FOUR)),
        (Ether(type=0x88CC) / Raw(b"x" * 60), UNKNOWN),
    ],
    ids=lambda value: value.summary() if isinstance(value, Packet) else "",
)
def test_a_frame_is_read_and_any_cut_of_it_is_no_error(packet: Packet, ends: Ends) -> None:
    frame = bytes(packet)
    assert ends_of(frame) == ends
    for length in range(len(frame)):
        cut = ends_of(frame[:length])
        assert cut.source in (None, ends.source) and cut.target in (None, ends.target)
