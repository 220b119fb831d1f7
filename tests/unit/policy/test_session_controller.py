"""The controller on a unix socket, against a scripted switch that comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes.scripted_switch import ScriptedSwitch
from tests.waiting import until_async
from vnet.base.errors import PeerError, TimedOut
from vnet.openflow import cookie, message
from vnet.openflow.flow import Flow, Instructions, Output, match
from vnet.openflow.message import Message
from vnet.policy.difference import diff
from vnet.policy.live.controller import PATIENCE_S, ApplyRefused, Closed, Controller
from vnet.policy.session import Applied, Timing

FLOWS = tuple(
    Flow(0, number, match(in_port=number), Instructions(apply=(Output(9),)), cookie.make("test"))
    for number in (1, 2, 3)
)


class Host:
    """Serves a scripted switch on a socket; connections can be cut and the socket taken away."""

    def __init__(self, switch: ScriptedSwitch, path: Path) -> None:
        self.switch, self.path = switch, path
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self.hung_up = 0
        self._hangs_up_at: Callable[[Message], bool] | None = None
        self._times, self._for_good = 0, False

    def hangs_up_at(
        self, heard: Callable[[Message], bool] | None, times: int = 1 << 30, for_good: bool = False
    ) -> None:
        """Do what it hears up to such a message, and then go away without an answer to it."""
        self._hangs_up_at, self._times, self._for_good = heard, times, for_good

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def stop(self) -> None:
        assert self._server
        self._server.close()
        self.cut()
        self.path.unlink(missing_ok=True)

    def cut(self) -> None:
        for writer in self._writers:
            writer.close()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self.switch.connect()
        writer.write(self.switch.to_send())
        while (data := await reader.read(65536)) and self._writers[-1:] == [writer]:
            heard = len(self.switch.heard)
            self.switch.receive(data)
            if self._is_gone_after(self.switch.heard[heard:]):
                break
            writer.write(self.switch.to_send())
        writer.close()

    def _is_gone_after(self, heard: list[Message]) -> bool:
        if not self._hangs_up_at or self.hung_up >= self._times or not any(map(self._hangs_up_at, heard)):
            return False
        self.hung_up += 1
        if self._for_good and self._server:
            self._server.close()
            self.path.unlink()
        return True


@asynccontextmanager
async def driving(
    switch: ScriptedSwitch, path: Path, patience_s: float = PATIENCE_S
) -> AsyncIterator[tuple[Host, Controller]]:
    host, controller = Host(switch, path), Controller(path, patience_s=patience_s)
    await host.start()
    try:
        await controller.connect()
        yield host, controller
    finally:
        await controller.close()
        await host.stop()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await test()

    asyncio.run(bounded())


def test_flows_are_applied_and_read_back(tmp_path: Path) -> None:
    async def test() -> None:
        async with driving(ScriptedSwitch(), tmp_path / "s") as (_, controller):
            assert await controller.apply(FLOWS) == Applied(1, added=3)
            assert await controller.read_flows() == FLOWS
            assert await controller.apply(FLOWS[:1]) == Applied(2, removed=2)

    run(test)


def test_applications_asked_for_at_once_are_done_in_order(tmp_path: Path) -> None:
    async def test() -> None:
        async with driving(ScriptedSwitch(), tmp_path / "s") as (host, controller):
            done = await asyncio.gather(*(controller.apply(FLOWS[:n]) for n in (1, 3, 2)))
            assert done == [Applied(1, added=1), Applied(2, added=2), Applied(3, removed=1)]
            assert set(host.switch.flows.values()) == set(FLOWS[:2])

    run(test)


def test_after_a_restart_of_the_switch_what_it_lacks_is_sent_again(tmp_path: Path) -> None:
    async def test() -> None:
        async with driving(ScriptedSwitch(), tmp_path / "s") as (host, controller):
            await controller.apply(FLOWS)
            await host.stop()
            await until_async(lambda: not controller.connected)
            del host.switch.flows[FLOWS[1].key]
            host.switch.heard.clear()
            await host.start()
            await until_async(lambda: len(host.switch.flows) == 3)
            assert [mod.flow for mod in host.switch.heard_mods()] == [FLOWS[1]]

    run(test)


def test_what_is_asked_for_while_the_switch_is_away_is_done_when_it_is_back(tmp_path: Path) -> None:
    async def test() -> None:
        async with driving(ScriptedSwitch(), tmp_path / "s") as (host, controller):
            await host.stop()
            await until_async(lambda: not controller.connected)
            waiting = asyncio.create_task(controller.apply(FLOWS))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            await host.start()
            assert await waiting == Applied(1, added=3)

    run(test)


def test_an_application_cut_short_is_finished_on_the_next_connection(tmp_path: Path) -> None:
    async def test() -> None:
        switch = ScriptedSwitch(silent=(message.BarrierRequest,))
        async with driving(switch, tmp_path / "s") as (host, controller):
            waiting = asyncio.create_task(controller.apply(FLOWS))
            await until_async(lambda: bool(switch.heard_mods()))
            switch.silent = ()
            host.cut()
            assert await waiting == Applied(1, added=3)
            assert controller.reconnects == 1

    run(test)


def test_flows_wait_for_a_switch_that_is_away_only_so_long_and_then_the_earlier_ones_are_wanted(
    tmp_path: Path,
) -> None:
    async def test() -> None:
        async with driving(ScriptedSwitch(), tmp_path / "s", patience_s=0.2) as (host, controller):
            await controller.apply(FLOWS[:1])
            await host.stop()
            await until_async(lambda: not controller.connected)
            with pytest.raises(TimedOut, match=r"is away for 0\.2 s: .*No such file"):
                await controller.apply(FLOWS)
            with pytest.raises(TimedOut, match="is away"):
                await controller.read_flows()
            host.switch.flows.clear()
            await host.start()
            await until_async(lambda: bool(host.switch.flows))
            assert set(host.switch.flows.values()) == {FLOWS[0]}

    run(test)


def test_a_switch_that_goes_away_each_time_it_is_sent_flows_is_given_up(tmp_path: Path) -> None:
    async def test() -> None:
        async with driving(ScriptedSwitch(), tmp_path / "s", patience_s=0.3) as (host, controller):
            host.hangs_up_at(lambda what: isinstance(what, message.BundleAdd))
            with pytest.raises(TimedOut, match="is away"):
                await controller.apply(FLOWS)
            assert controller.reconnects > 1
            assert await controller.read_flows() == ()

    run(test)


def test_refused_flows_are_told_and_the_earlier_ones_stay_wanted(tmp_path: Path) -> None:
    async def test() -> None:
        error = message.Error(message.ErrorType.FLOW_MOD_FAILED, message.FlowModFailed.TABLE_FULL)
        switch = ScriptedSwitch(refuse=lambda mod: error if mod.flow.priority == 3 else None)
        async with driving(switch, tmp_path / "s") as (host, controller):
            await controller.apply(FLOWS[:2])
            with pytest.raises(ApplyRefused, match=r"FLOW_MOD_FAILED code 1 .table 0, priority 3."):
                await controller.apply(FLOWS)
            switch.flows.clear()
            host.cut()
            await until_async(lambda: len(switch.flows) == 2)
            assert set(switch.flows.values()) == set(FLOWS[:2])

    run(test)


def test_flows_that_cannot_be_owned_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    async def test() -> None:
        async with driving(ScriptedSwitch(), tmp_path / "s") as (host, controller):
            with pytest.raises(ValueError, match="not vnet's"):
                await controller.apply((replace(FLOWS[0], cookie=1),))
            assert await controller.apply(FLOWS[:1]) == Applied(1, added=1)
            assert len(host.switch.flows) == 1

    run(test)


def test_reading_from_a_switch_that_goes_away_fails(tmp_path: Path) -> None:
    async def test() -> None:
        switch = ScriptedSwitch(silent=(message.FlowStatsRequest,))
        async with driving(switch, tmp_path / "s") as (host, controller):
            reading = asyncio.create_task(controller.read_flows())
            await until_async(
                lambda: any(isinstance(what, message.FlowStatsRequest) for what in switch.heard)
            )
            host.cut()
            with pytest.raises(PeerError, match="the switch went away: the switch closed the connection"):
                await reading

    run(test)


def test_closing_fails_what_is_waited_for_and_leaves_the_flows(tmp_path: Path) -> None:
    async def test() -> None:
        switch = ScriptedSwitch()
        async with driving(switch, tmp_path / "s") as (_, controller):
            await controller.apply(FLOWS)
            switch.silent = (message.FlowStatsRequest,)
            waiting = asyncio.create_task(controller.apply(()))
            await asyncio.sleep(0.02)
            await controller.close()
            with pytest.raises(Closed):
                await waiting
            assert len(switch.flows) == 3

    run(test)


def test_a_silent_switch_is_left_and_called_again(tmp_path: Path) -> None:
    async def test() -> None:
        switch = ScriptedSwitch()
        host = Host(switch, tmp_path / "s")
        controller = Controller(host.path, timing=Timing(echo_s=0.05, dead_s=0.15))
        await host.start()
        await controller.connect()
        switch.silent = (message.EchoRequest,)
        await until_async(lambda: controller.reconnects == 1)
        assert controller.last_failure == "the switch has been silent for 0.15 s"
        switch.silent = ()
        await until_async(lambda: controller.connected)
        await controller.close()
        await host.stop()

    run(test)


def test_no_switch_is_told_with_the_reason(tmp_path: Path) -> None:
    async def test() -> None:
        controller = Controller(tmp_path / "nobody.sock")
        with pytest.raises(TimedOut, match=r"no switch at .*nobody\.sock in 0\.1 s: .*No such file"):
            await controller.connect(timeout_s=0.1)

    run(test)


# -- changes that are known beforehand ------------------------------------------------------------


def test_a_change_costs_only_what_it_changes(tmp_path: Path) -> None:
    async def test() -> None:
        async with driving(ScriptedSwitch(), tmp_path / "s") as (host, controller):
            assert not controller.has_applied
            await controller.apply(FLOWS[:2])
            host.switch.heard.clear()
            assert await controller.change(diff(FLOWS[:1], FLOWS[2:])) == Applied(2, added=1, removed=1)
            assert [mod.flow.key for mod in host.switch.heard_mods()] == [FLOWS[2].key, FLOWS[0].key]
            assert not any(isinstance(heard, message.FlowStatsRequest) for heard in host.switch.heard)
            assert await controller.change(diff((), ())) == Applied(2)
            assert await controller.read_flows() == FLOWS[1:]

    run(test)


def test_a_change_is_wanted_again_after_a_restart_and_a_refused_one_is_not(tmp_path: Path) -> None:
    async def test() -> None:
        async with driving(ScriptedSwitch(), tmp_path / "s") as (host, controller):
            await controller.apply(FLOWS[:1])
            await controller.change(diff(FLOWS[:1], FLOWS[1:2]))
            host.switch.refuse = lambda mod: message.Error(message.ErrorType.FLOW_MOD_FAILED, 1)
            with pytest.raises(ApplyRefused):
                await controller.change(diff(FLOWS[1:2], FLOWS[2:]))
            host.switch.refuse = lambda mod: None
            await host.stop()
            host.switch.flows.clear()
            await until_async(lambda: not controller.connected)
            await host.start()
            await until_async(lambda: bool(host.switch.flows))
            assert set(host.switch.flows.values()) == {FLOWS[1]}

    run(test)


def test_a_change_that_is_cut_off_is_made_by_the_next_session(tmp_path: Path) -> None:
    async def test() -> None:
        async with driving(ScriptedSwitch(), tmp_path / "s") as (host, controller):
            await controller.apply(FLOWS[:1])
            host.hangs_up_at(lambda heard: isinstance(heard, message.BundleAdd), times=1)
            await controller.change(diff(FLOWS[:1], FLOWS[1:]))
            assert set(host.switch.flows.values()) == set(FLOWS[1:])

    run(test)
