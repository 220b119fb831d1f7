"""The switch refuses flows, or a commit, or goes away amid a change: still one generation is in force.

The engine and the controller are the real ones; the switch at the other end of the socket is scripted.
"""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from tests.fakes.scripted_switch import ScriptedSwitch
from tests.unit.fabric.fakes import FakeSwitch, World, make_engine
from tests.unit.fabric.test_failures import CHANGES
from tests.unit.policy.test_session_controller import Host
from vnet.base.errors import VnetError
from vnet.fabric.live.engine import Terms
from vnet.fabric.progress import silent
from vnet.fabric.store import Source
from vnet.openflow import message
from vnet.openflow.message import BundleControlType
from vnet.policy.difference import normal
from vnet.policy.live.controller import Controller
from vnet.policy.session import Timing

NOW, THEN = CHANGES["all"]
PATIENCE_S = 0.3
TIMING = Timing(echo_s=0.25, dead_s=0.5, answer_s=0.5)


@dataclass
class SocketSwitch(FakeSwitch):
    """Ports in memory, flows on a scripted switch behind a real controller."""

    host: Host
    controller: Controller | None = None

    async def open(self):
        await super().open()
        if self.controller is None:
            self.controller = Controller(self.host.path, timing=TIMING, patience_s=PATIENCE_S)
            await self.controller.connect()

    async def flows(self):
        return frozenset(await self.controller.read_flows())

    async def change(self, put, remove):
        await self.controller.apply(tuple((await self.flows() - remove) | put))

    async def close(self):
        if self.controller:
            await self.controller.close()
            self.controller = None

    async def destroy(self):
        await self.close()
        self.host.switch.flows.clear()
        await super().destroy()


@dataclass
class Lab:
    """An engine that drives a scripted switch; `failing` is what the switch does wrong."""

    host: Host
    engine: object
    flows_of: dict = field(default_factory=dict)

    async def up(self, text, **terms):
        return await self.engine.up(Source("small.vnet.yaml", text), silent, Terms(agreed=True, **terms))

    @property
    def flows(self):
        return frozenset(map(normal, self.host.switch.flows.values()))

    @property
    def record(self):
        return self.engine.store.load("small")


@asynccontextmanager
async def lab(directory):
    """Generation 1 is up; `flows_of` has the flows of both generations."""
    host = Host(ScriptedSwitch(part=1000), directory / "s")
    await host.start()
    world = World()
    engine = make_engine(world, directory)
    make_parts = engine.make_parts
    engine.make_parts = lambda name: replace(make_parts(name), switch=SocketSwitch(world, name, host))
    made = Lab(host, engine)
    for generation, text in enumerate((NOW, THEN), 1):
        await made.up(text)
        made.flows_of[generation] = made.flows
    await engine.down("small", silent)
    await made.up(NOW)
    assert made.flows == made.flows_of[1]
    assert made.flows_of[1] != made.flows_of[2]
    try:
        yield made
    finally:
        await engine.close()
        await host.stop()


def run(work):
    async def bounded():
        async with asyncio.timeout(30):
            await work

    asyncio.run(bounded())


def full(switch):
    error = message.Error(message.ErrorType.FLOW_MOD_FAILED, message.FlowModFailed.TABLE_FULL)
    switch.refuse = lambda mod: error


def commit_is_refused(switch):
    switch.refuse_commit = message.Error(65535, 2313, experimenter=message.ONF)


@pytest.mark.parametrize("fails", [full, commit_is_refused])
def test_a_bundle_that_is_refused_leaves_what_was_there(tmp_path, fails):
    async def test():
        async with lab(tmp_path) as made:
            record, switch = made.record, made.host.switch
            fails(switch)
            with pytest.raises(VnetError, match=r"refused.*\n.*as it was before"):
                await made.up(THEN)
            assert (made.flows, made.record) == (made.flows_of[1], record)
            switch.refuse, switch.refuse_commit = (lambda mod: None), None
            await made.up(THEN)
            assert made.flows == made.flows_of[2]

    run(test())


MOMENTS = {
    "reading": lambda what: isinstance(what, message.FlowStatsRequest),
    "bundle-opened": lambda what: (
        isinstance(what, message.BundleControl) and what.type == BundleControlType.OPEN_REQUEST
    ),
    "first-flow": lambda what: isinstance(what, message.BundleAdd),
    "barrier": lambda what: isinstance(what, message.BarrierRequest),
    "committed": lambda what: (
        isinstance(what, message.BundleControl) and what.type == BundleControlType.COMMIT_REQUEST
    ),
}
"""When the switch has heard, and done, this, but its answer is lost."""


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_connection_that_is_lost_once_in_the_middle_is_no_failure(tmp_path, moment):
    async def test():
        async with lab(tmp_path) as made:
            made.host.hangs_up_at(MOMENTS[moment], times=1)
            await made.up(THEN) if moment != "reading" else await until_up(made)
            assert made.host.hung_up == 1
            assert made.flows == made.flows_of[2]
            assert (made.record.generation, made.record.enforced) == (2, 2)

    run(test())


async def until_up(made):
    """A plan that cannot be made, because the flows cannot be read, changes nothing; the next one can."""
    with pytest.raises(VnetError, match="went away"):
        await made.up(THEN)
    assert made.flows == made.flows_of[1]
    await made.up(THEN)


@pytest.mark.parametrize("moment", ["bundle-opened", "first-flow", "barrier"])
def test_a_switch_that_goes_away_each_time_leaves_one_generation_and_the_record_says_which(tmp_path, moment):
    async def test():
        async with lab(tmp_path) as made:
            made.host.hangs_up_at(MOMENTS[moment])
            with pytest.raises(VnetError, match="is away"):
                await made.up(THEN)
            assert made.host.hung_up > 1
            says_which(made)
            made.host.hangs_up_at(None)
            await made.up(THEN)
            assert made.flows == made.flows_of[2]
            assert (made.record.generation, made.record.enforced) == (2, 2)

    run(test())


def says_which(made):
    """What could be undone is as before; what could not shows both: one is in force, the other wanted."""
    assert made.flows in made.flows_of.values()
    record = made.record
    if record.generation == record.enforced:
        assert made.flows == made.flows_of[record.enforced]
    else:
        assert (record.generation, record.enforced) == (2, 1)
        assert "neither completed nor undone" in made.engine.fabrics["small"].trouble


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_switch_that_is_gone_is_told_and_a_later_up_converges(tmp_path, moment):
    async def test():
        async with lab(tmp_path) as made:
            made.host.hangs_up_at(MOMENTS[moment], for_good=True)
            with pytest.raises(VnetError, match="is away|went away"):
                await made.up(THEN)
            says_which(made)
            assert made.flows == made.flows_of[2 if moment == "committed" else 1]
            await made.host.start()
            made.host.hangs_up_at(None)
            await made.up(THEN)
            assert made.flows == made.flows_of[2]

    run(test())


@pytest.mark.parametrize("silent_to", [message.BarrierRequest, message.BundleControl])
def test_a_switch_that_falls_silent_is_given_up(tmp_path, silent_to):
    async def test():
        async with lab(tmp_path) as made:
            made.host.switch.silent = (silent_to, message.EchoRequest)
            with pytest.raises(VnetError, match="is away"):
                await made.up(THEN)
            says_which(made)
            made.host.switch.silent = ()
            await made.up(THEN)
            assert made.flows == made.flows_of[2]

    run(test())
