"""The client of vnet's own agent against one that only pretends."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from vnet.base.errors import PeerError, TimedOut
from vnet.hv.live import agent_client
from vnet.hv.live.agent_client import AgentClient

Serve = Callable[[bytes, asyncio.StreamWriter], None]
"""Answers one line."""


def with_agent(
    serve: Serve, work: Callable[[AgentClient], Awaitable[None]], *, signs: int = 1
) -> list[bytes]:
    """Gives its sign only when it has been asked so often; returns all lines that it got, empty ones too."""
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := (await reader.readline()):
            heard.append(line.rstrip(b"\n"))
            if not line.startswith(b"sync "):
                serve(line, writer)
            elif sum(each.startswith(b"sync ") for each in heard) == signs:
                writer.write(b"synced " + line.split()[1] + b"\n")

    async def whole() -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "agent.sock")
            async with await asyncio.start_unix_server(listen, path):
                client = await AgentClient.connect(path, timeout_s=10)
                try:
                    await work(client)
                finally:
                    await client.close()

    asyncio.run(whole())
    return heard


def answer(line: bytes, writer: asyncio.StreamWriter, output: bytes = b"out", error: bytes = b"") -> None:
    """With the words' identifier."""
    done = f"done {line.split()[1].decode()} 3 {len(output)} {len(error)}\n".encode()
    writer.write(done + output + error)


def at_once(line: bytes, writer: asyncio.StreamWriter) -> None:
    if line.startswith(b"run "):
        answer(line, writer, error=b"wrong")


def when_killed(line: bytes, writer: asyncio.StreamWriter) -> None:
    if line.startswith(b"kill "):
        answer(line, writer, output=b"begun\n")


def hang_up(line: bytes, writer: asyncio.StreamWriter) -> None:
    if line.startswith(b"run "):
        writer.close()


def test_a_command_gives_its_output_and_exit_code() -> None:
    async def work(client: AgentClient) -> None:
        done = await client.run(["true"], stdin=b"", timeout_s=10)
        assert (done.exit_code, done.stdout, done.stderr) == (3, b"out", b"wrong")
        assert client.connected

    with_agent(at_once, work)


def test_a_command_that_takes_too_long_is_ended_and_what_it_printed_is_told() -> None:
    async def work(client: AgentClient) -> None:
        with pytest.raises(TimedOut, match=r"`sleep 9` did not end within 0.2 s; it was ended.*\nbegun"):
            await client.run(["sleep", "9"], stdin=b"", timeout_s=0.2)

    assert any(line.startswith(b"kill ") for line in with_agent(when_killed, work))


def test_a_connection_that_breaks_fails_who_waits_and_who_comes_then() -> None:
    async def work(client: AgentClient) -> None:
        for _ in range(2):
            with pytest.raises(PeerError, match="the guest's agent is gone"):
                await client.run(["true"], stdin=b"", timeout_s=10)
        assert not client.connected

    with_agent(hang_up, work)


def test_a_connection_that_is_reset_is_told_in_words() -> None:
    """As it is by a QEMU that ends with something unread."""
    served: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    def read_no_more(line: bytes, writer: asyncio.StreamWriter) -> None:
        if line.startswith(b"run "):
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            served.put_nowait(writer)

    async def work(client: AgentClient) -> None:
        first = asyncio.ensure_future(client.run(["poweroff"], stdin=b"", timeout_s=10))
        writer = await served.get()
        second = asyncio.ensure_future(client.run(["true"], stdin=b"", timeout_s=10))
        await asyncio.sleep(0.05)
        writer.transport.abort()
        for each in (first, second):
            with pytest.raises(PeerError, match=r"^the guest's agent is gone: Connection reset by peer$"):
                await each

    with_agent(read_no_more, work)


async def nothing(client: AgentClient) -> None:
    assert client.connected


def test_who_is_not_answered_flushes_what_an_earlier_client_may_have_left_half_said() -> None:
    filler = b"=" * 32768
    assert filler not in with_agent(at_once, nothing, signs=4)
    assert filler in with_agent(at_once, nothing, signs=6)


def test_a_guest_that_does_not_hear_of_one_connection_is_told_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It gives its sign to the second alone: as a port does that missed that the first one came."""
    monkeypatch.setattr(agent_client, "PATIENCE_S", 0.3)
    seen = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(seen)
        seen.append(number)
        while line := (await reader.readline()):
            if number and line.startswith(b"sync "):
                writer.write(b"synced " + line.split()[1] + b"\n")

    async def whole(timeout_s: float) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "agent.sock")
            async with await asyncio.start_unix_server(listen, path):
                client = await AgentClient.connect(path, timeout_s=timeout_s)
                await nothing(client)
                await client.close()

    asyncio.run(whole(30))
    assert len(seen) == 2
    seen.clear()
    with pytest.raises(TimedOut, match="did not answer within 0.2 s"):
        asyncio.run(whole(0.2))
    assert len(seen) == 1
