"""What VMs printed, line by line: what is asked for, and no more."""

from __future__ import annotations

import asyncio
import json
import os

import pytest

from vnet.base.errors import HostError
from vnet.cli.vm_commands import in_words
from vnet.fabric.live import consoles
from vnet.fabric.live.consoles import LinesWanted, read
from vnet.hv.live.console_log import ROOM_BYTES, Start, begun


@pytest.fixture(autouse=True)
def own_roots(tmp_path, monkeypatch):
    monkeypatch.setenv("VNET_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(consoles, "_LOOK_S", 0.01)


def start(text: bytes) -> int:
    with begun("shop", "web", ROOM_BYTES) as descriptor:
        mine = os.dup(descriptor)
    os.write(mine, text)
    return mine


def lines(start=Start.CURRENT, last=None) -> list[str]:
    async def all_of_it() -> bytes:
        blocks: asyncio.Queue[bytes | None] = asyncio.Queue()
        await read("shop", "web", LinesWanted(start, last, follow=False))(blocks)
        return b"".join(blocks.get_nowait() or b"" for _ in range(blocks.qsize()))

    return [json.loads(line)["text"] for line in asyncio.run(all_of_it()).splitlines()]


def test_lines_are_told_without_what_ends_them_and_the_last_may_have_no_end():
    os.close(start(b"one\r\n\r\n\xff two\n/ # "))
    assert lines() == ["one", "", "\ufffd two", "/ # "]
    assert lines(last=2) == ["\ufffd two", "/ # "]
    assert lines(last=0) == []
    assert lines(last=100) == lines()


def test_many_lines_come_in_their_order():
    os.close(start(b"".join(b"%d\n" % number for number in range(5000))))
    assert lines() == [str(number) for number in range(5000)]


def test_a_follower_gets_whole_lines_as_they_come():
    descriptor = start(b"old\nnew\nha")

    async def follow() -> list[str]:
        blocks: asyncio.Queue[bytes | None] = asyncio.Queue()
        task = asyncio.ensure_future(read("shop", "web", LinesWanted(Start.CURRENT, 1, follow=True))(blocks))
        got = [await blocks.get()]
        os.write(descriptor, b"lf\nmore\nand")
        got.append(await asyncio.wait_for(blocks.get(), 10))
        task.cancel()
        return [json.loads(line)["text"] for block in got for line in (block or b"").splitlines()]

    assert asyncio.run(follow()) == ["new", "half", "more"]
    os.close(descriptor)


def test_where_nothing_is_kept_it_is_told_what_to_do():
    with pytest.raises(HostError, match="vnet start web"):
        lines()
    os.close(start(b""))
    assert lines() == []
    with pytest.raises(HostError, match="only once"):
        lines(Start.PREVIOUS)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("/ # \x1b[6n", "/ # "),
        ("\x1b]0;title\x07", "0;title?"),
        ("a\tb", "a       b"),
        ("\x9b31m", "?31m"),
    ],
)
def test_a_guest_does_not_command_the_terminal(text, shown):
    shown_text = in_words({"text": text})
    assert "\x1b" not in shown_text
    assert shown_text == shown
