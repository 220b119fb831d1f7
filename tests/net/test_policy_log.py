"""`log: true` end to end: guests with stacks of their own, real packets, the log that comes of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from select import select
from typing import Any

import pytest

from tests.bpf.bench import sh
from tests.net.fabric_lab import NETNS, PREFIX, host, make_engine
from tests.unit.fabric.fakes import World
from vnet.base.errors import InputError
from vnet.fabric.live import keeper
from vnet.fabric.live.engine import Engine
from vnet.fabric.live.service import Service
from vnet.fabric.progress import silent
from vnet.fabric.store import Source
from vnet.switch.live import ports
from vnet.switch.live.netns import inside

Record = dict[str, Any]

TEXT = """\
name: small
networks:
  lan: {vlan: 10, subnets: 10.0.0.0/24}
vms:
  a: {networks: [lan], groups: [a]}
  b: {networks: [lan], groups: [b]}
policies:
  - name: b-from-a
    applied_to: b
    ingress:
      - {from: a, ports: [80/tcp, 53/udp], log: true}
      - {from: a, ports: [81/tcp]}
      - {from: a, ports: [22/tcp], action: reject, log: true}
      - {from: a, ports: [23/tcp], action: deny}
      - {from: a, action: deny, log: true}
"""
AUDITED = TEXT.replace("applied_to: b\n", "applied_to: b\n    enforcement: audit\n")
ALLOW, REJECT, DENY = "ingress 1", "ingress 3", "ingress 5"
PATIENCE_S = 15


class Guest:
    """A namespace whose eth0 is joined to a NIC of the fabric, as QEMU joins a VM's."""

    def __init__(self, name: str, mac: int, address: str) -> None:
        self.netns, self.address = f"{PREFIX}guest-{name}", address
        sh(f"ip netns add {self.netns}")
        with inside(self.netns):
            ports.silence()
            ports.create_tap("eth0")
            own = ports.open_tap("eth0")
        with inside(NETNS):
            other = ports.open_tap(f"{name}.eth0")
        sh(f"ip -n {self.netns} link set eth0 address {mac.to_bytes(6, 'big').hex(':')}")
        sh(f"ip -n {self.netns} addr add {address}/24 dev eth0")
        self._pair, self._stop, self._idle = (own, other), threading.Event(), threading.Event()
        self._relay = threading.Thread(target=self._carry)
        self._relay.start()

    def _carry(self) -> None:
        own, other = self._pair
        while not self._stop.is_set():
            ready = select(self._pair, (), (), 0.1)[0]
            if not ready:
                self._idle.set()
            for fd in ready:
                with contextlib.suppress(OSError):  # nothing to read any more, or the NIC is gone
                    os.write(other if fd == own else own, os.read(fd, 65600))

    def carried(self) -> None:
        """Wait until all that it has sent is in the switch: twice, as the first look may be an older one."""
        for _ in range(2):
            self._idle.clear()
            assert self._idle.wait(PATIENCE_S)

    def socket(self, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        with inside(self.netns):
            made = socket.socket(socket.AF_INET, kind)
        made.settimeout(5)
        return made

    def close(self) -> None:
        self._stop.set()
        self._relay.join()
        for fd in self._pair:
            os.close(fd)
        sh(f"ip netns del {self.netns}")


class Lab:
    """The fabric of TEXT with its two guests, and a daemon that keeps its log."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.engine: Engine = make_engine(directory, World())
        self.guests: dict[str, Guest] = {}
        self.keeping: asyncio.Task[None] | None = None

    async def begin(self, text: str = TEXT) -> None:
        await self.engine.up(Source("small.vnet.yaml", text), silent)
        declared = self.engine.fabric("small").declared
        assert declared is not None
        for nic in declared.inventory.nics:
            made = await asyncio.to_thread(Guest, nic.vm, nic.mac, str(nic.addresses[0].ip))
            self.guests[nic.vm] = made
        self.keeping = asyncio.ensure_future(keeper.keep(self.engine))

    async def end(self) -> None:
        if self.keeping:
            self.keeping.cancel()
        for guest in self.guests.values():
            guest.close()
        await self.engine.down("small", silent)
        await self.engine.close()

    def log(self) -> list[Record]:
        return [json.loads(line) for line in self.engine.fabric("small").parts.log.snapshot()]

    async def carried(self) -> None:
        """Wait until all that guests have sent is in the switch."""
        for guest in self.guests.values():
            await asyncio.to_thread(guest.carried)

    async def met(self) -> int:
        """Packets for the log that reached the switch: a guest that sends too fast loses some before."""
        await self.carried()
        counted = await self.engine.fabric("small").parts.switch.logged_counts()
        assert counted is not None
        return sum(counted.values())

    async def until(self, holds: Callable[[list[Record]], bool]) -> list[Record]:
        for _ in range(10 * PATIENCE_S):
            if holds(self.log()):
                break
            await asyncio.sleep(0.1)
        await asyncio.sleep(3 * keeper.TURN_S)  # more than enough must not come either
        found = self.log()
        assert holds(found), found
        return found


@pytest.fixture
def directory() -> Iterator[Path]:
    with host() as made:
        yield made


def living(directory: Path, life: Callable[[Lab], Awaitable[None]], text: str = TEXT) -> None:
    async def whole() -> None:
        lab = Lab(directory)
        try:
            await lab.begin(text)
            await life(lab)
        finally:
            await lab.end()

    asyncio.run(whole())


def talk(lab: Lab, port: int) -> int:
    """A whole connection with data both ways; the client's port."""
    with lab.guests["b"].socket() as listener, lab.guests["a"].socket() as client:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((lab.guests["b"].address, port))
        listener.listen()
        client.connect((lab.guests["b"].address, port))
        server, _ = listener.accept()
        with server:
            for _ in range(20):
                client.send(b"there")
                assert server.recv(64)
                server.send(b"back")
                assert client.recv(64)
            return int(client.getsockname()[1])


def knock(lab: Lab, port: int) -> str:
    with lab.guests["a"].socket() as client:
        client.settimeout(0.5)
        try:
            client.connect((lab.guests["b"].address, port))
        except OSError as error:
            return type(error).__name__
    return "open"


def send(lab: Lab, port: int, datagrams: int, pause_s: float = 0.0) -> None:
    with lab.guests["a"].socket(socket.SOCK_DGRAM) as one:
        for _ in range(datagrams):
            one.sendto(b"x", (lab.guests["b"].address, port))
            time.sleep(pause_s)


def open_many(lab: Lab, port: int, connections: int) -> None:
    client, server = lab.guests["a"], lab.guests["b"]
    for number in range(connections):
        with client.socket(socket.SOCK_DGRAM) as one:
            one.bind((client.address, 10_000 + number))
            one.sendto(b"x", (server.address, port))


def rules(records: list[Record]) -> list[str]:
    return [record["rule"] for record in records]


def packets(records: list[Record], rule: str) -> int:
    return sum(record["count"] for record in records if record["rule"] == rule)


def test_an_allowed_connection_gives_exactly_one_record(directory: Path) -> None:
    async def life(lab: Lab) -> None:
        port = await asyncio.to_thread(talk, lab, 80)
        await asyncio.to_thread(talk, lab, 81)
        (record,) = await lab.until(lambda records: len(records) == 1)
        assert record.pop("time")
        assert record == {
            "verdict": "allow",
            "policy": "b-from-a",
            "rule": ALLOW,
            "at": "small.vnet.yaml:11",
            "text": "allow from a ports 80/tcp, 53/udp",
            "client": "a",
            "client_address": lab.guests["a"].address,
            "client_port": port,
            "server": "b",
            "server_address": lab.guests["b"].address,
            "server_port": 80,
            "protocol": "tcp",
            "icmp_type": None,
            "reply": False,
            "count": 1,
            "lost": False,
        }

    living(directory, life)


def test_datagrams_that_nobody_answers_are_one_connection(directory: Path) -> None:
    async def life(lab: Lab) -> None:
        await asyncio.to_thread(send, lab, 53, 50)
        assert rules(await lab.until(lambda records: len(records) == 1)) == [ALLOW]

    living(directory, life)


def test_refused_packets_are_told_and_those_without_log_are_not(directory: Path) -> None:
    async def life(lab: Lab) -> None:
        assert await asyncio.to_thread(knock, lab, 22) == "ConnectionRefusedError"
        assert await asyncio.to_thread(knock, lab, 23) == "TimeoutError"
        assert await asyncio.to_thread(knock, lab, 24) == "TimeoutError"
        found = await lab.until(lambda records: len(records) == 2)
        assert [(record["verdict"], record["rule"], record["server_port"]) for record in found] == [
            ("reject", REJECT, 22),
            ("deny", DENY, 24),
        ]

    living(directory, life)


def test_a_flood_is_summed_up_and_every_packet_of_it_is_counted(directory: Path) -> None:
    async def life(lab: Lab) -> None:
        await asyncio.to_thread(send, lab, 99, 3000, 0.0004)
        met = await lab.met()
        found = await lab.until(lambda records: packets(records, DENY) >= met)
        assert packets(found, DENY) == met > 2000
        assert len(found) < 200
        assert {record["rule"] for record in found} == {DENY}
        assert any(record["count"] > 1 for record in found)

    living(directory, life)


def test_every_one_of_many_new_connections_is_counted(directory: Path) -> None:
    """Some are more than the switch reports; of these it is known that some rule allowed them."""

    async def life(lab: Lab) -> None:
        await asyncio.to_thread(open_many, lab, 53, 2000)
        met = await lab.met()
        assert met > await lab.engine.fabric("small").parts.switch.unreported() > 0
        found = await lab.until(lambda records: sum(record["count"] for record in records) >= met)
        assert sum(record["count"] for record in found) == met
        assert {record["verdict"] for record in found} == {"allow"}
        assert {record["rule"] for record in found} == {ALLOW, None}
        assert all(record["lost"] for record in found if record["rule"] is None)

    living(directory, life)


def test_what_is_audited_is_told_as_what_would_be_refused(directory: Path) -> None:
    async def life(lab: Lab) -> None:
        await asyncio.to_thread(talk, lab, 24)
        (record,) = await lab.until(lambda records: len(records) == 1)
        assert (record["verdict"], record["rule"]) == ("audit", DENY)

    living(directory, life, AUDITED)


def test_a_new_daemon_tells_what_was_not_told_while_none_ran(directory: Path) -> None:
    async def life(lab: Lab) -> None:
        await asyncio.to_thread(knock, lab, 24)
        await lab.until(lambda records: len(records) == 1)
        assert lab.keeping
        lab.keeping.cancel()
        await lab.engine.close()
        await asyncio.to_thread(send, lab, 99, 2000, 0.0002)
        lab.engine = make_engine(directory, World())
        await lab.engine.adopt()
        lab.keeping = asyncio.ensure_future(keeper.keep(lab.engine))
        met = await lab.met()
        found = await lab.until(lambda records: packets(records, DENY) >= met)
        assert packets(found, DENY) == met > 1000
        assert not any(record["count"] is None for record in found)

    living(directory, life)


def test_who_follows_reads_what_is_kept_and_what_comes(directory: Path) -> None:
    async def life(lab: Lab) -> None:
        await asyncio.to_thread(knock, lab, 24)
        await lab.until(lambda records: len(records) == 1)
        blocks: asyncio.Queue[bytes | None] = asyncio.Queue()
        produce = Service(lab.engine).policy_log("small", None, None, True)
        task = asyncio.ensure_future(produce(blocks))
        first = await asyncio.wait_for(blocks.get(), 5)
        await asyncio.to_thread(knock, lab, 25)
        second = await asyncio.wait_for(blocks.get(), 5)
        task.cancel()
        assert first is not None
        assert second is not None
        assert [json.loads(line)["server_port"] for line in (first + second).splitlines()] == [24, 25]

    living(directory, life)


def test_the_log_outlives_its_fabric(directory: Path) -> None:
    async def life(lab: Lab) -> None:
        await asyncio.to_thread(knock, lab, 24)
        await lab.until(lambda records: len(records) == 1)
        await lab.engine.down("small", silent)
        blocks: asyncio.Queue[bytes | None] = asyncio.Queue()
        await Service(lab.engine).policy_log("small", None, None, True)(blocks)
        block = blocks.get_nowait()
        assert block is not None
        assert [json.loads(line)["rule"] for line in block.splitlines()] == [DENY]
        with pytest.raises(InputError, match="no fabric"):
            Service(lab.engine).policy_log("../small", None, None, False)

    living(directory, life)
