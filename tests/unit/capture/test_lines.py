from __future__ import annotations

from datetime import UTC, timedelta, timezone

from tests.unit.capture.samples import DENIED_AT, delivered, explain, record
from vnet.base.drop import DropReason
from vnet.capture.lines import line, line_encoder


def test_a_dropped_packet_in_one_line() -> None:
    assert line(record(), explain, UTC) == (
        "22:13:20.123456 app.eth1 guest DROP POLICY 10.10.20.3:41022 > 10.10.20.11:22 tcp S (54 bytes) "
        + DENIED_AT
    )


def test_a_delivered_packet_in_one_line_in_local_time() -> None:
    zone = timezone(timedelta(hours=2))
    assert line(delivered(cookie=0), explain, zone) == (
        "00:13:20.123456 db.eth0 delivered PASS 10.10.20.3:41022 > 10.10.20.11:22 tcp S (54 bytes)"
    )


def test_no_escape_sequence_reaches_the_terminal() -> None:
    assert "\x1b" not in line(record(nic="a\x1b[2J", reason=DropReason.MALFORMED), explain)


def test_losses_are_a_line_of_their_own_told_once() -> None:
    encoder = line_encoder(explain)
    encoder.lose(2)
    first = encoder.encode(record(), ())
    encoder.wrote(record())
    assert first.startswith(b"2 packets lost here\n")
    assert first.count(b"\n") == 2
    assert encoder.trailer(0) == b""
