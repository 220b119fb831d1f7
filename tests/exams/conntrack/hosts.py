"""Endpoints of the exam: a network namespace each, with real sockets made inside it.

A socket stays in the namespace it was made in, so one process is client and server of many hosts and
nothing needs to be started: a ping takes as long as the packet takes.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import ipaddress
import itertools
import os
import select
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vnet.switch.live.netns import inside

COMMAND_TIMEOUT_S = 20
ANSWER_S = 3.0
"""How long an answer that must come may take on a busy machine."""
SILENCE_S = 0.4
"""How long an answer that must not come is waited for; answers take a few milliseconds."""

SIOCETHTOOL = 0x8946
ETHTOOL_STXCSUM = 0x17
ETH_P_ALL = 3
PACKET_OUTGOING = 4
SOL_PACKET = 263
PACKET_AUXDATA = 8
TPACKET_AUXDATA = struct.Struct("=IIIHHHH")
VLAN_VALID, TPID_VALID = 0x10, 0x40
TUNSETIFF = 0x400454CA
IFF_TAP_NO_PI = 0x1002
BODY = bytes(range(256)) * 24
"""What the web servers serve: several TCP segments."""

_echo_id = itertools.count(os.getpid() & 0x7FFF)


def run(*command: str, stdin: str = "") -> str:
    """Run a command; its output is shown if it fails."""
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{stdin}{done.stdout}{done.stderr}"
    return done.stdout


def until(condition: Callable[[], object], what: str, timeout_s: float = ANSWER_S) -> None:
    """Wait until a condition holds; fail when it does not within the time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.005)


@dataclass(frozen=True, slots=True)
class Pings:
    sent: int
    received: int

    @property
    def all_answered(self) -> bool:
        return self.sent == self.received

    @property
    def none_answered(self) -> bool:
        return self.received == 0


class Host:
    """The endpoint at one port of the switch; its device is `eth0`."""

    def __init__(self, netns: str, number: int) -> None:
        self.netns, self.number = netns, number
        self.mac = f"02:00:00:00:00:{number:02x}"
        self._servers: list[Server] = []
        self._vlans: list[VlanDevice] = []
        self._used = False

    # -- configuration ----------------------------------------------------------------------------

    def ip(self, *lines: str) -> None:
        """Run lines of `ip -batch` in the namespace."""
        self._used = True
        run("ip", "-n", self.netns, "-batch", "-", stdin="".join(f"{line}\n" for line in lines))

    def configure(self, *addresses: str, mac: str | None = None) -> None:
        """Give the device addresses (`10.1.1.1/24`) and a MAC."""
        lines = []
        if mac is not None:
            self.mac = mac
            lines.append(f"link set eth0 address {mac}")
        self.ip(*lines, *(f"addr add {address} dev eth0{_nodad(address)}" for address in addresses))

    def vlan(self, number: int, address: str, service: int = 0) -> str:
        """Add a device whose frames carry a tag, with an address. Returns its name.

        `service` is the number of an 802.1ad tag before that; with a `number` of 0 it is the only one.
        """
        tags = [(0x88A8, service)] * bool(service) + [(0x8100, number)] * bool(number)
        name = ".".join(["eth0", *(str(tag) for _, tag in tags)])
        self._used = True
        self._vlans.append(VlanDevice(self, name, tags))
        mtu = 1500 - 4 * len(tags) if service else 1500
        self.ip(
            f"link set {name} address {self.mac} mtu {mtu} up",
            f"addr add {address} dev {name}{_nodad(address)}",
        )
        return name

    def neighbour(self, address: str, mac: str) -> None:
        """Know a MAC without asking."""
        self.ip(f"neigh replace {address} lladdr {mac} dev eth0")

    def reset(self) -> None:
        """Undo `configure` and the like, and end what was started."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        for vlan in self._vlans:
            vlan.close()
        self._vlans.clear()
        if not self._used:
            return
        self.mac = f"02:00:00:00:00:{self.number:02x}"
        self.ip(
            "addr flush dev eth0",
            "addr flush dev lo scope global",
            "route flush dev eth0",
            "neigh flush dev eth0 nud permanent",
            "neigh flush dev eth0",
            f"link set eth0 address {self.mac}",
        )
        self._used = False

    def checksum_in_software(self) -> None:
        """Fill checksums before the device: AF_PACKET, by which Open vSwitch reads, hands on partial ones."""
        value = array.array("B", struct.pack("II", ETHTOOL_STXCSUM, 0))
        request = struct.pack("16sP", b"eth0", value.buffer_info()[0])
        with self.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, SIOCETHTOOL, request)

    # -- traffic ----------------------------------------------------------------------------------

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of this host."""
        with inside(self.netns):
            made = socket.socket(family, kind, protocol)
        made.settimeout(ANSWER_S)
        return made

    def packets(self) -> socket.socket:
        """A packet socket on the device."""
        with inside(self.netns):
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            made.bind(("eth0", ETH_P_ALL))
        made.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        made.setblocking(False)
        return made

    def send(self, *frames: bytes | str) -> None:
        """Send frames as they are; a text is hexadecimal."""
        with self.packets() as sender:
            for frame in frames:
                sender.send(bytes.fromhex(frame) if isinstance(frame, str) else frame)

    @contextlib.contextmanager
    def capture(self) -> Iterator[Capture]:
        """See what arrives at the device."""
        with self.packets() as receiver:
            yield Capture(receiver)

    def ping(
        self, address: str, size: int = 56, count: int = 3, expect: bool = True, dont_fragment: bool = False
    ) -> Pings:
        """Send echo requests one after the other, each when the one before it is answered or given up.

        `expect` only says how long to wait for an answer.
        """
        six = ":" in address
        family, protocol = (
            (socket.AF_INET6, socket.IPPROTO_ICMPV6) if six else (socket.AF_INET, socket.IPPROTO_ICMP)
        )
        identifier = next(_echo_id) & 0xFFFF
        received = 0
        with self.socket(family, socket.SOCK_RAW, protocol) as raw:
            if not six and not dont_fragment:
                raw.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER: IP_PMTUDISC_DONT
            for sequence in range(1, count + 1):
                raw.sendto(_echo(six, identifier, sequence, size), (address, 0))
                received += _answered(
                    raw, six, identifier, sequence, size, ANSWER_S if expect else SILENCE_S / count
                )
        return Pings(count, received)

    def serve_http(self, port: int = 80, six: bool = False) -> None:
        """Start a web server; it is there when this returns."""
        self._servers.append(Server(self, port, six))

    def serve_tcp_sink(self, port: int) -> Server:
        """Start a server that reads what comes and closes when the peer does."""
        server = Server(self, port, False, talks=False)
        self._servers.append(server)
        return server

    def get_http(
        self, address: str, port: int = 80, source_port: int = 0, expect: bool = True, source: str = ""
    ) -> bool:
        """Fetch the page: whether it came whole. `expect` only says how long to wait."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self.socket(family, socket.SOCK_STREAM) as client:
            client.settimeout(2 * ANSWER_S if expect else SILENCE_S)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if source_port or source:
                client.bind((source or ("::" if ":" in address else "0.0.0.0"), source_port))
            try:
                client.connect((address, port))
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                return _read_all(client).endswith(b"\r\n\r\n" + BODY)
            except (TimeoutError, OSError):
                return False

    def say_tcp(self, address: str, port: int, text: bytes) -> bool:
        """Connect, send, close our half, wait for the peer to close."""
        with self.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            try:
                client.connect((address, port))
                client.sendall(text)
                client.shutdown(socket.SHUT_WR)
                return _read_all(client) == b""
            except (TimeoutError, OSError):
                return False

    def send_udp(self, address: str, port: int, source_port: int = 0, data: bytes = b"a\n") -> socket.socket:
        """Send a datagram from a connected socket, which so hears of ICMP errors."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        client = self.socket(family, socket.SOCK_DGRAM)
        if source_port:
            client.bind(("::" if ":" in address else "0.0.0.0", source_port))
        client.connect((address, port))
        client.send(data)
        return client

    def is_refused_udp(self, address: str, port: int, source_port: int = 0) -> bool:
        """Send a datagram: whether `port unreachable` came back to the very socket."""
        with self.send_udp(address, port, source_port) as client:
            try:
                client.recv(100)
            except ConnectionRefusedError:
                return True
            except TimeoutError:
                return False
        return False


class Capture:
    """Frames that arrived at a device and were not sent by it."""

    def __init__(self, receiver: socket.socket) -> None:
        self._receiver = receiver
        self.frames: list[bytes] = []

    def wait(self, wanted: Callable[[bytes], bool], timeout_s: float = ANSWER_S) -> bytes:
        """The first frame that is wanted, waited for."""
        found: list[bytes] = []

        def is_there() -> bool:
            self._read()
            found[:] = [frame for frame in self.frames if wanted(frame)]
            return bool(found)

        until(is_there, "a frame that is wanted", timeout_s)
        return found[0]

    def count(self, wanted: Callable[[bytes], bool] = lambda _: True) -> int:
        """How many frames that are wanted came so far."""
        self._read()
        return sum(map(wanted, self.frames))

    def _read(self) -> None:
        while select.select([self._receiver], [], [], 0)[0]:
            frame = _received(self._receiver)
            if frame is not None:
                self.frames.append(frame)


class Server:
    """A TCP server in a thread of its own."""

    def __init__(self, host: Host, port: int, six: bool, talks: bool = True) -> None:
        family, anywhere = (socket.AF_INET6, "::") if six else (socket.AF_INET, "0.0.0.0")
        self.connections = 0
        self.received = bytearray()
        """What came, of all connections, if the server only listens."""
        self._talks = talks
        self._listener = host.socket(family, socket.SOCK_STREAM)
        self._listener.settimeout(None)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((anywhere, port))
        self._listener.listen(64)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        client.settimeout(ANSWER_S)
        with client, contextlib.suppress(OSError):
            if self._talks:
                request = b""
                while b"\r\n\r\n" not in request and (data := client.recv(4096)):
                    request += data
                client.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + BODY)
                client.shutdown(socket.SHUT_WR)
            while data := client.recv(65536):
                self.received += data

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._listener.close()


class VlanDevice:
    """A device `eth0.N` whose frames carry tags on eth0: a TAP and a thread between it and eth0.

    Not the kernel's VLAN device, which a kernel built for VMs may lack.
    """

    def __init__(self, host: Host, name: str, tags: list[tuple[int, int]]) -> None:
        self._header = b"".join(struct.pack("!HH", ethertype, number) for ethertype, number in tags)
        with inside(host.netns):
            self._tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            fcntl.ioctl(self._tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP_NO_PI))
        self._line = host.packets()
        self._line.setblocking(True)
        self._wake = os.eventfd(0)
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def _carry(self) -> None:
        while True:
            ready = select.select([self._tap, self._line, self._wake], [], [])[0]
            if self._wake in ready:
                return
            if self._tap in ready:
                frame = os.read(self._tap, 70000)
                self._line.send(frame[:12] + self._header + frame[12:])
            if self._line in ready and (frame := _received(self._line) or b""):
                end = 12 + len(self._header)
                if _without_priority(frame[12:end]) == self._header:
                    os.write(self._tap, frame[:12] + frame[end:])

    def close(self) -> None:
        os.eventfd_write(self._wake, 1)
        self._thread.join(5)
        for descriptor in (self._tap, self._wake):
            os.close(descriptor)
        self._line.close()


def _without_priority(header: bytes) -> bytes:
    words = struct.unpack(f"!{len(header) // 2}H", header[: len(header) // 2 * 2])
    return struct.pack(f"!{len(words)}H", *(w & 0xFFF if n % 2 else w for n, w in enumerate(words)))


def _received(line: socket.socket) -> bytes | None:
    """A frame with its tag, which the kernel keeps beside it (packet(7)); None for one sent by ourselves."""
    frame, auxiliary, _, where = line.recvmsg(70000, 256)
    if where[2] == PACKET_OUTGOING:
        return None
    for level, kind, data in auxiliary:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, *_, tci, tpid = TPACKET_AUXDATA.unpack_from(data)
            if status & VLAN_VALID:
                ethertype = tpid if status & TPID_VALID else 0x8100
                return frame[:12] + struct.pack("!HH", ethertype, tci) + frame[12:]
    return frame


def _nodad(address: str) -> str:
    return " nodad" if ":" in address else ""


def _read_all(client: socket.socket) -> bytes:
    read = b""
    while data := client.recv(65536):
        read += data
    return read


def _echo(six: bool, identifier: int, sequence: int, size: int) -> bytes:
    data = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    kind = 128 if six else 8
    message = struct.pack("!BBHHH", kind, 0, 0, identifier, sequence) + data
    # The kernel fills the checksum of ICMPv6, not of ICMP (raw(7)).
    return message if six else message[:2] + struct.pack("!H", checksum(message)) + message[4:]


def _answered(
    raw: socket.socket, six: bool, identifier: int, sequence: int, size: int, timeout_s: float
) -> bool:
    deadline = time.monotonic() + timeout_s
    wanted = _echo(six, identifier, sequence, size)[4:]
    while (left := deadline - time.monotonic()) > 0:
        raw.settimeout(left)
        try:
            packet = raw.recv(70000)
        except TimeoutError:
            return False
        message = packet if six else packet[(packet[0] & 15) * 4 :]
        if message[0] == (129 if six else 0) and message[4:] == wanted:
            return True
    return False


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packed(address: str) -> bytes:
    """An address of either family as bytes."""
    return ipaddress.ip_address(address).packed
