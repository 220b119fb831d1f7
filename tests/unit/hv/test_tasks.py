"""Work of several at a time, and work that nobody breaks off."""

from __future__ import annotations

import asyncio

import pytest

from vnet.base.errors import HostError
from vnet.hv.live.tasks import all_of, together, uninterrupted


async def fail() -> None:
    raise HostError("no")


def test_the_first_failure_breaks_off_the_others_or_lets_them_end_as_is_wished() -> None:
    async def ends(how) -> list[str]:
        done: list[str] = []

        async def other() -> None:
            await asyncio.sleep(0.01)
            done.append("other")

        with pytest.raises(HostError, match="no"):
            await how((fail(), other()))
        return done

    assert asyncio.run(ends(together)) == []
    assert asyncio.run(ends(all_of)) == ["other"]


def test_work_goes_on_to_its_end_however_often_who_waits_for_it_is_cancelled() -> None:
    async def whole() -> str:
        async def work() -> str:
            await asyncio.sleep(0.05)
            return "done"

        waiting = asyncio.create_task(uninterrupted(work()))
        for _ in range(3):
            await asyncio.sleep(0.01)
            waiting.cancel()
        return await waiting

    assert asyncio.run(whole()) == "done"


def test_what_uninterrupted_work_fails_of_is_raised() -> None:
    with pytest.raises(HostError, match="no"):
        asyncio.run(uninterrupted(fail()))
