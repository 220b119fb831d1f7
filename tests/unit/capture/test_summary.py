from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from vnet.capture.summary import summarise

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
V4 = IP(src="10.0.0.1", dst="10.0.0.2")
V6 = IPv6(src="fd00::1", dst="fd00::2")


@pytest.mark.parametrize(
    ("packet", "text"),
    [
        (V4 / TCP(sport=1, dport=22, flags="SA"), "10.0.0.1:1 > 10.0.0.2:22 tcp SA"),
        (V4 / TCP(sport=1, dport=22, flags=0), "10.0.0.1:1 > 10.0.0.2:22 tcp none"),
        (V4 / UDP(sport=5, dport=53), "10.0.0.1:5 > 10.0.0.2:53 udp"),
        (V4 / ICMP(type=8), "10.0.0.1 > 10.0.0.2 icmp echo request"),
        (V4 / ICMP(type=42), "10.0.0.1 > 10.0.0.2 icmp type 42"),
        (IP(src="10.0.0.1", dst="10.0.0.2", proto=89), "10.0.0.1 > 10.0.0.2 ip-proto-89"),
        (
            IP(src="10.0.0.1", dst="10.0.0.2", frag=10, proto=17) / Raw(bytes(8)),
            "10.0.0.1 > 10.0.0.2 udp fragment at byte 80",
        ),
        (V6 / TCP(sport=1, dport=22, flags="F"), "[fd00::1]:1 > [fd00::2]:22 tcp F"),
        (V6 / IPv6ExtHdrDestOpt() / UDP(sport=5, dport=53), "[fd00::1]:5 > [fd00::2]:53 udp"),
        (
            V6 / IPv6ExtHdrFragment(offset=2, nh=17) / Raw(bytes(8)),
            "fd00::1 > fd00::2 udp fragment at byte 16",
        ),
        (V6 / ICMPv6ND_NS(tgt="fd00::2"), "fd00::1 > fd00::2 icmpv6 neighbour solicitation"),
        (
            ARP(op=1, psrc="10.0.0.1", pdst="10.0.0.2", hwsrc="02:00:00:00:00:01"),
            "02:00:00:00:00:01 > 02:00:00:00:00:02 arp who has 10.0.0.2, tell 10.0.0.1",
        ),
        (
            ARP(op=2, psrc="10.0.0.1", pdst="10.0.0.2", hwsrc="02:00:00:00:00:01"),
            "02:00:00:00:00:01 > 02:00:00:00:00:02 arp 10.0.0.1 is at 02:00:00:00:00:01",
        ),
        (Dot1Q(vlan=10) / V4 / UDP(sport=5, dport=53), "10.0.0.1:5 > 10.0.0.2:53 udp vlan 10"),
        (Raw(bytes(20)), "02:00:00:00:00:01 > 02:00:00:00:00:02 0x9000"),
    ],
)
def test_a_frame_in_a_few_words(packet: Packet, text: str) -> None:
    assert str(summarise(bytes(ETHER / packet))) == text


def test_the_announcement_that_qemu_sends_for_a_guest_is_named() -> None:
    announcement = bytes(Ether(src="02:00:00:00:00:01", dst="ff:ff:ff:ff:ff:ff", type=0x8035))
    assert summarise(announcement).protocol == "rarp"


def test_a_frame_cut_in_its_ip_header_still_names_its_ends() -> None:
    cut = bytes(ETHER / V4 / TCP())[:20]
    assert str(summarise(cut)) == "02:00:00:00:00:01 > 02:00:00:00:00:02 ipv4 cut off"


def test_a_frame_shorter_than_an_ethernet_header_is_called_so() -> None:
    assert summarise(b"\x01\x02").detail == "cut after 2 bytes"


@given(st.binary(max_size=120), st.sampled_from(["0800", "86dd", "0806", "8100", "88a8", "ffff"]))
def test_no_bytes_a_guest_may_send_break_it(payload: bytes, ethertype: str) -> None:
    assert str(summarise(bytes(12) + bytes.fromhex(ethertype) + payload))
