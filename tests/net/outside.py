"""A world outside: a namespace that plays the host, one beyond it, and who asks and answers in them.

Sockets are made in a namespace and used from the test's own threads.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests import leftovers
from vnet.fabric.live import netns
from vnet.switch.live.netns import NETNS_DIR, inside

PREFIX = leftovers.prefix("gw")
PINS = leftovers.pins("gw")
HOST, WORLD = f"{PREFIX}host", f"{PREFIX}world"
AT_HOST = {4: "198.51.100.1", 6: "2001:db8:51::1"}
AT_WORLD = {4: "198.51.100.7", 6: "2001:db8:51::7"}
OWN = {4: "203.0.113.2", 6: "2001:db8:113::2"}
FAR = {4: "203.0.113.1", 6: "2001:db8:113::1"}
"""At the two ends of `wan`."""
ALONE = {4: "203.0.113.50", 6: "2001:db8:113::50"}
"""An address there that is nobody's."""
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
TIMEOUT_S = 4.0
"""A host answers for another address up to 0.8 s late (proxy_delay, arp(7)); SYNs come again after 1 s."""


def sh(command: str) -> str:
    """What a command prints, in the calling thread's namespace."""
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@contextmanager
def world(forwards: bool = True) -> Iterator[None]:
    """The calling thread is in the host's namespace, which must be at the end what it was before."""
    try:
        _make_world(forwards)
        with inside(HOST):
            was = everything()
            yield
            now = everything()
        assert {name: now.get(name) for name in was if now.get(name) != was[name]} == {}
        assert now.keys() == was.keys()
    finally:
        for path in NETNS_DIR.glob(f"{PREFIX}*"):
            netns.remove(path.name)


@contextmanager
def host(forwards: bool = True) -> Iterator[Path]:
    """The same with directories of its own, in which nothing may be left."""
    made = Path(tempfile.mkdtemp(prefix=PREFIX))
    names = {
        "VNET_RUN_DIR": str(made / "run"),
        "VNET_STATE_DIR": str(made / "state"),
        "VNET_BPF_DIR": str(PINS),
        "VNET_NETNS_PREFIX": PREFIX,
    }
    before = {name: os.environ.get(name) for name in names}
    made.chmod(0o711)
    os.environ |= names
    try:
        with world(forwards):
            yield made
            left = [path.name for path in NETNS_DIR.glob(f"{PREFIX}*") if path.name not in (HOST, WORLD)]
        left += [str(path) for path in PINS.glob("*")]
        left += [str(path) for path in made.glob("state/gateways/*")]
        assert not left, left
    finally:
        shutil.rmtree(PINS, ignore_errors=True)
        shutil.rmtree(made)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def settle(*spaces: str) -> None:
    """Wait until all interfaces have noticed their cables: before that IPv6 does not use them."""
    deadline_s = time.monotonic() + 5
    while any(" state DOWN" in sh(f"ip -n {space} link show up") for space in spaces):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def _make_world(forwards: bool) -> None:
    for name in (HOST, WORLD):
        sh(f"ip netns add {name}")
        sh(f"ip -n {name} link set lo up")
    sh(f"ip -n {HOST} link add eth0 type veth peer name eth0 netns {WORLD}")
    for name, own in ((HOST, AT_HOST), (WORLD, AT_WORLD)):
        with inside(name):
            Path("/proc/sys/net/ipv6/conf/eth0/accept_dad").write_text("0")
            Path("/proc/sys/net/ipv4/ip_forward").write_text(str(int(forwards and name == HOST)))
            Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text(str(int(forwards and name == HOST)))
        sh(f"ip -n {name} addr add {own[4]}/24 dev eth0")
        sh(f"ip -n {name} addr add {own[6]}/64 dev eth0 nodad")
        sh(f"ip -n {name} link set eth0 up")
    settle(HOST, WORLD)


@contextmanager
def wan() -> Iterator[None]:
    """An interface of the host with an address and routes, that leads to the world."""
    sh(f"ip -n {HOST} link add wan0 type veth peer name wan0 netns {WORLD}")
    sh(f"ip -n {HOST} addr add 192.0.2.9/24 dev wan0")
    sh(f"ip -n {HOST} addr add 2001:db8:9::9/64 dev wan0 nodad")
    for version, length in ((4, 24), (6, 64)):
        more = "nodad" if version == 6 else ""
        sh(f"ip -n {WORLD} addr add {FAR[version]}/{length} dev wan0 {more}")
    for name in (HOST, WORLD):
        sh(f"ip -n {name} link set wan0 up")
    settle(HOST, WORLD)
    sh(f"ip -n {HOST} route add 192.168.77.0/24 via 192.0.2.1 dev wan0 metric 7")
    try:
        yield
    finally:
        sh(f"ip -n {HOST} link del wan0")


def everything() -> dict[str, str]:
    """All of the calling thread's namespace that gateways may touch, as its own tools tell it."""
    commands = ("nft list ruleset", "ip rule", "ip -6 rule", "ip -d link", "ip addr", "ip neigh show proxy")
    found = {command: sh(command) for command in commands}
    found |= {command: sh(command) for command in ("ip route show table all", "ip -6 route show table all")}
    for family in ("ipv4", "ipv6"):
        for path in Path("/proc/sys/net", family).rglob("*"):
            if path.is_file() and "stable_secret" not in path.name:
                with suppress(OSError):  # some can only be written
                    found[str(path)] = path.read_text()
    return found


class Server:
    """Answers in a namespace on a port, TCP and UDP: says its name and who asked, then what it is told."""

    def __init__(self, space: str, name: str, port: int, address: str) -> None:
        self.name, self.port = name, port
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with inside(space):
            self._listener = socket.socket(family, socket.SOCK_STREAM)
            self._datagrams = socket.socket(family, socket.SOCK_DGRAM)
        for each in (self._listener, self._datagrams):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind((address, port))
        self._listener.listen()
        for work in (self._accept, self._reply):
            threading.Thread(target=work, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, peer = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection, peer), daemon=True).start()

    def _serve(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        with suppress(OSError), connection:
            connection.sendall(f"{self.name} {peer[0]}\n".encode())
            while data := connection.recv(4096):
                connection.sendall(data)

    def _reply(self) -> None:
        with suppress(OSError):
            while True:
                _, peer = self._datagrams.recvfrom(4096)
                if not peer:  # it was closed
                    return
                self._datagrams.sendto(f"{self.name} {peer[0]}\n".encode(), peer)

    def close(self) -> None:
        """Answer no more: who asks is refused."""
        for each in (self._listener, self._datagrams):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@contextmanager
def serving(*servers: Server) -> Iterator[None]:
    """Until the end of the body."""
    try:
        yield
    finally:
        for server in servers:
            server.close()


def connect(
    space: str, address: str, port: int, source: str = "", timeout_s: float = TIMEOUT_S
) -> socket.socket:
    """A connection from a namespace."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with inside(space):
        made = socket.socket(family, socket.SOCK_STREAM)
    made.settimeout(timeout_s)
    try:
        if source:
            made.bind((source, 0))
        made.connect((address, port))
    except OSError:
        made.close()
        raise
    return made


def ask(space: str, address: str, port: int, source: str = "", timeout_s: float = TIMEOUT_S) -> str:
    """Which server answers over TCP, and whom it sees; what went wrong if none does."""
    try:
        with connect(space, address, port, source, timeout_s) as connection:
            return connection.recv(4096).decode().strip()
    except OSError as error:
        return f"no answer: {error}"


class Talk:
    """A connection on which one goes on talking."""

    def __init__(self, space: str, address: str, port: int, source: str = "") -> None:
        self._socket = connect(space, address, port, source)
        self.greeting = self._socket.recv(4096).decode().strip()

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def goes_on(self) -> bool:
        """Whether something said now is answered."""
        try:
            self._socket.sendall(b"still there?")
            return self._socket.recv(4096) == b"still there?"
        except OSError:
            return False


def ask_udp(space: str, address: str, port: int, source: str = "") -> str:
    """The same over UDP."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with inside(space):
        made = socket.socket(family, socket.SOCK_DGRAM)
    with made:
        made.settimeout(TIMEOUT_S)
        try:
            made.bind((source, 0)) if source else None
            made.sendto(b"hello", (address, port))
            return made.recv(4096).decode().strip()
        except OSError as error:
            return f"no answer: {error}"


def pings(space: str, address: str, source: str = "") -> bool:
    """Whether an echo request is answered."""
    bound = f"-I {source}" if source else ""
    words = f"ip netns exec {space} busybox ping -c 1 -W 2 {bound} {address}"
    return os.system(f"{words} >/dev/null 2>&1") == 0
