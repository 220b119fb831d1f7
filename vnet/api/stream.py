"""Answers that take their time: JSON Lines of an operation, bytes of a capture.

A client that goes away breaks its operation off; so does `POST /v1/operations/ID/cancel`, after which
the client still hears what became of it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import Any

from starlette.types import Receive, Scope, Send

from vnet.api.answers import outcome_json
from vnet.base.errors import Exit, Fault, InputError, VnetError
from vnet.fabric.outcome import Outcome
from vnet.fabric.progress import Progress, Report

Json = Mapping[str, Any]
Work = Callable[[Report], Awaitable[Json]]


SUMMARIES_KEPT = 64


@dataclass(slots=True)
class Operations:
    """What runs now, by number, so that it can be broken off."""

    running: dict[str, asyncio.Task[Any]] = field(default_factory=dict)
    summaries: dict[str, Json] = field(default_factory=dict)
    """What the latest of those that have ended came to."""
    _numbers: count[int] = field(default_factory=lambda: count(1))

    def sum_up(self, number: str, summary: Json) -> None:
        """Remember what an operation came to, for who asks soon."""
        self.summaries[number] = summary
        while len(self.summaries) > SUMMARIES_KEPT:
            del self.summaries[next(iter(self.summaries))]

    def begin(self, task: asyncio.Task[Any]) -> str:
        """Remember a task until it ends."""
        number = str(next(self._numbers))
        self.running[number] = task
        task.add_done_callback(lambda _: self.running.pop(number, None))
        return number

    def cancel(self, number: str) -> bool:
        """Break one off; it undoes what it began. False when there is none of that number."""
        task = self.running.get(number)
        return task.cancel() if task else False

    async def cancel_all(self) -> None:
        """Break all off and wait until they have undone what they began."""
        tasks = list(self.running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(slots=True)
class JsonLines:
    """An ASGI answer that runs `work` and streams its progress and its end."""

    operations: Operations
    work: Work
    after: Callable[[], None] = lambda: None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        lines: asyncio.Queue[Json | None] = asyncio.Queue()
        task = asyncio.ensure_future(self._run(lines))
        leaving = asyncio.ensure_future(_gone(receive, task))
        await _begin(send, b"application/jsonl")
        lines.put_nowait({"type": "operation", "id": self.operations.begin(task)})
        try:
            while (line := await lines.get()) is not None:
                await _send(send, json.dumps(line).encode() + b"\n")
            await _send(send, b"", more=False)
        finally:
            leaving.cancel()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            self.after()

    async def _run(self, lines: asyncio.Queue[Json | None]) -> None:
        try:
            result = await self.work(lambda progress: lines.put_nowait(_told(progress)))
            lines.put_nowait({"type": "result", **result})
        except VnetError as error:
            lines.put_nowait({"type": "error", "error": error_json(error)})
        except asyncio.CancelledError:
            lines.put_nowait({"type": "error", "error": error_json(_Broken("interrupted"))})
        finally:
            lines.put_nowait(None)


class _Broken(VnetError):
    exit_code = Exit.INTERRUPTED


@dataclass(slots=True)
class Bytes:
    """An ASGI answer of bytes that `produce` puts into a bounded queue; None ends it."""

    produce: Callable[[asyncio.Queue[bytes | None]], Awaitable[None]]
    operations: Operations
    media_type: bytes
    blocks: asyncio.Queue[bytes | None]
    sums: list[Json] = field(default_factory=list)
    """`produce` leaves there what it came to, when it has ended."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.ensure_future(self._run())
        leaving = asyncio.ensure_future(_gone(receive, task))
        number = self.operations.begin(task)
        await _begin(send, self.media_type, (b"x-operation", number.encode()))
        try:
            while (block := await self.blocks.get()) is not None:
                await _send(send, block)
            for summary in self.sums:
                self.operations.sum_up(number, summary)
            await _send(send, b"", more=False)
        finally:
            leaving.cancel()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        try:
            await self.produce(self.blocks)
        finally:
            _end(self.blocks)


def _end(blocks: asyncio.Queue[bytes | None]) -> None:
    """Mark the end, at the price of one block when the reader was too slow for it."""
    if blocks.full():
        blocks.get_nowait()
    blocks.put_nowait(None)


async def _gone(receive: Receive, task: asyncio.Task[None]) -> None:
    """Break the work off when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    task.cancel()


async def _begin(send: Send, media_type: bytes, *more: tuple[bytes, bytes]) -> None:
    headers = [(b"content-type", media_type), (b"cache-control", b"no-store"), *more]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _send(send: Send, body: bytes, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


def _told(told: Progress | Outcome) -> Json:
    return {"type": "plan", **outcome_json(told)} if isinstance(told, Outcome) else _progress(told)


def _progress(progress: Progress) -> Json:
    return {
        "type": "progress",
        "step": progress.step,
        "of": progress.of or None,
        "what": progress.what,
        "status": progress.status.value,
        "elapsed_s": round(progress.elapsed_s, 3),
        "detail": progress.detail,
    }


def error_json(error: VnetError) -> Json:
    """An error as clients read it: exit code, kind, text, and the faults of an input one by one."""
    faults = error.faults if isinstance(error, InputError) else ()
    return {
        "exit": int(error.exit_code),
        "kind": type(error).__name__.strip("_"),
        "message": str(error),
        "faults": [_fault(fault) for fault in faults],
    }


def _fault(fault: Fault) -> Json:
    return {key: value for key, value in asdict(fault).items() if value}
