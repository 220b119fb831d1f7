"""VMs are started in the order they ask for, looked after, and started again when they die."""

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.fabric.fakes import FakeGuests, World, make_engine
from tests.waiting import until_async
from vnet.base.errors import HostError
from vnet.fabric import restart
from vnet.fabric.health import STARTING_INTERVAL_S, State, begun, looked
from vnet.fabric.live import nursing
from vnet.fabric.live.engine import Terms
from vnet.fabric.progress import silent
from vnet.fabric.restart import Tries
from vnet.fabric.store import Source
from vnet.hv.spec import ExecResult, GuestState, GuestStatus
from vnet.topology.life import HealthCheck, Life, Restart, RestartWhen

HEAD = "name: small\nnetworks: {lan: {vlan: 10, subnets: 10.0.0.0/24}}\ndefaults: {networks: [lan]}\nvms:\n"
CHECK = HealthCheck(("true",), interval_s=30.0, retries=3, start_period_s=10.0)


def source(vms):
    return Source("small.vnet.yaml", HEAD + vms)


@pytest.fixture
def quickly(monkeypatch):
    monkeypatch.setattr(nursing, "RESTART_LOOK_S", 0.01)
    monkeypatch.setattr(restart, "FIRST_DELAY_S", 0.02)
    monkeypatch.setattr("vnet.fabric.live.health.LOOK_S", 0.01)
    monkeypatch.setattr("vnet.fabric.health.STARTING_INTERVAL_S", 0.01)


# ---- health ----------------------------------------------------------------------------------


def after(*faults, every_s=STARTING_INTERVAL_S):
    health, now_s = begun(100.0), 100.0
    for fault in faults:
        health = looked(health, CHECK, fault, now_s)
        now_s += every_s
    return health


def test_one_success_is_health():
    assert after("no", "no", "").state is State.HEALTHY


def test_failures_soon_after_the_start_do_not_count():
    assert after(*["no"] * 10).state is State.STARTING
    assert after(*["no"] * 13).state is State.UNHEALTHY


def test_a_healthy_vm_is_unhealthy_after_so_many_failures_in_a_row():
    assert after("", "no", "no", "", "no", "no").state is State.HEALTHY
    health = after("", "no", "no", "no it is not")
    assert (health.state, health.text) == (State.UNHEALTHY, "no it is not")


def test_a_vm_that_starts_is_looked_at_each_second_and_later_by_its_interval():
    assert after("no").due_s == 101.0
    assert after("").due_s == 130.0


# ---- new starts ------------------------------------------------------------------------------


def test_which_end_is_followed_by_a_start():
    died, off = GuestState.CRASHED, GuestState.STOPPED
    table = {
        RestartWhen.NO: (False, False),
        RestartWhen.ON_FAILURE: (True, False),
        RestartWhen.ALWAYS: (True, True),
        RestartWhen.UNLESS_STOPPED: (True, True),
    }
    for when, expected in table.items():
        assert (restart.wants(Restart(when), died), restart.wants(Restart(when), off)) == expected


@given(st.integers(0, 40))
def test_each_pause_is_twice_as_long_as_the_last_up_to_a_minute(made):
    due_s = restart.seen_ended(Tries(made), 1000.0).due_s
    assert due_s - 1000.0 == pytest.approx(min(60.0, restart.FIRST_DELAY_S * 2**made))


def test_who_has_run_for_a_while_is_counted_from_the_beginning():
    assert restart.seen_running(Tries(5), 11.0) == Tries()
    assert restart.seen_running(Tries(5), 2.0).made == 5
    assert restart.is_exhausted(Restart(RestartWhen.ON_FAILURE, 5), Tries(5))


def test_what_a_stop_means_once_the_daemon_or_the_host_was_started_again():
    lives = {
        "always": Life(Restart(RestartWhen.ALWAYS)),
        "unless": Life(Restart(RestartWhen.UNLESS_STOPPED)),
        "auto": Life(autostart=True),
        "plain": Life(),
    }
    stopped = frozenset(lives)
    assert restart.begin_again(lives, stopped, booted=False) == {"always"}
    assert restart.begin_again(lives, stopped, booted=True) == {"always", "auto"}
    assert restart.begin_again(lives, stopped, booted=False, suspended=stopped) == frozenset()
    assert restart.begin_again(lives, stopped, booted=True, suspended=stopped) == {"auto"}
    assert restart.begin_again(lives, frozenset(), booted=True) == frozenset()


# ---- with an engine --------------------------------------------------------------------------


async def up(world, directory, vms, boot="boot-1"):
    engine = make_engine(world, directory, boot=boot)
    await engine.up(source(vms), silent, Terms(agreed=True))
    return engine


def starts(world):
    return [call for call in world.calls if call.startswith(("start ", "wait for "))]


def test_vms_are_started_after_those_they_depend_on_and_side_by_side_otherwise(tmp_path):
    world = World()
    vms = "  a: {depends_on: [b]}\n  b: {depends_on: [c], replicas: 2}\n  c: {}\n  d: {}\n"
    asyncio.run(up(world, tmp_path, vms))
    calls = starts(world)
    assert calls.index("wait for c") < calls.index("start b-1")
    assert max(calls.index("wait for b-1"), calls.index("wait for b-2")) < calls.index("start a")
    assert calls.index("start d") < calls.index("wait for c")


class Sickly(FakeGuests):
    """Its checks fail so many times."""

    failures = 3

    async def exec(self, name, argv, timeout_s, stdin=b""):
        self.world.calls.append(f"check {name}")
        self.failures -= 1
        return ExecResult(int(self.failures >= 0), b"", b"no database")


def with_guests(monkeypatch, kind):
    monkeypatch.setattr("tests.unit.fabric.fakes.FakeGuests", kind)


HEALTHY = "  web: {depends_on: {db: {condition: healthy}}}\n  db: {healthcheck: {test: pg_isready%s}}\n"


@pytest.mark.usefixtures("quickly")
def test_a_vm_is_started_once_the_one_it_needs_is_healthy(tmp_path, monkeypatch):
    with_guests(monkeypatch, Sickly)
    world = World()
    asyncio.run(up(world, tmp_path, HEALTHY % ""))
    assert world.calls.count("check db") == 4
    assert world.calls.index("start web") > max(i for i, call in enumerate(world.calls) if call == "check db")


@pytest.mark.usefixtures("quickly")
def test_an_unhealthy_vm_ends_the_change_and_says_why(tmp_path, monkeypatch):
    with_guests(monkeypatch, Sickly)
    world = World()
    with pytest.raises(HostError, match=r"db is unhealthy: its check ended with 1: no database") as met:
        asyncio.run(up(world, tmp_path, HEALTHY % ", retries: 2, start_period: 0s"))
    assert not world.guests
    assert "vnet exec" not in str(met.value), "it is not there any more"


class Ended(FakeGuests):
    """Those that are gone have crashed."""

    async def status(self, name):
        status = await super().status(name)
        is_gone = status.state is GuestState.STOPPED and (self.name, name) in self.world.specs
        return GuestStatus(name, GuestState.CRASHED) if is_gone else status


@asynccontextmanager
async def tended(engine):
    task = asyncio.create_task(nursing.restart_ended(engine))
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.usefixtures("quickly")
def test_a_vm_that_dies_is_started_again_as_often_as_its_policy_says(tmp_path, monkeypatch):
    with_guests(monkeypatch, Ended)
    world = World()

    async def die(until_started):
        """Again and again; then three times more, to no avail."""

        def dies():
            world.guests.discard(("small", "a"))
            return starts(world).count("start a")

        await until_async(dies, every_s=0.05, holds=lambda started: started >= until_started)
        for _ in range(3):
            dies()
            await asyncio.sleep(0.2)
        assert starts(world).count("start a") == until_started

    async def test():
        engine = await up(
            world, tmp_path, '  a: {restart: "on-failure:2"}\n  b: {}\n  c: {restart: always}\n'
        )
        world.guests.clear()
        await engine.stop("small", "c", 0, silent)
        async with tended(engine):
            await die(1 + 2)
            await engine.stop("small", "a", 0, silent)
            await asyncio.sleep(0.05)
            await engine.start("small", "a", silent)
            await die(1 + 2 + 1 + 2)  # a start by hand is counted from the beginning

    asyncio.run(test())
    calls = starts(world)
    assert calls.count("start b") == calls.count("start c") == 1


class Stuck(Ended):
    """Those of the fabric "small" do not come up again."""

    async def start(self, guest, note):
        if self.name == "small" and (self.name, guest.name) in self.world.specs:
            await asyncio.sleep(60)
        return await super().start(guest, note)


@pytest.mark.usefixtures("quickly")
def test_a_vm_that_does_not_come_up_keeps_none_of_another_fabric_waiting(tmp_path, monkeypatch):
    with_guests(monkeypatch, Stuck)
    world = World()

    async def test():
        vms = "  a: {restart: always}\n"
        engine = await up(world, tmp_path, vms)
        other = Source("other.vnet.yaml", source(vms).text.replace("name: small", "name: other"))
        await engine.up(other, silent, Terms(agreed=True))
        world.guests.clear()
        async with tended(engine):
            for _ in range(2):
                await until_async(lambda: world.guests, holds=lambda guests: guests == {("other", "a")})
                world.guests.clear()

    asyncio.run(test())


@pytest.mark.usefixtures("quickly")
def test_vms_are_started_automatically_when_the_host_was_booted(tmp_path):
    world = World()
    vms = "  a: {autostart: true}\n  b: {}\n  c: {autostart: true}\n"

    async def test():
        engine = await up(world, tmp_path, vms)
        await engine.stop("small", "a", 0, silent)
        await engine.close()
        world.guests.clear()
        later = make_engine(world, tmp_path, boot="boot-2")
        await later.adopt()
        async with tended(later):
            await until_async(lambda: world.guests, holds=lambda guests: len(guests) >= 2)
            await asyncio.sleep(0.05)
        return later

    later = asyncio.run(test())
    assert world.guests == {("small", "a"), ("small", "c")}
    assert later.fabrics["small"].record.stopped == frozenset()
