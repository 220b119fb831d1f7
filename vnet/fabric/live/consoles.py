"""What VMs printed on their consoles, line by line, for who asks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from vnet.base.errors import HostError
from vnet.hv.live import console_log
from vnet.hv.live.console_log import Start

_LOOK_S = 0.25
_LINES = 500
"""Sent together."""
_LINE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class LinesWanted:
    """`last` counts from the end, None is all. `follow` is about the current start."""

    start: Start
    last: int | None
    follow: bool


def read(
    fabric: str, vm: str, wanted: LinesWanted
) -> Callable[[asyncio.Queue[bytes | None]], Awaitable[None]]:
    """Ready to be read: what is kept, then, if that is wanted, what comes.

    Raises: HostError when nothing is kept.
    """
    reader = console_log.Reader(fabric, vm, wanted.start)
    if not reader.exists:
        raise HostError(f"of the {wanted.start} start of {vm} nothing is kept; {_why(wanted.start, vm)}")

    async def produce(blocks: asyncio.Queue[bytes | None]) -> None:
        *lines, rest = (await asyncio.to_thread(reader.more)).split(b"\n")
        if rest and not wanted.follow:
            lines.append(rest)
        await _put(blocks, lines if wanted.last is None else lines[max(0, len(lines) - wanted.last) :])
        while wanted.follow:
            await asyncio.sleep(_LOOK_S)
            *lines, rest = (rest + await asyncio.to_thread(reader.more)).split(b"\n")
            rest = rest[-_LINE_BYTES:]  # a line without an end is not kept for ever
            await _put(blocks, lines)

    return produce


def _why(start: Start, vm: str) -> str:
    if start is Start.PREVIOUS:
        return f"it was started only once: `vnet logs {vm}`"
    return f"it is kept from the next start on: `vnet start {vm}`"


async def _put(blocks: asyncio.Queue[bytes | None], lines: Sequence[bytes]) -> None:
    for begin in range(0, len(lines), _LINES):
        some = map(_text, lines[begin : begin + _LINES])
        await blocks.put("".join(f"{json.dumps({'text': text})}\n" for text in some).encode())


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r")
