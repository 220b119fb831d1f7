"""What happens is seen as it happens: real packets between namespaces, what `ct` and `fdb` say of them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.net.fabric_lab import host
from tests.net.test_policy_log import TEXT, Lab, knock, living, send
from vnet.base.errors import InputError
from vnet.fabric.live import seeing
from vnet.fabric.tracked import Wanted


@pytest.fixture
def directory() -> Iterator[Path]:
    with host() as made:
        yield made


def opened(lab: Lab, port: int) -> tuple[socket.socket, socket.socket]:
    """A TCP connection from a to b that stays open, 1000 bytes sent and 10 answered."""
    with lab.guests["b"].socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((lab.guests["b"].address, port))
        listener.listen()
        client = lab.guests["a"].socket()
        client.connect((lab.guests["b"].address, port))
        server, _ = listener.accept()
    client.sendall(bytes(1000))
    assert len(server.recv(1000, socket.MSG_WAITALL)) == 1000
    server.sendall(bytes(10))
    assert len(client.recv(10)) == 10
    return client, server


async def table(lab: Lab, **wanted: Any) -> Any:
    return await seeing.connections(lab.engine, "small", Wanted(**wanted))


def test_a_connection_tells_its_ends_its_bytes_and_the_rule_that_lets_it(directory: Path) -> None:
    async def life(lab: Lab) -> None:
        client, server = await asyncio.to_thread(opened, lab, 81)
        with client, server:
            answer = await table(lab)
            assert (answer["total"], answer["cut"]) == (1, False)
            (row,) = answer["connections"]
            assert (row["client"], row["client_address"]) == ("a.eth0", lab.guests["a"].address)
            assert (row["server"], row["server_port"]) == ("b.eth0", 81)
            assert row["client_port"] == client.getsockname()[1]
            assert (row["network"], row["protocol"], row["state"]) == ("lan", "tcp", "established")
            # headers of 66 bytes and more: what `ip -s link` counts, not what the socket does
            assert 1000 + 3 * 66 <= row["bytes"][0] < 1500 and 10 + 66 < row["bytes"][1] < 500
            assert (row["verdict"], row["policy"], row["rule"]) == ("allowed", "b-from-a", "ingress 2")
            assert row["at"] == "small.vnet.yaml:12" and row["mark"] == 1
            assert 0 <= row["idle_s"] <= row["age_s"] < 30
        for _ in range(100):
            (row,) = (await table(lab))["connections"]
            if row["state"] == "time-wait":
                break
            await asyncio.sleep(0.05)
        assert row["state"] == "time-wait"

    living(directory, life)


def test_connections_are_chosen_by_end_server_port_and_state(directory: Path) -> None:
    async def life(lab: Lab) -> None:
        client, server = await asyncio.to_thread(opened, lab, 80)
        with client, server:
            await asyncio.to_thread(send, lab, 53, 3)
            assert await asyncio.to_thread(knock, lab, 23) != "open"
            ports = [row["server_port"] for row in (await table(lab))["connections"]]
            assert ports == [80, 53], "most bytes first; what was denied is no connection"
            for wanted, count in (
                ({"who": "a"}, 2),
                ({"who": "b.eth0"}, 2),
                ({"to": "a"}, 0),
                ({"to": "b", "port": 53}, 1),
                ({"state": "established"}, 1),
                ({"limit": 1}, 2),
            ):
                answer = await table(lab, **wanted)
                assert answer["total"] == count, wanted
            assert answer["cut"] and [row["server_port"] for row in answer["connections"]] == [80]
            with pytest.raises(InputError, match="no VM or NIC c"):
                await table(lab, who="c")

    living(directory, life)


def test_a_connection_that_no_rule_lets_pass_any_more_says_so(directory: Path) -> None:
    async def life(lab: Lab) -> None:
        from vnet.fabric.progress import silent
        from vnet.fabric.store import Source

        client, server = await asyncio.to_thread(opened, lab, 81)
        with client, server:
            text = TEXT.replace("ports: [81/tcp]}", "ports: [82/tcp]}")
            await lab.engine.up(Source("small.vnet.yaml", text), silent)
            (row,) = (await table(lab))["connections"]
            assert (row["verdict"], row["rule"]) == ("cut", "ingress 5")

    living(directory, life)


def test_declared_addresses_are_in_the_mac_table(directory: Path) -> None:
    async def life(lab: Lab) -> None:
        rows = await seeing.addresses(lab.engine, "small", None)
        assert [(row["network"], row["vlan"], row["nic"], row["kind"]) for row in rows] == [
            ("lan", 10, "a.eth0", "declared"),
            ("lan", 10, "b.eth0", "declared"),
        ]
        with pytest.raises(InputError, match="no network x"):
            await seeing.addresses(lab.engine, "small", "x")

    living(directory, life)
