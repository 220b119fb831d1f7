"""The keeper of the logs goes on, whatever happens to one of them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from vnet.fabric.live import keeper


@pytest.mark.parametrize("step", ["turn", "settle"])
def test_a_bug_met_in_one_fabric_does_not_end_the_logs_of_the_others(
    monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    fabrics = {name: SimpleNamespace(record=SimpleNamespace(name=name)) for name in ("broken", "well")}
    met = []

    def turn(fabric: Any) -> None:
        met.append(fabric.record.name)
        if step == "turn" and fabric is fabrics["broken"]:
            raise RuntimeError("a bug")

    async def settle(fabric: Any) -> None:
        met.append(fabric.record.name)
        if step == "settle" and fabric is fabrics["broken"]:
            raise RuntimeError("a bug")

    for name, value in (("TURN_S", 0), ("SETTLE_S", 0), ("turn", turn), ("settle", settle)):
        monkeypatch.setattr(keeper, name, value)

    async def for_a_while() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await keeper.keep(SimpleNamespace(fabrics=fabrics))  # type: ignore[arg-type]

    asyncio.run(for_a_while())
    assert met.count("well") > 4
    assert met.count("broken") > 4
