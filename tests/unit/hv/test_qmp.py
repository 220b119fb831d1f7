"""The connection to QEMU's monitor, against a peer that plays one."""

from __future__ import annotations

import asyncio
import json

import pytest

from vnet.base.errors import PeerError
from vnet.hv.live import qmp
from vnet.hv.live.qmp import Monitor

GREETING = {
    "QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": []}
}


def connected(place, silent: int, timeout_s: float) -> int:
    """Connects to one that says nothing to the first ones. Returns how many connections that took."""

    async def test() -> int:
        met = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal met
            met += 1
            if met > silent:
                writer.write(json.dumps(GREETING).encode() + b"\n")
                await reader.read(1000)
                writer.write(b'{"return": {}}\n')
            await reader.read()
            writer.close()

        async with await asyncio.start_unix_server(serve, place):
            monitor = await Monitor.connect(place, alive=lambda: True, timeout_s=timeout_s)
            await monitor.close()
        return met

    return asyncio.run(test())


def test_one_that_says_nothing_is_asked_again(tmp_path, monkeypatch):
    monkeypatch.setattr(qmp, "_GREETING_S", 0.5)
    assert connected(tmp_path / "qmp.sock", silent=1, timeout_s=30) >= 2


def test_one_that_never_greets_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(qmp, "_GREETING_S", 0.1)
    with pytest.raises(PeerError, match=r"did not greet on .*qmp.sock within 0"):
        connected(tmp_path / "qmp.sock", silent=99, timeout_s=0.3)
