"""A live switch with an end in a namespace of its own at each port."""

from __future__ import annotations

import itertools
import os
import socket
import struct
import subprocess
import sys
from types import TracebackType

from tests.bpf.bench import BPFFS, sh
from vnet.openflow.flow import Action, Flow, Instructions, match
from vnet.switch.datapath import Change
from vnet.switch.live.datapath import EbpfDatapath
from vnet.switch.live.netns import inside

_serial = itertools.count(1)
ETH_P_ALL, SOL_PACKET, PACKET_AUXDATA, PACKET_OUTGOING = 3, 263, 8, 4


def does(*actions: Action, **wanted: int) -> Flow:
    return Flow(0, 10, match(**wanted), Instructions(actions))


class Ends:
    """A switch with ports 1…n; the far end of port k is `eth0` of its own namespace, with 10.0.0.k."""

    def __init__(self, ports: int) -> None:
        self.name = f"vnt-wire-{os.getpid()}-{next(_serial)}"
        self.ports = ports
        self._sockets: dict[int, socket.socket] = {}

    def end(self, number: int) -> str:
        return f"{self.name}-{number}"

    def __enter__(self) -> Ends:
        self._namespace(self.name)
        for number in range(1, self.ports + 1):
            end = self.end(number)
            self._namespace(end)
            sh(f"ip -n {self.name} link add p{number} type veth peer name eth0 netns {end}")
            sh(f"ip -n {self.name} link set p{number} up")
            sh(f"ip -n {end} link set eth0 up address 02:00:00:00:00:{number:02x}")
            sh(f"ip -n {end} addr add 10.0.0.{number}/24 dev eth0")
        self.datapath = EbpfDatapath.open("wire", self.name, BPFFS / self.name)
        for number in range(1, self.ports + 1):
            self.datapath.attach(number, f"p{number}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for opened in self._sockets.values():
            opened.close()
        if hasattr(self, "datapath"):
            self.datapath.destroy()
        for name in (self.name, *map(self.end, range(1, self.ports + 1))):
            sh(f"ip netns del {name}")

    def _namespace(self, name: str) -> None:
        sh(f"ip netns add {name}")
        sh(f"ip netns exec {name} sysctl -qw net.ipv6.conf.default.disable_ipv6=1")  # no chatter

    def put(self, *flows: Flow) -> None:
        self.datapath.commit(Change(put=flows))

    def wire(self, number: int) -> socket.socket:
        """A packet socket at the far end of a port."""
        if number not in self._sockets:
            with inside(self.end(number)):
                opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
                opened.bind(("eth0", 0))
            opened.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
            opened.settimeout(0.3)
            self._sockets[number] = opened
        return self._sockets[number]

    def received(self, number: int) -> list[bytes]:
        """Frames that arrived at a far end, with their tags in place, until there is silence."""
        frames: list[bytes] = []
        while True:
            try:
                data, auxiliary, _, address = self.wire(number).recvmsg(1 << 17, 256)
            except TimeoutError:
                return frames
            if address[2] != PACKET_OUTGOING:
                frames.append(with_tag(data, auxiliary))


def with_tag(data: bytes, auxiliary: list[tuple[int, int, bytes]]) -> bytes:
    """The frame as on the wire; the kernel hands the tag out beside it (struct tpacket_auxdata)."""
    for level, kind, value in auxiliary:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, tci, tpid = struct.unpack_from("=I12xHH", value)
            if status & 0x10:  # TP_STATUS_VLAN_VALID
                return data[:12] + struct.pack("!HH", tpid, tci) + data[12:]
    return data


def script(end: str, source: str, *arguments: str) -> subprocess.Popen[str]:
    """Run Python code in a namespace."""
    command = ["ip", "netns", "exec", end, sys.executable, "-c", source, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
