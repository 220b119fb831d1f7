"""The file of the history: what is written is read, within its bound, whatever ends the daemon."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from vnet.fabric.happened import Lines, Question, groups, plain, seen
from vnet.fabric.live.history_file import LEAST_BYTES, PAGE_BYTES, HistoryFile, HistoryStopped
from vnet.fabric.live.history_writer import History
from vnet.fabric.seen import DecidedBy, Verdict
from vnet.fabric.store import Source
from vnet.fabric.tally import MINUTE_NS, Entry, Era, Kind, Sample, Sum

START_NS = 29_000_000 * MINUTE_NS
RULE = DecidedBy("small.vnet.yaml:3", "b-from-a", "ingress 1", "deny from a", 0x7640_0000_0000_0001)
SOURCE = Source("small.vnet.yaml", "one\ntwo\n  the rule\n", {"X": "1"}, {"more.yaml": "m1\n"})


def era(generation: int = 1, source: Source = SOURCE) -> Era:
    return Era("small", generation, START_NS, source)


def kind(port: int = 22, verdict: Verdict = Verdict.DENIED, by: DecidedBy | None = RULE) -> Kind:
    ends = "a.eth0", IPv4Address("10.0.0.1"), "b.eth0", IPv4Address("10.0.0.2")
    return Kind(verdict, "POLICY", by, *ends, "lan", 6, port, "a.eth0", "+trk+new")


def entry(which: Era, what: Kind, minute: int = 0, packets: int = 1) -> Entry:
    at_ns = START_NS + minute * MINUTE_NS
    sample = Sample(at_ns, 60, f"packet of minute {minute}".encode())
    return Entry(at_ns // MINUTE_NS, which, what, Sum(packets, 60 * packets, 0, at_ns, at_ns + 5, sample))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history" / "history.db"


def test_what_is_written_is_read_as_it_was_seen(path: Path) -> None:
    file, now = HistoryFile(path, LEAST_BYTES), era()
    file.write([entry(now, kind(), packets=2), entry(now, kind(), 1), entry(now, kind(23), 9)])
    rows = file.sums("small", START_NS, START_NS + 2 * MINUTE_NS)
    (one,) = map(seen, rows)
    assert (one.source, one.destination_address, one.port) == ("a.eth0", IPv4Address("10.0.0.2"), 22)
    assert (one.packets, one.bytes, one.generation, one.by) == (3, 180, 1, RULE)
    assert (one.last - one.first).total_seconds() == 60
    kept = file.sample(rows[0]["id"])
    assert kept is not None and kept["sample"] == b"packet of minute 0", "the first, not the last"
    assert file.sums("other", 0, 1 << 62) == []


def test_the_same_goes_on_with_another_daemon(path: Path) -> None:
    for packets in (2, 3):
        file = HistoryFile(path, LEAST_BYTES)
        file.write([entry(era(), kind(), packets=packets)])
        file.close()
    file = HistoryFile(path, LEAST_BYTES)
    assert [row["packets"] for row in file.sums("small", 0, 1 << 62)] == [5]
    assert len(file.generations("small")) == 1


def test_a_text_is_kept_once_and_a_line_is_told_as_it_was(path: Path) -> None:
    file = HistoryFile(path, LEAST_BYTES)
    changed = Source("small.vnet.yaml", "one\ntwo\n  changed\n", {}, {"more.yaml": "m1\n"})
    for which in (era(1), era(2), era(3, changed)):
        file.write([entry(which, kind())])
    assert file._rows("SELECT count(*) AS n FROM text", ())[0]["n"] == 3
    lines, rows = Lines(), file.sums("small", 0, 1 << 62)
    for row in rows:
        source = file.source(row["generation_id"])
        assert source is not None
        lines.learn(row["generation_id"], source)
    told = {row["generation"]: plain(row, lines.line(row))["line"] for row in rows}
    assert told == {1: "the rule", 2: "the rule", 3: "changed"}
    assert file.source(file.generations("small")[0]["id"]) == changed


def test_the_bound_holds_on_disk_and_the_oldest_go_first(path: Path) -> None:
    file, now, last = HistoryFile(path, LEAST_BYTES), era(), 0
    for minute in range(120):
        file.write([entry(now, kind(port), minute) for port in range(1000)])
        assert file.size_bytes() <= LEAST_BYTES
        first = file.extent()[0]
        assert first is not None and first >= last
        last = first
    assert last > START_NS, "the first minutes are gone"
    newest = START_NS + 119 * MINUTE_NS
    assert len(file.sums("small", newest, newest + MINUTE_NS - 1)) == 1000, "the last are there"
    assert file.size_bytes() > LEAST_BYTES // 2, "and the room is used"


def test_kinds_that_never_come_again_are_bounded_too(path: Path) -> None:
    """As of a scan of addresses: each packet another kind, with a packet and a rule of its own."""
    file = HistoryFile(path, LEAST_BYTES)
    for minute in range(40):
        which = era(minute, Source("small.vnet.yaml", f"text {minute}\n" * 100))
        rules = (DecidedBy(f"f:{n}", "p", f"ingress {n}", f"{minute}", n) for n in range(1000))
        file.write([entry(which, kind(n, by=rule), minute) for n, rule in enumerate(rules)])
        assert file.size_bytes() <= LEAST_BYTES
    counts = {name: file._rows(f"SELECT count(*) AS n FROM {name}", ())[0]["n"] for name in ("kind", "text")}
    assert counts["kind"] < 30_000 and counts["text"] < 40


def test_a_bound_that_is_lowered_holds_from_then_on(path: Path) -> None:
    file = HistoryFile(path, 3 * LEAST_BYTES)
    now = era()
    for minute in range(70):
        file.write([entry(now, kind(port), minute) for port in range(2000)])
    file.close()
    assert path.stat().st_size > LEAST_BYTES
    file = HistoryFile(path, LEAST_BYTES)
    for minute in range(70, 74):
        file.write([entry(now, kind(), minute)])
    assert file.size_bytes() <= LEAST_BYTES


def test_counters_tell_what_came_since_the_last_time_also_after_they_began_anew(path: Path) -> None:
    file = HistoryFile(path, LEAST_BYTES)
    for minute, value in enumerate((5, 5, 7, 3)):
        file.count("small", START_NS // MINUTE_NS + minute, "reason", {"POLICY": value})
    exact = [
        file.exact("small", START_NS + n * MINUTE_NS, START_NS + n * MINUTE_NS, "reason") for n in range(4)
    ]
    assert [[row["packets"] for row in rows] for rows in exact] == [[5], [], [2], [3]]
    file.forget_counters("small")
    file.count("small", START_NS // MINUTE_NS + 9, "reason", {"POLICY": 4})
    (total,) = file.exact("small", START_NS, START_NS + 9 * MINUTE_NS, "reason")
    assert total["packets"] == 14


def test_groups_have_exact_numbers_beside_what_was_reported(path: Path) -> None:
    file, now = HistoryFile(path, LEAST_BYTES), era()
    file.write([entry(now, kind(22), packets=3), entry(now, kind(23))])
    file.count("small", START_NS // MINUTE_NS, "nic", {"a.eth0": 100, "a.eth1": 1, "c.eth0": 2})
    question = Question(START_NS, START_NS + MINUTE_NS, ("vm",))
    exact = file.exact("small", question.since_ns, question.until_ns, "nic")
    found = groups(file.sums("small", question.since_ns, question.until_ns), question, exact)
    assert [(g["vm"], g["packets"], g["reported"]) for g in found] == [("a", 101, 4), ("c", 2, 0)]


def test_a_damaged_file_is_put_aside(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is no database, not even a little" * 1000)
    file = HistoryFile(path, LEAST_BYTES)
    file.write([entry(era(), kind())])
    assert len(file.sums("small", 0, 1 << 62)) == 1
    assert path.with_name("history.db.damaged").exists()


def test_damage_in_the_midst_of_a_file_is_met_when_it_is_used_and_the_file_put_aside(path: Path) -> None:
    """Its first page is good: opening it shows nothing."""
    file = HistoryFile(path, LEAST_BYTES)
    file.write([entry(era(), kind(port)) for port in range(500)])
    file.close()
    pages = bytearray(path.read_bytes())
    for at in range(2 * PAGE_BYTES, len(pages), PAGE_BYTES):
        pages[at : at + 600] = b"\xff" * 600
    path.write_bytes(pages)

    async def go_on() -> None:
        history = History(path, LEAST_BYTES)
        assert await history.keep(lambda file: file.write([entry(era(), kind())]))
        assert len(await history.ask(lambda file: file.sums("small", 0, 1 << 62))) == 1
        assert not history.trouble
        await history.close()

    asyncio.run(go_on())
    assert path.with_name("history.db.damaged").exists()


def test_a_reader_that_never_ends_stops_the_history_and_not_the_bound(path: Path) -> None:
    file = HistoryFile(path, LEAST_BYTES)
    file._db.execute("PRAGMA busy_timeout=10")
    file.write([entry(era(), kind())])
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM minute").fetchone()

    def go_on() -> None:
        for minute in range(200):
            file.write([entry(era(), kind(port), minute) for port in range(500)])
            assert file.size_bytes() <= LEAST_BYTES

    with pytest.raises(HistoryStopped, match="somebody else reads it"):
        go_on()
    reader.close()
    file.write([entry(era(), kind(), 300)])


KILLED = """
import os, sys, signal
from pathlib import Path
from tests.unit.fabric.test_history_file import *
file = HistoryFile(Path(sys.argv[1]), LEAST_BYTES)
for minute in range(10_000):
    file.write([entry(era(), kind(port), minute) for port in range(50)])
    print(minute, flush=True)
"""


def test_what_was_written_survives_a_daemon_that_is_killed(path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) == 20:
                os.kill(child.pid, signal.SIGKILL)
                break
    file = HistoryFile(path, LEAST_BYTES)
    assert file._rows("PRAGMA integrity_check", ())[0]["integrity_check"] == "ok"
    rows = file.sums("small", START_NS, START_NS + 20 * MINUTE_NS + 1)
    assert [row["packets"] for row in rows] == [21] * 50


def test_a_history_that_stops_and_goes_on_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, Mapping[str, str]]] = []
    monkeypatch.setattr("vnet.fabric.live.history_writer.RETRY_S", 0)

    def refuse(file: HistoryFile) -> None:
        raise HistoryStopped("the disk is full")

    async def go_on() -> None:
        history = History(path, LEAST_BYTES, lambda kind, text, fields: told.append((kind, fields)))
        for call in (refuse, lambda file: file.write([])):
            await history.keep(call)
            if call is refuse:
                assert "full" in history.stopped
        assert history.stopped == ""
        await history.close()

    asyncio.run(go_on())
    why = {"why": "the disk is full"}
    assert told == [("history-stopped", why), ("history-goes-on", why)]
    assert History(path, 0).stopped == "", "who wants no history misses none"
    assert path.stat().st_mode & 0o777 == 0o600
