"""What a service manager is told, and what it is not."""

import asyncio
import os
import re
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from vnet.api.notify import Notifier

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    name = str(tmp_path / "notify") if request.param == "path" else f"@vnet-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0"))
        listener.settimeout(5)
        yield name, listener


def test_what_is_told_arrives_as_one_message(manager):
    name, listener = manager
    Notifier({"NOTIFY_SOCKET": name}).tell("READY=1", "STATUS=serves small")
    assert listener.recv(4096) == b"READY=1\nSTATUS=serves small"


def test_signs_of_life_come_twice_as_often_as_is_asked_for(manager):
    name, listener = manager
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "200000", "WATCHDOG_PID": str(os.getpid())})
    assert notifier.watchdog_s == 0.2

    async def for_a_while():
        with suppress(TimeoutError):
            async with asyncio.timeout(0.35):
                await notifier.live()

    asyncio.run(for_a_while())
    listener.settimeout(0)
    found = []
    with suppress(BlockingIOError):
        while True:
            found.append(listener.recv(4096))
    assert 3 <= len(found) <= 4 and set(found) == {b"WATCHDOG=1"}


@pytest.mark.parametrize(
    "environment",
    [{}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "5000000", "WATCHDOG_PID": "1"}],
)
def test_nobody_asked_for_signs_of_life(environment):
    assert Notifier(environment).watchdog_s is None


@pytest.mark.parametrize("address", ["", "/nowhere/at/all", "nonsense"])
def test_a_manager_that_is_not_there_is_no_error(address):
    Notifier({"NOTIFY_SOCKET": address}).tell("READY=1")


def test_the_unit_waits_for_readiness_leaves_guests_alone_and_calls_what_there_is():
    unit = (ROOT / "packaging" / "systemd" / "vnetd.service").read_text(encoding="utf-8")
    settings = dict(re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE))
    assert (settings["Type"], settings["KillMode"]) == ("notify", "process")
    program, command, *words = settings["ExecStart"].split()
    assert (Path(program).name, command) == ("vnet", "serve")
    told = [sys.executable, "-m", "vnet", "serve", "--help"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(told, capture_output=True, text=True, check=True, env=environment)
    assert all(word in done.stdout for word in words if word.startswith("--"))
