from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

from tests.unit.capture.samples import explain, record
from vnet.capture.comment import annotate
from vnet.capture.lines import line
from vnet.capture.segments import segments

TCP4 = Ether() / IP() / TCP(options=[("Timestamp", (1, 2))])


@pytest.mark.parametrize(
    ("frame", "payload", "size", "count"),
    [
        (TCP4, 65_160, 1448, 45),
        (TCP4, 1449, 1448, 2),
        (Ether() / IPv6() / TCP(), 14_280, 1428, 10),
        (Ether() / Dot1Q(vlan=3) / IP() / TCP(), 14_600, 1460, 10),
        (Ether() / IP() / UDP(), 4000, 1000, 4),
    ],
)
def test_segments_are_counted_from_the_headers(frame: Ether, payload: int, size: int, count: int) -> None:
    whole = bytes(frame / Raw(bytes(payload)))
    found = segments(whole[:100], len(whole), size)
    assert found is not None and (found.count, found.size_bytes) == (count, size)


def test_what_the_kernel_has_counted_is_believed_and_what_cannot_be_read_is_left_out() -> None:
    assert str(segments(bytes(TCP4), 9000, 1448, 6)) == "6 segments of 1,448 bytes"
    for unreadable in (bytes(TCP4)[:40], b"", bytes(Ether() / IP() / ICMP()), bytes(60)):
        assert str(segments(unreadable, 9000, 1448)) == "segments of 1,448 bytes"
    assert segments(bytes(TCP4), 9000, 0) is None


def test_a_packet_to_be_cut_says_so_in_comments_and_lines() -> None:
    data = bytes(TCP4 / Raw(bytes(28_960)))
    large = record(data=data[:200], original_length=len(data), gso_size=1448)
    assert annotate(large, explain)[1:] == ("segmentation offload: 20 segments of 1,448 bytes",)
    assert f"({len(data)} bytes, 20 segments of 1,448 bytes)" in line(large, explain)
    assert len(annotate(record(), explain)) == 1
