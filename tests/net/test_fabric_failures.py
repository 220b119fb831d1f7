"""A daemon is killed at any step of a change on the real kernel: one generation is in force, and it goes on.

`tests/unit/fabric/test_failures.py` has the same law for many changes and failures, on a host in memory.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.net import fabric_lab
from tests.net.test_fabric_network import LARGER, TEXT
from tests.unit.fabric.fakes import World
from vnet.base.errors import VnetError
from vnet.fabric.live import switch as live_switch
from vnet.fabric.live.engine import Engine, Terms
from vnet.fabric.live.switch import HostSwitch
from vnet.fabric.progress import silent
from vnet.fabric.store import Source
from vnet.openflow.flow import Flow

ROOT = Path(__file__).resolve().parents[2]
THEN = LARGER.replace("80/tcp", "81/tcp")
Flows = frozenset[Flow]


@pytest.fixture
def directory():
    with fabric_lab.host() as made:
        yield made


@dataclass
class Lab:
    """One daemon after another; `flows_of` has what each generation's flows are."""

    directory: Path
    flows_of: dict[int, Flows]
    steps: list[str]

    async def with_daemon(self, work: Callable[[Engine], Awaitable[Any]]) -> Any:
        """Let a new daemon adopt what is there and do something."""
        engine = fabric_lab.make_engine(self.directory, World())
        try:
            await engine.adopt()
            return await work(engine)
        finally:
            await engine.close()

    async def up(self, engine: Engine, text: str) -> Flows:
        await engine.up(Source("small.vnet.yaml", text), silent, Terms(agreed=True))
        return await engine.fabrics["small"].parts.switch.flows()

    def killed(self, text: str, where: str, step: int, **terms: Any) -> list[str]:
        """Have a daemon killed at a step of bringing this up; -1 for none. Returns the steps it got to."""
        file = self.directory / "then.vnet.yaml"
        file.write_text(text)
        words = [str(self.directory), json.dumps(terms), str(file), where, str(step)]
        command = [sys.executable, "-m", "tests.net.fabric_child", *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == (0 if step < 0 else -signal.SIGKILL), done.stderr
        return done.stdout.split()

    async def flows(self) -> Flows:
        """What is in force, asked of the kernel while no daemon runs."""
        switch = HostSwitch("small")
        if not await switch.exists():
            return frozenset()
        await switch.open()
        try:
            return await switch.flows()
        finally:
            await switch.close()

    def record(self) -> Any:
        engine = fabric_lab.make_engine(self.directory, World())
        try:
            return engine.store.load("small")
        finally:
            engine.store.close()

    async def is_one_generation(self) -> None:
        assert await self.flows() in self.flows_of.values()
        record = self.record()
        if record.enforced == 2:
            assert await self.flows() == self.flows_of[2]

    async def down(self) -> None:
        await self.with_daemon(lambda engine: engine.down("small", silent))


async def lab(directory: Path) -> Lab:
    """Both generations are known, and the first is up."""
    made = Lab(directory, {}, [])

    async def first(engine: Engine) -> None:
        made.flows_of[1] = await made.up(engine, TEXT)

    async def second(engine: Engine) -> None:
        made.flows_of[2] = await made.up(engine, THEN)

    await made.with_daemon(first)
    await made.with_daemon(second)
    await made.down()
    await made.with_daemon(first)
    made.steps = made.killed(THEN, "before", -1)
    assert await made.flows() == made.flows_of[2]
    assert made.flows_of[1] != made.flows_of[2]
    await made.down()
    await made.with_daemon(first)
    return made


def test_a_daemon_that_is_killed_at_any_step_leaves_one_generation_and_the_next_completes_it(directory):
    async def test() -> None:
        made = await lab(directory)
        for step in range(len(made.steps)):
            where = ("before", "after")[step % 2]
            made.killed(THEN, where, step)
            await made.is_one_generation()
            await made.with_daemon(lambda engine: goes_on(made, engine))
            await made.down()
            await made.with_daemon(lambda engine: made.up(engine, TEXT))
        await made.down()

    asyncio.run(test())


async def goes_on(made: Lab, engine: Engine) -> None:
    fabric = engine.fabrics["small"]
    assert fabric.trouble == ""
    assert fabric.record.generation == fabric.record.enforced
    assert await fabric.parts.switch.flows() == made.flows_of[fabric.record.enforced]
    assert await made.up(engine, THEN) == made.flows_of[2]


def test_a_daemon_that_is_killed_amid_a_change_to_be_confirmed_is_followed_by_one_that_undoes_it(directory):
    async def test() -> None:
        made = await lab(directory)
        before = made.record()
        for step in (0, made.steps.index("change"), made.steps.index("change") + 1, len(made.steps) - 1):
            made.killed(THEN, "before", step, confirm_s=60.0)
            await made.is_one_generation()
            await made.with_daemon(lambda engine: engine.roll_back_due())
            assert await made.flows() == made.flows_of[1]
            assert made.record() == before
        await made.down()

    asyncio.run(test())


def test_a_change_that_was_confirmed_by_nobody_is_undone_by_the_next_daemon(directory):
    async def test() -> None:
        made = await lab(directory)
        before = made.record()
        made.killed(THEN, "before", -1, confirm_s=0.5)
        assert await made.flows() == made.flows_of[2]
        await asyncio.sleep(0.6)
        await made.with_daemon(lambda engine: engine.roll_back_due())
        assert await made.flows() == made.flows_of[1]
        assert made.record() == before
        await made.down()

    asyncio.run(test())


async def be_gone(switch: HostSwitch) -> None:
    """The agent listens no more and hangs up on everybody; the datapath goes on."""
    server = switch._server
    for listener in server._listeners:
        listener.close()
    for task in tuple(server._tasks):
        task.cancel()


def test_an_agent_that_is_gone_is_told_and_the_next_daemon_goes_on(directory, monkeypatch):
    monkeypatch.setattr(live_switch, "PATIENCE_S", 0.5)

    async def test() -> None:
        made = await lab(directory)
        engine = fabric_lab.make_engine(directory, World())
        await engine.adopt()
        prepare = Engine._prepare

        async def then_gone(self: Engine, *given: Any, **named: Any) -> Any:
            change = await prepare(self, *given, **named)
            await be_gone(self.fabrics["small"].parts.switch)
            return change

        monkeypatch.setattr(Engine, "_prepare", then_gone)
        with pytest.raises(VnetError, match="is away"):
            await made.up(engine, THEN)
        monkeypatch.undo()
        assert "neither completed nor undone" in engine.fabrics["small"].trouble
        assert (engine.fabrics["small"].record.generation, engine.fabrics["small"].record.enforced) == (2, 1)
        await engine.close()
        assert await made.flows() == made.flows_of[1]
        await made.with_daemon(lambda engine: goes_on(made, engine))
        await made.down()

    asyncio.run(test())
