"""The server on its socket: who may open it, stale sockets, floods, TCP, adoption."""

from __future__ import annotations

import asyncio
import socket
import stat
import threading
import time

import pytest

from tests.fakes.memory_datapath import MemoryDatapath
from tests.wire.peer import Peer
from vnet.base.errors import AdmissionError
from vnet.openflow.codec import encode
from vnet.openflow.flow import Flow, Instructions, Output, match
from vnet.openflow.group import Band, BandType, Bucket, Group, GroupType, Meter, MeterFlag
from vnet.openflow.message import (
    BarrierReply,
    BarrierRequest,
    DescReply,
    DescRequest,
    EchoReply,
    EchoRequest,
    FlowCommand,
    FlowMod,
    FlowStatsReply,
    FlowStatsRequest,
    GroupDescReply,
    GroupDescRequest,
    MeterConfigReply,
    MeterConfigRequest,
)
from vnet.switch.address import parse
from vnet.switch.live.server import SwitchServer


@pytest.fixture
def peer(switch):
    peer = Peer.calls(str(switch.path))
    yield peer
    peer.close()


def test_only_the_owner_may_open_the_socket(switch):
    assert stat.S_IMODE(switch.path.stat().st_mode) == 0o600


def test_a_socket_somebody_listens_on_is_left_alone(switch):
    async def second() -> None:
        server = SwitchServer(MemoryDatapath(), "second", 1)
        try:
            with pytest.raises(AdmissionError, match="another process listens"):
                await server.start(switch.path)
        finally:
            await server.stop()

    asyncio.run(second())
    assert switch.ofctl("probe").code == 0


def test_a_stale_socket_is_replaced_and_removed_at_the_end(tmp_path):
    path = tmp_path / "switch.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()

    async def start() -> None:
        server = SwitchServer(MemoryDatapath(), "lab", 1)
        await server.start(path)
        await asyncio.open_unix_connection(str(path))
        await server.stop()

    asyncio.run(start())
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_a_socket_is_never_removed(tmp_path):
    path = tmp_path / "switch.sock"
    path.write_text("precious")

    async def start() -> None:
        server = SwitchServer(MemoryDatapath(), "lab", 1)
        try:
            with pytest.raises(AdmissionError, match="not a socket"):
                await server.start(path)
        finally:
            await server.stop()

    asyncio.run(start())
    assert path.read_text() == "precious"


def test_flows_found_in_force_are_kept_and_told(tmp_path):
    kept = Flow(0, 5, match(eth_type=0x800), Instructions(apply=(Output(1),)), 0x76)
    datapath = MemoryDatapath(flows=(kept,))

    async def talk() -> list:
        server = SwitchServer(datapath, "lab", 1)
        where = await server.listen(parse("ptcp:0:127.0.0.1"))
        peer = await asyncio.to_thread(Peer.calls, (where.host, where.port))
        peer.send(encode(FlowStatsRequest(), 5))
        _, reply = await asyncio.to_thread(peer.next)
        peer.close()
        await server.stop()
        return [stats.flow for stats in reply.flows]

    assert asyncio.run(talk()) == [kept]
    assert datapath.changes == []


def test_groups_and_meters_found_in_force_are_kept_and_told():
    datapath = MemoryDatapath()
    group = Group(7, GroupType.ALL, (Bucket((Output(1),)),))
    meter = Meter(5, MeterFlag.KBPS, (Band(BandType.DROP, 9),))
    datapath.group_table, datapath.meter_table = {7: group}, {5: meter}

    async def talk() -> list:
        server = SwitchServer(datapath, "lab", 1)
        places = [server.listen(parse("ptcp:0:127.0.0.1")) for _ in range(2)]  # one agent for both
        where = [(place.host, place.port) for place in await asyncio.gather(*places)]
        peers = [await asyncio.to_thread(Peer.calls, each) for each in where]
        answers = [
            await asyncio.to_thread(peer.asks, question)
            for peer, question in zip(peers, (GroupDescRequest(), MeterConfigRequest()), strict=True)
        ]
        for peer in peers:
            peer.close()
        await server.stop()
        return answers

    assert asyncio.run(talk()) == [GroupDescReply((group,)), MeterConfigReply((meter,))]
    assert datapath.changes == []


def test_a_connection_that_sends_rubbish_is_closed_and_the_others_go_on(switch, peer):
    rude = socket.socket(socket.AF_UNIX)
    rude.settimeout(10)
    rude.connect(str(switch.path))
    rude.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
    while rude.recv(65536):
        pass
    peer.send(encode(BarrierRequest(), 3))
    assert peer.next() == (3, BarrierReply())


def test_echoes_are_answered_while_a_commit_runs(switch, peer):
    commit, going = switch.datapath.commit, threading.Event()

    def slowly(change) -> None:
        going.set()
        time.sleep(1.0)
        commit(change)

    switch.datapath.commit = slowly
    peer.send(encode(FlowMod(FlowCommand.ADD, Flow(0, 1)), 2) + encode(BarrierRequest(), 3))
    assert going.wait(10)
    peer.send(encode(EchoRequest(b"x"), 4))
    assert peer.next() == (4, EchoReply(b"x"))
    assert peer.next() == (3, BarrierReply())
    assert switch.datapath.installed


def test_a_flood_does_not_starve_another_controller(switch, peer):
    flood = b"".join(
        encode(FlowMod(FlowCommand.ADD, Flow(1, n, match(eth_type=0x800, ipv4_src=n))), n)
        for n in range(5000)
    )
    other = Peer.calls(str(switch.path))
    sender = threading.Thread(target=peer.send, args=(flood + encode(BarrierRequest(), 9),))
    sender.start()
    slowest = 0.0
    for xid in range(20):
        before = time.monotonic()
        other.send(encode(DescRequest(), xid))
        got, reply = other.next()
        slowest = max(slowest, time.monotonic() - before)
        assert (got, type(reply)) == (xid, DescReply)
    sender.join(30)
    assert peer.next() == (9, BarrierReply())
    assert len(switch.datapath.installed) == 5000
    assert slowest < 2.0
    other.close()


def test_a_peer_that_reads_late_gets_every_flow(switch, peer):
    mods = [FlowMod(FlowCommand.ADD, Flow(1, n, match(eth_type=0x800, ipv4_src=n))) for n in range(20000)]
    peer.send(b"".join(encode(mod, 1) for mod in mods) + encode(FlowStatsRequest(), 7))
    time.sleep(1)
    flows, more = 0, True
    while more:
        xid, reply = peer.next()
        assert isinstance(reply, FlowStatsReply)
        assert xid == 7
        flows, more = flows + len(reply.flows), reply.more
    assert flows == 20000


def test_stopping_amid_a_flood_finishes_what_runs_and_logs_no_error(tmp_path, caplog):
    datapath = MemoryDatapath()
    commit, path = datapath.commit, tmp_path / "switch.sock"

    def slowly(change) -> None:
        time.sleep(0.2)
        commit(change)

    datapath.commit = slowly

    async def flood() -> None:
        server = SwitchServer(datapath, "lab", 1)
        await server.start(path)
        peer = await asyncio.to_thread(Peer.calls, str(path))
        for n in range(5):
            peer.send(encode(FlowMod(FlowCommand.ADD, Flow(0, n)), n) + encode(BarrierRequest(), n))
        await asyncio.sleep(0.1)
        await server.stop()
        peer.close()

    asyncio.run(flood())
    assert len(datapath.changes) == 1
    assert not caplog.records
