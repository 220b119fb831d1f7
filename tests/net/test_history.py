"""What happened is known afterwards: real packets, and the history that is kept of them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.bpf.bench import sh
from tests.net.fabric_lab import host, make_engine
from tests.net.test_policy_log import AUDITED, TEXT, Lab, knock, open_many, send, talk
from tests.unit.fabric.fakes import World
from tests.waiting import until_answered
from vnet.base.errors import InputError
from vnet.fabric.happened import Question, packet_plain
from vnet.fabric.live import history, history_writer
from vnet.fabric.live.history import Observers, make_observers
from vnet.fabric.live.past import Past
from vnet.fabric.progress import silent
from vnet.fabric.seen import Seen, Verdict
from vnet.fabric.store import Source

HOUR_NS = 3600 * 10**9


@pytest.fixture
def directory() -> Iterator[Path]:
    with host() as made:
        yield made


class Watched(Lab):
    """A lab whose past is kept."""

    observers: Observers
    observing: asyncio.Task[None]

    async def look(self) -> None:
        self.observers = make_observers(self.engine)
        self.prepare()
        self.observing = asyncio.ensure_future(self.observers.keep())
        for _ in range(100):
            if self.observers.each and self.observers.each["small"].names:
                return
            await asyncio.sleep(0.05)
        raise AssertionError("nothing is looked at")

    def prepare(self) -> None:
        """Before anything is looked at."""

    async def look_away(self) -> None:
        """As a daemon that ends."""
        self.observing.cancel()
        await asyncio.gather(self.observing, return_exceptions=True)
        await self.observers.close()

    @property
    def past(self) -> Past:
        return Past(self.observers)

    async def seen(self) -> tuple[Seen, ...]:
        now_ns = time.time_ns()
        return await self.past.seen("small", now_ns - HOUR_NS, now_ns)


def watching(directory: Path, life: Callable[[Watched], Awaitable[None]], text: str = TEXT) -> None:
    async def whole() -> None:
        lab = Watched(directory)
        try:
            await lab.begin(text)
            await lab.look()
            await life(lab)
        finally:
            with contextlib.suppress(AttributeError):
                await lab.look_away()
            await lab.end()

    asyncio.run(whole())


async def dropped(lab: Watched) -> dict[str, int]:
    """Packets by reason, once all that were sent were seen: on a busy machine some wait for their softirq."""
    before: list[dict[str, int]] = [{}]

    async def counts() -> bool:
        found = await lab.engine.fabric("small").parts.switch.drop_counts()
        before.append({reason.name: count for reason, count in found.items()})
        return before[-2] == before[-1]

    await until_answered(counts, every_s=0.25)
    return before[-1]


def asked(*by: str, **more: str) -> Question:
    now_ns = time.time_ns()
    return Question(now_ns - HOUR_NS, now_ns + 10**9, by, **more)


def test_allowed_and_denied_flows_are_seen_with_names_and_rules(directory: Path) -> None:
    async def life(lab: Watched) -> None:
        await asyncio.to_thread(talk, lab, 80)
        await asyncio.to_thread(knock, lab, 23)
        found = {(one.verdict, one.port): one for one in await lab.seen() if one.protocol == 6}
        assert found.keys() == {(Verdict.ALLOWED, 80), (Verdict.DENIED, 23)}
        allowed, denied = found[Verdict.ALLOWED, 80], found[Verdict.DENIED, 23]
        for one in found.values():
            assert (one.source, str(one.source_address)) == ("a.eth0", lab.guests["a"].address)
            assert (one.destination, str(one.destination_address)) == ("b.eth0", lab.guests["b"].address)
            assert (one.network, one.generation) == ("lan", 1)
            assert one.by is not None and one.first <= one.last
        assert allowed.by is not None and (allowed.by.rule, allowed.by.at) == (
            "ingress 1",
            "small.vnet.yaml:11",
        )
        assert denied.by is not None and (denied.by.rule, denied.by.at) == ("ingress 4", "small.vnet.yaml:14")
        assert (allowed.reason, denied.reason) == ("", "POLICY")
        assert allowed.packets > 40 and allowed.bytes > 40 * 60, "both directions of 20 exchanges"

    watching(directory, life)


def test_each_kind_keeps_its_first_packet(directory: Path) -> None:
    async def life(lab: Watched) -> None:
        await asyncio.to_thread(knock, lab, 23)
        await asyncio.to_thread(send, lab, 99, 3)
        await dropped(lab)
        answer = await lab.past.drops("small", asked(reason="POLICY"), 100)
        by_port = {row["port"]: row for row in answer["kinds"]}
        assert by_port.keys() == {23, 99}
        assert by_port[99]["packets"] == 3 and by_port[99]["has_packet"]
        assert by_port[23]["line"] == "- {from: a, ports: [23/tcp], action: deny}"
        assert by_port[23]["state"] == "+new+trk" or by_port[23]["state"] == "+trk+new"
        ((row, said),) = await lab.past.packets("small", (by_port[99]["id"],))
        packet = packet_plain(row, said)
        assert "10.0.0." in packet["summary"] and ":99 udp" in packet["summary"]
        assert bytes.fromhex(packet["hex"])[-1:] == b"x" and packet["length"] == 43
        assert "b-from-a" in said
        with pytest.raises(InputError, match="no packet 12345"):
            await lab.past.packets("small", (12345,))

    watching(directory, life)


def test_exact_counts_and_reports_are_told_apart(directory: Path) -> None:
    """A flood is more than the switch reports; its counters miss nothing."""

    async def life(lab: Watched) -> None:
        await asyncio.to_thread(send, lab, 23, 3000, 0.0002)
        await asyncio.to_thread(send, lab, 99, 10)
        switch = lab.engine.fabric("small").parts.switch
        exact = await dropped(lab)
        assert exact["POLICY"] > 1000 and await switch.unreported_drops() > 0
        by_reason = await lab.past.drops("small", asked("reason"), 10)
        told = {group["reason"]: group for group in by_reason["groups"]}
        assert told["POLICY"]["packets"] == exact["POLICY"]
        assert 0 < told["POLICY"]["reported"] < exact["POLICY"]
        (by_vm,) = [g for g in (await lab.past.drops("small", asked("vm"), 10))["groups"] if g["vm"] == "a"]
        assert by_vm["packets"] == sum(exact.values()) - sum(
            n for name, n in (await switch.drops_by_nic()).items() if name != "a.eth0"
        )
        rules = (await lab.past.drops("small", asked("rule"), 10))["groups"]
        assert sum(group["packets"] for group in rules) == exact["POLICY"]
        both = (await lab.past.drops("small", asked("reason", "vm"), 10))["groups"]
        assert all(group["packets"] is None for group in both), "of this nothing is counted exactly"

    watching(directory, life)


def test_a_drop_is_answered_against_the_generation_then_in_force(directory: Path) -> None:
    async def life(lab: Watched) -> None:
        await asyncio.to_thread(knock, lab, 23)
        await lab.seen()
        text = TEXT.replace("policies:\n", "policies:\n# two lines\n# more\n").replace("23/tcp", "25/tcp")
        await lab.engine.up(Source("small.vnet.yaml", text), silent)
        await asyncio.to_thread(knock, lab, 25)  # at once: rule 4 has the same cookie as before
        kinds = (await lab.past.drops("small", asked(), 100))["kinds"]
        told = {row["port"]: (row["generation"], row["at"], row["line"]) for row in kinds}
        assert told == {
            23: (1, "small.vnet.yaml:14", "- {from: a, ports: [23/tcp], action: deny}"),
            25: (2, "small.vnet.yaml:16", "- {from: a, ports: [25/tcp], action: deny}"),
        }
        assert (await lab.past.text("small", 1))["text"] == TEXT
        answer = await lab.past.generations("small")
        assert [row["generation"] for row in answer["generations"]] == [2, 1]

    watching(directory, life)


def test_a_comment_moves_lines_without_a_new_generation(directory: Path) -> None:
    async def life(lab: Watched) -> None:
        await asyncio.to_thread(knock, lab, 23)
        await lab.seen()
        await lab.engine.up(Source("small.vnet.yaml", f"# a comment\n{TEXT}"), silent)
        await asyncio.sleep(3 * history.TURN_S)
        await asyncio.to_thread(knock, lab, 23)
        kinds = (await lab.past.drops("small", asked(), 100))["kinds"]
        assert {(row["generation"], row["at"], row["line"]) for row in kinds} == {
            (1, "small.vnet.yaml:14", "- {from: a, ports: [23/tcp], action: deny}"),
            (1, "small.vnet.yaml:15", "- {from: a, ports: [23/tcp], action: deny}"),
        }

    watching(directory, life)


def test_what_is_audited_is_seen_as_audited(directory: Path) -> None:
    async def life(lab: Watched) -> None:
        await asyncio.to_thread(talk, lab, 24)
        (one,) = [one for one in await lab.seen() if one.protocol == 6]
        assert one.verdict is Verdict.AUDITED and one.by is not None and one.by.rule == "ingress 5"

    watching(directory, life, AUDITED)


async def settled(lab: Watched, protocol: int) -> int:
    """How many connections there are once what was sent has come to the switch."""
    before = -1
    for _ in range(100):
        found = await lab.engine.fabric("small").parts.switch.connections()
        count = sum(one.protocol == protocol for one in found)
        if count == before:
            break
        before = count
        await asyncio.sleep(0.1)
    return before


def test_short_connections_between_two_looks_are_seen(directory: Path) -> None:
    async def life(lab: Watched) -> None:
        await lab.seen()
        for _ in range(5):
            await asyncio.to_thread(talk, lab, 80)
        await asyncio.to_thread(open_many, lab, 53, 500)
        opened = await settled(lab, 17)
        rows = (await lab.past.flows("small", asked(), 100))["flows"]
        counted = {row["port"]: row["connections"] for row in rows if row["verdict"] == "allowed"}
        assert counted[80] == 5
        assert counted[53] == opened

    watching(directory, life)


def test_the_past_outlives_the_daemon_and_the_fabric_and_counts_go_on(directory: Path) -> None:
    async def life(lab: Watched) -> None:
        await asyncio.to_thread(knock, lab, 23)
        await lab.look_away()
        assert lab.keeping
        lab.keeping.cancel()
        await lab.engine.close()
        await asyncio.to_thread(send, lab, 23, 300, 0.002)  # while no daemon runs
        await asyncio.to_thread(talk, lab, 80)
        lab.engine = make_engine(directory, World())
        await lab.engine.adopt()
        await lab.look()
        exact = await dropped(lab)
        groups = (await lab.past.drops("small", asked("reason"), 10))["groups"]
        assert {group["reason"]: group["packets"] for group in groups} == exact
        allowed = [one for one in await lab.seen() if one.verdict is Verdict.ALLOWED]
        assert [one.port for one in allowed] == [80], "a connection that no daemon saw"
        assert len((await lab.past.generations("small"))["generations"]) == 1, "the same goes on"
        await lab.engine.down("small", silent)
        await asyncio.sleep(3 * history.TURN_S)
        kinds = (await lab.past.drops("small", asked(), 10))["kinds"]
        told = {(row["protocol"], row["port"]): row["packets"] for row in kinds}
        assert told.keys() == {("tcp", 23), ("udp", 23)}, "the switch keeps reports for who comes next"
        assert told["udp", 23] == 300
        assert {row["sender"] for row in kinds} == {"a.eth0"}, "told by name, not by the number of a port"
        with pytest.raises(InputError, match="no fabric other"):
            await lab.past.seen("other", 0, 1)

    watching(directory, life)


def test_a_full_disk_stops_the_history_and_nothing_else(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_writer, "RETRY_S", 0.0)
    small = directory / "state" / "history"
    small.mkdir(parents=True)

    async def life(lab: Watched) -> None:
        await lab.seen()
        (small / "filler").write_bytes(bytes(500_000 - sum(f.stat().st_size for f in small.iterdir())))
        for port in range(1000, 1400):
            await asyncio.to_thread(send, lab, port, 1)
        await lab.observers.settle("small")
        assert "full" in lab.observers.history.trouble
        answer = await lab.past.drops("small", asked(), 10)
        assert "full" in answer["trouble"], "what is there can still be read"
        assert await asyncio.to_thread(knock, lab, 80) == "ConnectionRefusedError", "traffic goes on"
        assert await lab.engine.fabric("small").parts.switch.drop_counts()
        (small / "filler").unlink()
        await asyncio.sleep(0.3)  # another window of the rate limit
        await asyncio.to_thread(send, lab, 77, 1)
        await dropped(lab)
        await lab.observers.settle("small")
        answer = await lab.past.drops("small", asked(), 10_000)
        assert answer["trouble"] is None
        assert 77 in {row["port"] for row in answer["kinds"]}
        assert any("full" in gap["why"] for gap in answer["gaps"])

    sh(f"mount -t tmpfs -o size=500k none {small}")
    try:
        watching(directory, life)
    finally:
        sh(f"umount {small}")


def test_drops_are_followed_as_they_come_and_losses_are_told(directory: Path) -> None:
    async def life(lab: Watched) -> None:
        blocks: asyncio.Queue[bytes | None] = asyncio.Queue()
        produce = lab.past.follow("small", "b", "POLICY", False)
        task = asyncio.ensure_future(produce(blocks))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(send, lab, 23, 1)
        line = await asyncio.wait_for(blocks.get(), 5)
        assert line is not None and b"DROP POLICY" in line and b"small.vnet.yaml:15" in line
        await asyncio.to_thread(send, lab, 23, 3000, 0.0001)
        text = b""
        for _ in range(5000):
            block = await asyncio.wait_for(blocks.get(), 5)
            text = block or b""
            if b"not reported" in text:
                break
        assert b"dropped packets were not reported (rate limit)" in text
        task.cancel()
        with pytest.raises(InputError):
            lab.past.follow("other", None, None, True)

    watching(directory, life)


def test_who_was_never_there_is_told_from_who_lost_nothing(directory: Path) -> None:
    async def life(lab: Watched) -> None:
        for name in ("a", "a.eth0"):
            assert (await lab.past.drops("small", asked(vm=name), 10))["kinds"] == []
            assert (await lab.past.drops("small", asked("reason", vm=name), 10))["groups"] == []
            assert (await lab.past.flows("small", asked(vm=name), 10))["flows"] == []
        for asks in (lab.past.drops, lab.past.flows):
            for name in ("aa", "a.eth1"):
                assert (await asks("small", asked(vm=name), 10))["unknown"] == name
            for name in ("a", "a.eth0", "uplink:host"):
                assert (await asks("small", asked(vm=name), 10))["unknown"] is None

    watching(directory, life)
