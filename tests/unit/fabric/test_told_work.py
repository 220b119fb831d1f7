"""Work in a thread that is broken off where it tells how far it is."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from vnet.fabric.live.told_work import worked


def test_work_that_is_broken_off_has_ended_and_nobody_misses_its_word():
    begun, cleared, missed = threading.Event(), [], []

    def work(tell) -> None:
        try:
            while True:
                begun.set()
                tell("on its way")
        finally:
            cleared.append(True)

    async def interrupted() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: missed.append(context["message"]))
        task = asyncio.create_task(worked(work, lambda text: None))
        await asyncio.to_thread(begun.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cleared == [True]
        del task
        gc.collect()

    asyncio.run(interrupted())
    assert missed == []


def test_what_was_done_when_it_was_broken_off_is_done():
    begun, goes_on = threading.Event(), threading.Event()

    def work(tell) -> str:
        begun.set()
        goes_on.wait()
        return "moved"

    async def interrupted() -> str:
        task = asyncio.create_task(worked(work, lambda text: None))
        await asyncio.to_thread(begun.wait)
        task.cancel()
        await asyncio.sleep(0)
        goes_on.set()
        return await task

    assert asyncio.run(interrupted()) == "moved"
