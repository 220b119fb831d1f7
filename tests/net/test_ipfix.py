"""Flow records arrive at a collector of other people's: nfcapd takes them, nfdump tells them."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.net.fabric_lab import host
from tests.net.test_history import Watched
from tests.net.test_policy_log import knock, send, talk
from vnet.fabric.live import ipfix


@pytest.fixture
def directory() -> Iterator[Path]:
    with host() as made:
        yield made


@contextmanager
def nfcapd(directory: Path) -> Iterator[int]:
    """A collector on a free port, which it gives; it writes what came when it ends."""
    found = shutil.which("nfcapd")
    assert found, "nfdump is missing: tools/setup.sh test"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [found, "-w", str(directory), "-p", str(port), "-b", "127.0.0.1", "-t", "3600"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        try:
            _await_listener(port)
            yield port
        finally:
            child.terminate()
            child.wait(20)


def _await_listener(port: int) -> None:
    wanted = f":{port:04X} "
    for _ in range(200):
        if wanted in Path("/proc/net/udp").read_text():
            return
        subprocess.run(["sleep", "0.05"], check=True)
    raise AssertionError("nfcapd does not listen")


def told(directory: Path) -> list[dict[str, Any]]:
    """What the collector's own tool says of it."""
    command = ["nfdump", "-R", str(directory), "-o", "json", "-q"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found, at, decoder = [], text.find("{"), json.JSONDecoder()
    while at >= 0:
        record, end = decoder.raw_decode(text, at)
        found.append(record)
        at = text.find("{", end)
    return found


class Exporting(Watched):
    """A lab whose flows are sent to a collector."""

    port = 0

    def prepare(self) -> None:
        self.sender = ipfix.Sender("127.0.0.1", self.port)
        self.exports: list[ipfix.Export] = []
        self.observers.begun.append(lambda each: self.exports.append(ipfix.export(self.sender, each)))


def test_a_collector_tells_flows_and_drops_as_they_were(directory: Path) -> None:
    collected, addresses = directory / "collected", {}
    collected.mkdir()
    client_port = 0

    async def whole(port: int) -> None:
        nonlocal client_port
        lab = Exporting(directory)
        lab.port = port
        try:
            await lab.begin()
            addresses.update({name: guest.address for name, guest in lab.guests.items()})
            await lab.look()
            client_port = await asyncio.to_thread(talk, lab, 80)
            await asyncio.to_thread(send, lab, 53, 4)
            await asyncio.to_thread(knock, lab, 23)
            await lab.observers.settle("small")
            assert [each.unsent for each in lab.exports] == [0]
        finally:
            await lab.look_away()
            await lab.end()

    with nfcapd(collected) as port:
        asyncio.run(whole(port))
    a, b = addresses["a"], addresses["b"]
    records = told(collected)
    flows = {
        (
            each.get("src4_addr"),
            each["src_port"],
            each.get("dst4_addr"),
            each["dst_port"],
            each["proto"],
        ): each
        for each in records
    }
    out, back = flows[a, client_port, b, 80, 6], flows[b, 80, a, client_port, 6]
    assert out["in_packets"] > 20 and out["in_bytes"] > 20 * 66 and back["in_packets"] > 20
    assert out["input_snmp"] == back["output_snmp"] != out["output_snmp"] == back["input_snmp"]
    (query,) = [each for key, each in flows.items() if key[3:] == (53, 17)]
    assert query["in_packets"] == 4
    (denied,) = [each for key, each in flows.items() if key[3:] == (23, 6)]
    assert (denied["output_snmp"], denied["tcp_flags"]) == (0, "......S."), "it went nowhere"
    assert denied["in_packets"] >= 1 and out["src_vlan"] == denied["src_vlan"] == 10


def test_a_collector_that_is_not_there_costs_nothing(directory: Path) -> None:
    async def whole() -> None:
        lab = Exporting(directory)
        lab.port = 9
        try:
            await lab.begin()
            await lab.look()
            await asyncio.to_thread(talk, lab, 80)
            await lab.observers.settle("small")
            assert [one.port for one in await lab.seen() if one.protocol == 6] == [80]
        finally:
            await lab.look_away()
            await lab.end()

    asyncio.run(whole())
