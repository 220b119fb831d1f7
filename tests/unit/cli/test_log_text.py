"""The log of the rules as lines for people, and the times that one may ask for."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from vnet.base.errors import UsageError
from vnet.cli.duration import moment_ns
from vnet.cli.log_text import in_words
from vnet.cli.records import whole_lines

RECORD = {
    "time": "2026-11-28T14:03:07.123456Z",
    "verdict": "deny",
    "policy": "db",
    "rule": "ingress 2",
    "at": "shop.vnet.yaml:15",
    "text": "deny from any ports any",
    "client": "web-1",
    "client_address": "10.0.0.2",
    "client_port": 40112,
    "server": "db",
    "server_address": "10.0.0.3",
    "server_port": 5432,
    "protocol": "tcp",
    "icmp_type": None,
    "reply": False,
    "count": 1,
    "lost": False,
}
PING = {"protocol": "icmp", "icmp_type": 8, "client_port": None, "server_port": None}
LOST = dict.fromkeys(RECORD) | {"time": RECORD["time"], "lost": True}
RULED = {"policy": "db", "rule": "ingress 2", "at": "shop.vnet.yaml:15", "verdict": "deny", "client": "web-1"}


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (RECORD, "deny web-1 (10.0.0.2:40112) -> db (10.0.0.3:5432) tcp by db ingress 2 (shop.vnet.yaml:15)"),
        (
            RECORD | PING | {"count": 7},
            "deny web-1 (10.0.0.2) -> db (10.0.0.3) icmp type 8 7 times by db ingress 2 (shop.vnet.yaml:15)",
        ),
        (
            RECORD | {"reply": True, "client": None, "server_address": "fd00::3"},
            "deny 10.0.0.2:40112 <- db ([fd00::3]:5432) tcp by db ingress 2 (shop.vnet.yaml:15)",
        ),
        (
            RECORD | {"verdict": "audit", "policy": None, "rule": None, "text": "closed\x1b"},
            'audit web-1 (10.0.0.2:40112) -> db (10.0.0.3:5432) tcp by "closed?" (shop.vnet.yaml:15)',
        ),
        (
            LOST | RULED | {"count": 873},
            "LOST 873 packets denied from web-1 by db ingress 2 (shop.vnet.yaml:15)",
        ),
        (LOST | {"verdict": "allow", "count": 3}, "LOST 3 new connections allowed"),
        (LOST, "LOST an unknown number of records"),
    ],
)
def test_a_record_is_one_line(record, words):
    assert in_words(record, UTC) == f"2026-11-28 14:03:07.123 {words}"


def test_lines_are_whole_however_they_come():
    assert list(whole_lines([b"on", b"e\ntwo\nthr", b"ee\n"])) == ["one", "two", "three"]


NOW = datetime(2026, 11, 28, 14, 30, tzinfo=timezone(timedelta(hours=1)))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("14:03", "2026-11-28T14:03+01:00"),
        ("15:00", "2026-11-27T15:00+01:00"),
        ("2026-11-27T14:03", "2026-11-27T14:03+01:00"),
        ("2026-11-27", "2026-11-27T00:00+01:00"),
        ("2026-11-27T14:03Z", "2026-11-27T14:03+00:00"),
        ("yesterday", "2026-11-27T00:00+01:00"),
        ("yesterday 14:03", "2026-11-27T14:03+01:00"),
        ("90m", "2026-11-28T13:00+01:00"),
        ("1d", "2026-11-27T14:30+01:00"),
        ("2h", "2026-11-28T12:30+01:00"),
    ],
)
def test_times_are_read_as_people_write_them(text, moment):
    assert moment_ns(text, "--since", NOW) == datetime.fromisoformat(moment).timestamp() * 10**9


@pytest.mark.parametrize("text", ["tomorrow", "25:00", "2026-13-01", ""])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(UsageError, match="--since"):
        moment_ns(text, "--since", NOW)
