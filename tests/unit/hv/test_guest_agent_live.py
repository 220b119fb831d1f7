"""The client of QEMU's guest agent against the real one, here a process on the host.

What would change the host (freezing, the clock) is asked of one that only pretends.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.waiting import until
from vnet.base.errors import HostError, PeerError, TimedOut
from vnet.hv.live.freezing import freeze, thaw
from vnet.hv.live.guest_agent import GuestAgentClient

QEMU_GA = shutil.which("qemu-ga", path=f"{os.environ['PATH']}:/usr/sbin")


def listens(path: Path) -> bool:
    """Whether somebody does; the kernel's list says so without a connection, which would be a client."""
    flags = {words[-1]: words[3] for words in map(str.split, Path("/proc/net/unix").read_text().splitlines())}
    return bool(int(flags.get(str(path), "0"), 16) & 0x10000)  # SO_ACCEPTCON


@pytest.fixture
def socket() -> Iterator[Path]:
    assert QEMU_GA, "apt install qemu-guest-agent"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "qga.sock")
        words = ["-m", "unix-listen", "-p", str(path), "-t", folder, "-f", f"{folder}/pid"]
        agent = subprocess.Popen([QEMU_GA, *words], stderr=subprocess.DEVNULL)
        try:
            until(lambda: listens(path), every_s=0.01)
            yield path
        finally:
            agent.kill()
            agent.wait()


def with_client(socket: Path, work: Callable[[GuestAgentClient], Awaitable[None]]) -> None:
    async def whole() -> None:
        client = await GuestAgentClient.connect(socket, timeout_s=10)
        try:
            await work(client)
        finally:
            await client.close()

    asyncio.run(whole())


def test_a_command_gets_its_input_and_gives_its_output_and_exit_code(socket: Path) -> None:
    async def work(client: GuestAgentClient) -> None:
        script = "cat; echo wrong >&2; exit 3"
        done = await client.run(["sh", "-c", script], stdin=b"\0in\n", timeout_s=20)
        assert (done.exit_code, done.stdout, done.stderr) == (3, b"\0in\n", b"wrong\n")
        assert (await client.run(["cat"], stdin=b"", timeout_s=20)).stdout == b""
        assert (await client.run(["no-such-command"], stdin=b"", timeout_s=20)).exit_code == 127
        killed = await client.run(["sh", "-c", "kill -TERM $$"], stdin=b"", timeout_s=20)
        assert killed.exit_code == 128 + 15

    with_client(socket, work)


def test_what_is_large_goes_in_and_comes_back_whole(socket: Path) -> None:
    data = os.urandom(6 << 20)

    async def work(client: GuestAgentClient) -> None:
        assert (await client.run(["cat"], stdin=data, timeout_s=60)).stdout == data

    with_client(socket, work)


def test_several_commands_run_at_a_time(socket: Path) -> None:
    async def work(client: GuestAgentClient) -> None:
        began_s = time.monotonic()
        runs = (client.run(["sh", "-c", f"sleep 1; echo {n}"], stdin=b"", timeout_s=20) for n in range(8))
        done = await asyncio.gather(*runs)
        assert [each.stdout for each in done] == [f"{n}\n".encode() for n in range(8)]
        assert time.monotonic() - began_s < 6

    with_client(socket, work)


def sleeping(seconds: str) -> bool:
    return subprocess.run(["pgrep", "-fx", f"sleep {seconds}"], capture_output=True).returncode == 0


def begun(seconds: str) -> bool:
    return became(True, seconds)


def gone(seconds: str) -> bool:
    return became(False, seconds)


def became(wanted: bool, seconds: str) -> bool:
    deadline = time.monotonic() + 10
    while sleeping(seconds) is not wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    return sleeping(seconds) is wanted


def test_a_command_that_takes_too_long_is_ended_with_its_children(socket: Path) -> None:
    tag = f"100.{os.getpid()}"

    async def work(client: GuestAgentClient) -> None:
        with pytest.raises(TimedOut, match="it was ended. Its last output:\nbegun"):
            await client.run(["sh", "-c", f"echo begun; sleep {tag} & sleep {tag}"], stdin=b"", timeout_s=1)
        assert gone(tag)
        assert (await client.run(["echo", "on"], stdin=b"", timeout_s=20)).stdout == b"on\n"

    with_client(socket, work)


def test_a_command_that_nobody_waits_for_any_more_is_ended_and_others_go_on(socket: Path) -> None:
    tag = f"101.{os.getpid()}"

    async def work(client: GuestAgentClient) -> None:
        other = asyncio.ensure_future(client.run(["sh", "-c", "sleep 2; echo on"], stdin=b"", timeout_s=20))
        run = asyncio.ensure_future(client.run(["sleep", tag], stdin=b"", timeout_s=60))
        assert await asyncio.to_thread(begun, tag)
        run.cancel()
        assert (await other).stdout == b"on\n"
        assert gone(tag)

    with_client(socket, work)


def test_a_client_that_breaks_off_in_the_middle_of_a_word_leaves_no_trace(socket: Path) -> None:
    async def whole() -> None:
        for _ in range(3):
            client = await GuestAgentClient.connect(socket, timeout_s=10)
            assert (await client.run(["echo", "1"], stdin=b"", timeout_s=20)).stdout == b"1\n"
            client._write(b'{"execute": "guest-inf')
            await client.close()

    asyncio.run(whole())


def test_what_the_agent_does_not_know_is_told(socket: Path) -> None:
    async def work(client: GuestAgentClient) -> None:
        assert not await client.frozen()
        with pytest.raises(HostError, match="refused guest-nothing"):
            await client.command("guest-nothing")

    with_client(socket, work)


# ---- one that only pretends ------------------------------------------------------------------


def with_pretender(answers: dict[str, bytes], work: Callable[[GuestAgentClient], Awaitable[None]]) -> list:
    """Answers commands from a table, each once it has come whole; returns what was asked."""
    asked: list = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            command = json.loads(line.lstrip(b"\xff"))
            if command["execute"] == "guest-sync-delimited":
                writer.write(b"\xff" + json.dumps({"return": command["arguments"]["id"]}).encode() + b"\n")
                continue
            asked.append((command["execute"], command["arguments"]))
            writer.write(answers.get(command["execute"], b'{"return": {}}\n'))

    async def whole() -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "qga.sock")
            async with await asyncio.start_unix_server(serve, path):
                client = await GuestAgentClient.connect(path, timeout_s=10)
                try:
                    await work(client)
                finally:
                    await client.close()

    asyncio.run(whole())
    return asked


def test_file_systems_are_frozen_and_thawed_and_the_clock_is_set() -> None:
    async def work(client: GuestAgentClient) -> None:
        assert await client.freeze() == 2
        assert await client.frozen()
        assert await client.thaw() == 2
        client.tell_time(10**18)
        await client.command("guest-ping")

    answers = {
        "guest-fsfreeze-freeze": b'{"return": 2}\n',
        "guest-fsfreeze-status": b'{"return": "frozen"}\n',
        "guest-fsfreeze-thaw": b'{"return": 2}\n',
    }
    asked = with_pretender(answers, work)
    assert ("guest-set-time", {"time": 10**18}) in asked


def test_an_agent_that_falls_silent_fails_all_that_wait_and_is_not_asked_again() -> None:
    async def work(client: GuestAgentClient) -> None:
        with pytest.raises(TimedOut, match="did not answer guest-ping"):
            await client.command("guest-ping", timeout_s=0.2)
        assert not client.connected
        with pytest.raises(PeerError, match="did not answer guest-ping"):
            await client.command("guest-ping")

    with_pretender({"guest-ping": b""}, work)


def test_an_agent_that_answers_what_nobody_asked_is_left() -> None:
    async def work(client: GuestAgentClient) -> None:
        await client.command("guest-ping")
        await asyncio.sleep(0.2)
        assert not client.connected
        with pytest.raises(PeerError, match="what nobody asked"):
            await client.command("guest-ping")

    with_pretender({"guest-ping": b'{"return": {}}\n{"return": {}}\n'}, work)


class Frozen:
    """As much of a guest as freezing asks for."""

    goes_on = True

    def __init__(self, client: GuestAgentClient) -> None:
        self._client = client

    async def agent_now(self, timeout_s: float) -> GuestAgentClient:
        return self._client


def _commands(asked: list) -> list[str]:
    return [name.removeprefix("guest-") for name, _ in asked if name != "guest-exec-status"]


EXECUTES = {
    "guest-exec": b'{"return": {"pid": 5}}\n',
    "guest-exec-status": b'{"return": {"exited": true, "exitcode": 0}}\n',
    "guest-fsfreeze-freeze": b'{"return": 3}\n',
    "guest-fsfreeze-thaw": b'{"return": 3}\n',
}


def test_the_agent_itself_freezes_with_a_watchdog_begun_before_and_ended_after() -> None:
    async def work(client: GuestAgentClient) -> None:
        assert (await freeze(Frozen(client))).is_frozen  # type: ignore[arg-type]
        assert await thaw(Frozen(client))  # type: ignore[arg-type]

    asked = with_pretender(EXECUTES, work)
    assert _commands(asked) == ["exec", "fsfreeze-freeze", "fsfreeze-thaw", "exec"]


def test_one_that_may_run_no_commands_freezes_all_the_same() -> None:
    async def work(client: GuestAgentClient) -> None:
        assert (await freeze(Frozen(client))).is_frozen  # type: ignore[arg-type]

    barred = b'{"error": {"class": "CommandNotFound", "desc": "guest-exec has been disabled"}}\n'
    asked = with_pretender({**EXECUTES, "guest-exec": barred}, work)
    assert _commands(asked) == ["exec", "fsfreeze-freeze"]


def test_one_that_cannot_freeze_is_thawed_and_says_why() -> None:
    async def work(client: GuestAgentClient) -> None:
        frozen = await freeze(Frozen(client))  # type: ignore[arg-type]
        assert not frozen.is_frozen and "no such ioctl" in frozen.why

    failed = b'{"error": {"class": "GenericError", "desc": "no such ioctl"}}\n'
    asked = with_pretender({**EXECUTES, "guest-fsfreeze-freeze": failed}, work)
    assert _commands(asked) == ["exec", "fsfreeze-freeze", "fsfreeze-thaw", "exec"]


@pytest.mark.parametrize(("status", "thawed"), [("frozen", True), ("thawed", False)])
def test_who_connects_thaws_what_another_daemon_left_frozen(status: str, thawed: bool) -> None:
    async def work(client: GuestAgentClient) -> None:
        await client.thaw_what_was_left()

    answers = {**EXECUTES, "guest-fsfreeze-status": json.dumps({"return": status}).encode() + b"\n"}
    assert ("fsfreeze-thaw" in _commands(with_pretender(answers, work))) is thawed
