"""A thread's result is neither lost nor used when who waits for it is broken off."""

from __future__ import annotations

import asyncio
import threading

import pytest

from vnet.hv.live.threads import finished, kept


def test_what_a_thread_opened_for_a_caller_that_was_cancelled_is_given_back() -> None:
    going, go_on, dropped = threading.Event(), threading.Event(), list[int]()

    def work() -> int:
        going.set()
        go_on.wait(10)
        return 7

    async def whole() -> None:
        task = asyncio.ensure_future(kept(dropped.append, work))
        await asyncio.to_thread(going.wait, 10)
        for _ in range(2):  # twice in a row, too
            task.cancel()
            await asyncio.sleep(0.01)
        assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(whole())
    assert dropped == [7]


def test_results_and_errors_come_through() -> None:
    def work(number: int, *, fails: bool) -> int:
        if fails:
            raise ValueError(number)
        return number

    async def whole() -> None:
        assert await kept(pytest.fail, work, 3, fails=False) == 3  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="4"):
            await finished(work, 4, fails=True)

    asyncio.run(whole())
