"""Numbers of a real switch under real traffic: what is counted is what was sent."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.net.fabric_lab import host
from tests.net.test_faucet import VENV
from tests.net.test_policy_log import Lab, knock, living, send, talk
from vnet.api.metrics import exposition
from vnet.fabric import events
from vnet.fabric.live import lookout
from vnet.fabric.live.event_log import EventLog
from vnet.fabric.live.numbers import SHARED_S, Taker
from vnet.fabric.live.talking import LEAST_S, Talking
from vnet.fabric.numbers import NicNumbers, Numbers
from vnet.fabric.rates import rates
from vnet.fabric.readiness import unready

READ = """
import sys
from prometheus_client.parser import text_string_to_metric_families as parsed
families = list(parsed(sys.stdin.read()))
print(sum(len(family.samples) for family in families), {family.type for family in families})
"""
"""Prometheus' own library reads what we write; Faucet brings it along."""


@pytest.fixture
def directory() -> Iterator[Path]:
    with host() as made:
        yield made


def nics(numbers: Numbers) -> dict[str, NicNumbers]:
    (fabric,) = numbers.fabrics
    return {vm.name: nic for vm in fabric.vms for nic in vm.nics}


def test_datagrams_are_counted_where_they_come_from_and_where_they_go(directory: Path) -> None:
    async def life(lab: Lab) -> None:
        taker = Taker(lab.engine)
        await asyncio.to_thread(talk, lab, 81)  # both know each other's addresses from here on
        await asyncio.to_thread(knock, lab, 23)
        before = await taker.take()
        await asyncio.sleep(2 * SHARED_S)
        await asyncio.to_thread(send, lab, 53, 40, 0.001)
        await asyncio.to_thread(send, lab, 54, 25, 0.001)
        await lab.carried()
        after = await taker.take()
        was, now = nics(before), nics(after)
        assert now["a"].traffic.sent_packets - was["a"].traffic.sent_packets == 65
        assert now["b"].traffic.received_packets - was["b"].traffic.received_packets == 40
        assert now["a"].traffic.sent_dropped - was["a"].traffic.sent_dropped == 25
        assert now["a"].connections - was["a"].connections == 1
        assert after.fabrics[0].drops["POLICY"] - before.fabrics[0].drops["POLICY"] == 25
        found = rates(before, after).vms["small", "a"]
        assert found.reason == "POLICY"
        assert found.traffic.drops_pps == pytest.approx(25 / (after.clock_s - before.clock_s))

    living(directory, life)


def test_every_number_is_one_that_prometheus_reads(directory: Path) -> None:
    async def life(lab: Lab) -> None:
        await asyncio.to_thread(talk, lab, 81)
        numbers = await Taker(lab.engine).take()
        assert unready(numbers) == ()
        assert sum(numbers.fabrics[0].flows.values()) == len(
            await lab.engine.fabric("small").parts.switch.flows()
        )
        text = exposition(numbers)
        command = [str(VENV / "bin" / "python"), "-c", READ]
        done = await asyncio.to_thread(
            subprocess.run, command, input=text, capture_output=True, text=True, check=False
        )
        samples = sum(not line.startswith("#") for line in text.splitlines())
        assert done.stdout.split(" ", 1) == [str(samples), done.stdout.split(" ", 1)[1]], done.stderr
        assert "unknown" not in done.stdout

    living(directory, life)


def test_a_switch_that_is_gone_is_not_ready_and_has_no_counters(directory: Path) -> None:
    async def life(lab: Lab) -> None:
        switch = lab.engine.fabric("small").parts.switch
        await switch.close()
        numbers = await Taker(lab.engine).take()
        (why,) = unready(numbers)
        assert "is not open" in why.why
        await switch.open()

    living(directory, life)


def test_links_and_storms_of_drops_are_told_as_events(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "CALM_S", 2.0)
    monkeypatch.setattr(lookout, "LOOK_S", 0.3)

    async def life(lab: Lab) -> None:
        lab.engine.events = log = EventLog(directory / "events")
        looking = asyncio.ensure_future(lookout.look_out(Taker(lab.engine), log))
        found: list[dict[str, object]] = []
        blocks: asyncio.Queue[bytes | None] = asyncio.Queue()
        reading = asyncio.ensure_future(log.read(None, None, True, lambda line: True)(blocks))

        async def until(kind: str) -> dict[str, object]:
            async with asyncio.timeout(20):
                while not [each for each in found if each["kind"] == kind]:
                    found.extend(json.loads(line) for line in (await blocks.get() or b"").splitlines())
            return next(each for each in found if each["kind"] == kind)

        await asyncio.sleep(1)
        await asyncio.to_thread(send, lab, 54, 6000)
        storm = await until("drop-storm")
        assert (storm["fabric"], storm["subject"]) == ("small", "a")
        over = await until("drop-storm-over")
        dropped = nics(await Taker(lab.engine).take())["a"].traffic.sent_dropped
        fields = over["fields"]
        assert isinstance(fields, dict)
        assert 0.5 * dropped < fields["packets"] <= dropped
        await asyncio.to_thread(lab.guests.pop("b").close)
        assert (await until("port-down"))["subject"] == "b.eth0"
        looking.cancel()
        reading.cancel()
        await asyncio.gather(looking, reading, return_exceptions=True)

    living(directory, life)


def test_the_connection_that_carries_most_is_told_first_with_its_ends(directory: Path) -> None:
    async def life(lab: Lab) -> None:
        talking, fabric = Talking(), lab.engine.fabric("small")
        assert (await talking.most(fabric))["connections"] == []
        await asyncio.sleep(LEAST_S)
        await asyncio.to_thread(send, lab, 53, 50)
        await asyncio.to_thread(talk, lab, 81)
        found = await talking.most(fabric)
        first, second = found["connections"]
        assert (first["client"], first["server"], first["server_port"]) == ("a", "b", 81)
        assert (second["protocol"], second["server_port"], second["received_bytes_ps"]) == ("udp", 53, 0.0)
        sent = 50 * (14 + 20 + 8 + 1)
        assert second["sent_bytes_ps"] == pytest.approx(sent / found["span_s"], rel=0.01)
        assert await talking.most(fabric) is found
        for _ in range(10):
            await asyncio.sleep(LEAST_S)
            if not (after := await talking.most(fabric))["connections"]:
                break
        assert after["connections"] == []

    living(directory, life)
