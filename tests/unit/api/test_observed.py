"""The daemon as those see it who watch: on its socket and on TCP, where there is nothing else."""

import asyncio
import json
import socket
from collections import Counter
from contextlib import ExitStack
from http.client import HTTPConnection

import pytest

from tests.unit.fabric.fakes import World, make_engine
from tests.unit.fabric.test_engine import SMALL, source
from vnet.api import listen
from vnet.api.daemon import _serve
from vnet.base import paths
from vnet.base.errors import HostError, UsageError
from vnet.fabric.live.service import Service
from vnet.fabric.progress import silent


class Daemon:
    """One on a host in memory, asked from threads."""

    def __init__(self, engine, port):
        self.engine, self.port = engine, port

    async def tcp(self, path, method="GET"):
        return await asyncio.to_thread(self._ask, HTTPConnection("127.0.0.1", self.port, 5), path, method)

    async def unix(self, path, method="GET"):
        connection = HTTPConnection("vnetd", timeout=5)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(paths.daemon_socket()))
        return await asyncio.to_thread(self._ask, connection, path, method)

    def _ask(self, connection, path, method):
        connection.request(method, path)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, answer.headers["content-type"], text


def served(tmp_path, monkeypatch, life, notify=""):
    """Serve a fabric that is up, and live for the duration."""
    monkeypatch.setenv("VNET_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("NOTIFY_SOCKET", notify)
    (tmp_path / "run").mkdir()

    async def whole():
        with ExitStack() as opened:
            public = opened.enter_context(listen.listening("127.0.0.1", 0))
            world = World()
            engine = make_engine(world, tmp_path)
            await engine.up(source(SMALL), silent)
            daemon = Daemon(engine, public.getsockname()[1])
            serving = asyncio.ensure_future(_serve(Service(engine), False, public, Counter(warning=3)))
            async with asyncio.timeout(20):
                for _ in range(1000):
                    if paths.daemon_socket().exists():
                        break
                    await asyncio.sleep(0.01)
                await life(daemon, world)
                await daemon.unix("/v1/shutdown", "POST")
                await serving
            await engine.close()

    asyncio.run(whole())


def test_both_tell_metrics_health_and_readiness(tmp_path, monkeypatch):
    async def life(daemon, world):
        for ask in (daemon.tcp, daemon.unix):
            status, kind, text = await ask("/metrics")
            assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
            assert 'vnet_fabric_ready{fabric="small"} 1\n' in text
            assert 'vnet_log_messages_total{level="warning"} 3\n' in text
            status, _, text = await ask("/health")
            assert (status, json.loads(text)["alive"]) == (200, True)
            status, _, text = await ask("/ready")
            assert (status, json.loads(text)) == (
                200,
                {"ready": True, "fabrics": ["small"], "reasons": [], "warnings": []},
            )

    served(tmp_path, monkeypatch, life)


def test_who_is_not_ready_says_so_by_status_and_in_words(tmp_path, monkeypatch):
    async def life(daemon, world):
        def refuse():
            raise HostError("its maps are gone")

        world.asked = refuse
        await asyncio.sleep(0.3)
        status, _, text = await daemon.tcp("/ready")
        reasons = [{"fabric": "small", "why": "its maps are gone"}]
        assert (status, json.loads(text)["reasons"]) == (503, reasons)
        assert (await daemon.unix("/v1/ready"))[0] == 200
        assert (await daemon.tcp("/health"))[0] == 200
        assert 'vnet_switch_up{fabric="small"} 0\n' in (await daemon.tcp("/metrics"))[2]

    served(tmp_path, monkeypatch, life)


def test_on_tcp_there_is_nothing_else_and_nothing_to_change(tmp_path, monkeypatch):
    async def life(daemon, world):
        for path in ("/v1/version", "/v1/vms", "/v1/numbers", "/v1/ready", "/v1/events", "/"):
            assert (await daemon.tcp(path))[0] == 404
        assert (await daemon.tcp("/v1/shutdown", "POST"))[0] == 404
        for path in ("/metrics", "/ready", "/health"):
            assert (await daemon.tcp(path, "POST"))[0] == 405

    served(tmp_path, monkeypatch, life)


def test_a_service_manager_is_told_when_it_serves_and_when_it_ends(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)

        async def life(daemon, world):
            told = await asyncio.to_thread(manager.recv, 4096)
            assert told == b"READY=1\nSTATUS=serves small"
            assert (await daemon.unix("/health"))[0] == 200

        served(tmp_path, monkeypatch, life, str(tmp_path / "notify"))
        assert manager.recv(4096) == b"STOPPING=1"


@pytest.mark.parametrize(
    ("text", "found"),
    [("127.0.0.1:9464", ("127.0.0.1", 9464)), ("[::1]:1", ("::1", 1)), ("localhost:0", ("localhost", 0))],
)
def test_addresses_are_host_and_port(text, found):
    assert listen.parse(text) == found


@pytest.mark.parametrize(
    "text", ["", "9464", ":9464", "127.0.0.1", "127.0.0.1:70000", "::1:9464", "a b:1", "a:1x"]
)
def test_what_is_no_address_is_refused_with_an_example(text):
    with pytest.raises(UsageError, match=r"127\.0\.0\.1:9464"):
        listen.parse(text)


def test_an_address_that_is_taken_is_refused_in_words():
    with listen.listening("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(
            HostError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"
        ):
            listen.listening("127.0.0.1", port)
