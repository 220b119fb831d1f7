"""The log of a fabric: turns, followers, files, what the switch could not report."""

import asyncio
import json
from datetime import UTC, datetime

import pytest
from scapy.layers.inet import TCP

from tests.unit.fabric.test_logged import TEXT, cookies, seen
from vnet.base import paths
from vnet.fabric.declared import declare
from vnet.fabric.live import journal
from vnet.fabric.live.journal import Journal
from vnet.fabric.live.rule_log import QUEUED, READ_PER_TURN, RuleLog, between
from vnet.fabric.logged import stamp
from vnet.fabric.store import Source


@pytest.fixture(scope="module")
def declared():
    return declare(Source("small.vnet.yaml", TEXT), {}, datetime(2026, 1, 1, tzinfo=UTC))


def made(declared, directory=None):
    log = RuleLog(directory)
    log.know(declared.provenance_texts(), declared)
    return log


def refused(declared, port=4000):
    return seen(declared, "open ingress 3", TCP(sport=port, dport=99, flags="S"))


def lines(log):
    return [json.loads(line) for line in log.snapshot()]


def counted(records):
    return sum(record["count"] for record in records)


def test_what_was_seen_stands_in_the_log_after_a_turn(declared, tmp_path):
    log = made(declared, tmp_path / "log")
    log.see(refused(declared))
    assert lines(log) == []
    log.work(0.0, 0)
    (record,) = lines(log)
    assert (record["client"], record["server"], record["rule"]) == ("a", "b", "ingress 3")


def test_a_flood_is_not_read_but_counted(declared, tmp_path):
    log = made(declared, tmp_path / "log")
    for port in range(5000):
        log.see(refused(declared, port))
    log.work(0.0, 0)
    log.work(100.0, 0)
    found = lines(log)
    assert counted(found) == 5000
    assert counted([record for record in found if record["lost"]]) == 5000 - READ_PER_TURN
    assert all(record["client"] == "a" and record["policy"] == "open" for record in found)


def test_without_a_directory_nothing_is_kept(declared):
    log = made(declared)
    log.see(refused(declared))
    log.work(0.0, 0)
    assert lines(log) == []
    log.close({1: 1})


def test_rules_of_the_generation_before_are_still_known(declared, tmp_path):
    log = made(declared, tmp_path / "log")
    log.know({}, declared)
    log.see(refused(declared))
    log.work(0.0, 0)
    assert [record["rule"] for record in lines(log)] == ["ingress 3"]
    log.know({}, None)
    log.know({}, declared)
    log.see(refused(declared))
    log.work(0.0, 0)
    assert [record["rule"] for record in lines(log)] == ["ingress 3", None]


def test_a_slow_follower_is_told_how_many_it_missed(declared):
    async def life():
        log = made(declared)
        with log.followed() as follower:
            for _ in range(QUEUED + 5):
                follower.offer("x")
            got = await follower.next()
            assert got[:-1] == ("x",) * QUEUED
            assert (json.loads(got[-1])["count"], json.loads(got[-1])["lost"]) == (5, True)
            log.close(None)
            assert await follower.next() is None
        with log.followed() as follower:
            assert await follower.next() is None

    asyncio.run(life())


def test_a_follower_waits_for_what_comes(declared):
    async def life():
        log = made(declared)
        with log.followed() as follower:
            waiting = asyncio.ensure_future(follower.next())
            await asyncio.sleep(0)
            assert not waiting.done()
            log.see(refused(declared))
            log.work(0.0, 0)
            (line,) = await waiting
            assert json.loads(line)["rule"] == "ingress 3"

    asyncio.run(life())


def test_a_full_disk_costs_records_and_says_how_many(declared, tmp_path, monkeypatch):
    log = made(declared, tmp_path / "log")

    def full(self, lines):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "append", full)
        for _ in range(3):
            log.see(refused(declared))
        log.work(0.0, 0)
    log.see(refused(declared))
    log.work(1.0, 0)
    gap, record = lines(log)
    assert (gap["lost"], gap["count"], gap["verdict"]) == (True, 3, None)
    assert record["rule"] == "ingress 3"


# what the switch could not report


def test_what_the_flows_counted_and_nobody_told_is_told_by_rule(declared, tmp_path):
    log, rule = made(declared, tmp_path / "log"), cookies(declared, "open ingress 3")
    log.see(refused(declared))
    assert log.needs_counts(0)
    log.settle({rule: 10}, 9, 0)
    assert log.needs_counts(9)
    log.settle({rule: 10}, 9, 0)
    (lost,) = lines(log)
    assert (lost["lost"], lost["count"], lost["rule"], lost["verdict"]) == (True, 9, "ingress 3", "deny")
    assert not log.needs_counts(9)
    assert log.needs_counts(10)


def test_the_next_daemon_goes_on_where_the_last_one_ended(declared, tmp_path):
    log, rule = made(declared, tmp_path / "log"), cookies(declared, "open ingress 3")
    log.see(refused(declared))
    log.work(0.0, 0)
    log.close({rule: 1})
    after = made(declared, tmp_path / "log")
    after.resume()
    after.see(refused(declared))
    after.settle({rule: 5}, 0, 0)
    after.settle({rule: 5}, 0, 0)
    assert [(record["lost"], record["count"]) for record in lines(after)] == [(False, 1), (True, 3)]


def test_a_daemon_that_was_killed_leaves_a_gap_that_is_told(declared, tmp_path):
    log, rule = made(declared, tmp_path / "log"), cookies(declared, "open ingress 3")
    log.see(refused(declared))
    log.work(0.0, 0)
    after = made(declared, tmp_path / "log")
    after.resume()
    after.settle({rule: 5}, 0, 0)
    after.settle({rule: 5}, 0, 0)
    assert [(record["lost"], record["count"]) for record in lines(after)] == [(False, 1), (True, None)]


# files


def test_a_journal_is_of_bounded_size_and_loses_the_oldest(tmp_path):
    kept = Journal(tmp_path / "log", segment_bytes=100, segments=3)
    for number in range(100):
        kept.append([f"{number:09}"])
    found = list(kept.snapshot())
    assert found == [f"{number:09}" for number in range(80, 100)]
    assert sum(path.stat().st_size for path in (tmp_path / "log").iterdir()) <= 300
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o700


def test_what_is_written_after_the_snapshot_is_not_in_it(tmp_path):
    kept = Journal(tmp_path / "log", segment_bytes=20, segments=3)
    kept.append(["before"])
    found = kept.snapshot()
    for number in range(20):
        kept.append([f"after {number}"])
    assert list(found) == ["before"]


def test_a_line_that_was_not_written_whole_spoils_no_other(tmp_path):
    kept = Journal(tmp_path / "log")
    kept.append(["one"])
    kept.close()
    with (tmp_path / "log" / journal.NAME).open("ab") as file:
        file.write(b"half a li")
    assert list(kept.snapshot()) == ["one"]
    kept.append(["two"])
    assert list(kept.snapshot()) == ["one", "two"]


def test_lines_of_a_time_are_found_by_their_beginning():
    times = [10**18 + n * 10**9 for n in range(5)]
    kept = [f'{{"time":"{stamp(time)}","n":{n}}}' for n, time in enumerate(times)]
    assert list(between(kept, times[1], times[3])) == kept[1:4]
    assert list(between(kept, None, None)) == kept
    assert list(between([*kept, "half a li"], times[4], None)) == kept[4:]


def test_of_fabrics_that_are_gone_the_newest_logs_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("VNET_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("VNET_RUN_DIR", str(tmp_path / "run"))
    for number in range(journal.GONE + 3):
        Journal(paths.log_dir(f"f{number:02}")).append(["x"])
    paths.fabric_run_dir("f00").mkdir(parents=True)
    journal.forget_oldest()
    assert sorted(journal.kept_logs()) == ["f00", *(f"f{n:02}" for n in range(3, journal.GONE + 3))]
