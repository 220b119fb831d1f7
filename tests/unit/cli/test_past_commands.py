"""What happened, in words: times that are asked for, ends, rules, packets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest

from vnet.base.errors import UsageError
from vnet.cli.duration import moment_ns
from vnet.cli.past_commands import by, end, hex_lines
from vnet.cli.records import span
from vnet.cli.seen_commands import size

ZONE = timezone(timedelta(hours=1))
NOW = datetime(2026, 11, 28, 15, 30, tzinfo=ZONE)


@pytest.mark.parametrize(
    ("text", "then"),
    [
        ("yesterday 14:03", datetime(2026, 11, 27, 14, 3, tzinfo=ZONE)),
        ("today 09:00", datetime(2026, 11, 28, 9, tzinfo=ZONE)),
        ("14:03", datetime(2026, 11, 28, 14, 3, tzinfo=ZONE)),
        ("16:00", datetime(2026, 11, 27, 16, tzinfo=ZONE)),
        ("2026-11-27 14:00", datetime(2026, 11, 27, 14, tzinfo=ZONE)),
        ("2026-11-27T14:00Z", datetime(2026, 11, 27, 15, tzinfo=ZONE)),
        ("2d", datetime(2026, 11, 26, 15, 30, tzinfo=ZONE)),
    ],
)
def test_a_time_is_read_as_people_write_it(text: str, then: datetime) -> None:
    assert moment_ns(text, "--at", NOW) == then.timestamp() * 1e9


@pytest.mark.parametrize("text", ["tomorrow 14:03", "yesterday noon", "14:03:99"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="yesterday 14:03"):
        moment_ns(text, "--at", NOW)


def test_at_is_that_minute_and_those_beside_it() -> None:
    asked = span(None, None, "2026-11-27T14:03Z")
    moment = datetime.fromisoformat("2026-11-27T14:03+00:00").timestamp() * 1e9
    assert asked == {"since_ns": moment - 60e9, "until_ns": moment + 60e9}
    with pytest.raises(UsageError, match="--at"):
        span("1h", None, "14:03")


@pytest.mark.parametrize("given", [("2126-01-01", None), (None, "2126-01-01")])
def test_what_is_still_to_come_is_no_past(given: tuple[str | None, str | None]) -> None:
    with pytest.raises(UsageError, match="2126-01-01: that is still to come"):
        span(given[0], None, given[1])


def test_a_line_tells_both_ends_and_the_rule() -> None:
    row = {
        "client": None,
        "client_address": "10.0.0.9",
        "server": "b.eth0",
        "server_address": "10.0.0.2",
        "protocol": "tcp",
        "port": 22,
        "folded": False,
        "policy": "p",
        "rule": "ingress 2",
        "at": "f:3",
        "text": "deny",
    }
    assert (end(row, "client"), end(row, "server")) == ("10.0.0.9", "b.eth0 10.0.0.2 22/tcp")
    assert end({**row, "protocol": "icmp", "port": 8}, "server") == "b.eth0 10.0.0.2 icmp type 8"
    assert end({**row, "folded": True}, "server") == "many"
    assert by(row) == "p ingress 2 (f:3)"
    assert by({**row, "policy": None, "text": "a guard", "at": "(built in)"}) == "a guard (built in)"
    assert by({**row, "policy": None, "text": None, "at": None}) == "-"


def test_packets_and_sizes_are_shown_in_short() -> None:
    assert hex_lines(bytes(range(18))) == ["0000  " + bytes(range(16)).hex(" "), "0010  10 11"]
    assert [size(count) for count in (0, 9999, 10_000, 20 << 20, 1 << 50)] == [
        "0",
        "9999",
        "9K",
        "20M",
        "1024T",
    ]


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(("text", "hour"), [("2026-07-01T14:03", "12:03"), ("2026-12-01T14:03", "13:03")])
@pytest.mark.usefixtures("berlin")
def test_a_time_is_of_the_clock_as_it_was_then_summer_or_winter(text: str, hour: str) -> None:
    then = datetime.fromisoformat(f"{text[:10]}T{hour}Z").timestamp() * 1e9
    assert moment_ns(text, "--since", datetime.now()) == then


@pytest.mark.parametrize("text", ["0001-01-01", "0001-01-01T00:00Z", "999999999h", "9" * 400])
def test_what_is_long_before_there_was_a_history_is_a_time_too(text: str) -> None:
    assert span(text, None, None)["since_ns"] == 0
