"""Runs a capture: reads records as they come, writes what the recorder makes of them, knows when to stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from vnet.base.errors import HostError
from vnet.capture.live.sink import Sink
from vnet.capture.record import PacketRecord
from vnet.capture.recorder import Recorder, Totals


@dataclass(frozen=True, slots=True)
class Lost:
    """The source could not keep so many packets, for instance because its ring buffer was full."""

    packets: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a capture ended. With an error the file holds what `totals.kept` says, whole."""

    totals: Totals
    error: HostError | None


Source = AsyncIterator[PacketRecord | Lost]


async def blocks(source: Source, recorder: Recorder) -> AsyncIterator[bytes]:
    """The output of a capture but for its trailer, for a consumer that asks for one piece after the other.

    A packet counts as kept when the consumer asks for the next piece. When it stops asking, the
    source is left as it is; the caller closes it.
    """
    recorder.start_s = time.monotonic()
    yield recorder.encoder.header()
    async for item in _items(source, recorder):
        if isinstance(item, Lost):
            recorder.lost(item.packets)
        else:
            yield recorder.take(item)
            recorder.kept(item)


async def run(
    source: Source, recorder: Recorder, sink: Sink, report: Callable[[str], None] = lambda _: None
) -> Outcome:
    """Capture until the source ends, a limit is reached, the reader has gone or the task is cancelled.

    Cancelling (Ctrl-C) ends the output properly and then goes on as a cancellation.

    Args:
        source: records and losses, in the order they happened.
        report: told once, at once, of the first failure to write.
    """
    recorder.start_s = time.monotonic()
    try:
        if sink.write(recorder.encoder.header()):
            await _write_all(source, recorder, sink, report)
    finally:
        if not sink.closed_by_reader:
            sink.write(recorder.encoder.trailer(time.time_ns()))
        sink.close()
    return Outcome(recorder.totals, sink.error)


async def _write_all(source: Source, recorder: Recorder, sink: Sink, report: Callable[[str], None]) -> None:
    told = False
    async for item in _items(source, recorder):
        _keep(item, recorder, sink)
        if sink.error and not told:
            told = True
            report(f"{sink.error}; packets are lost until there is room")
        if sink.closed_by_reader:
            return


async def _items(source: Source, recorder: Recorder) -> Source:
    """What the source gives until a limit is reached; waiting for it is bounded by the duration."""
    loop = asyncio.get_running_loop()
    duration_s = recorder.limits.duration_s
    deadline = None if duration_s is None else loop.time() + duration_s
    while not recorder.done(time.monotonic()):
        try:
            async with asyncio.timeout_at(deadline):
                item = await anext(source)
        except (StopAsyncIteration, TimeoutError):
            return
        yield item


def _keep(item: PacketRecord | Lost, recorder: Recorder, sink: Sink) -> None:
    if isinstance(item, Lost):
        recorder.lost(item.packets)
        return
    if sink.write(recorder.take(item)):
        recorder.kept(item)
    else:
        recorder.lost(1)
