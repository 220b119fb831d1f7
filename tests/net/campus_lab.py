"""A campus beside a fabric: hosts in namespaces, on VLANs of a trunk whose near end is the host's interface.

The trunk's far end and the hosts are ports of a switch in a namespace of its own, which tags and untags.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from tests.bpf.bench import BPFFS, sh
from vnet.openflow.flow import Action, Flow, Instructions, Output, PopVlan, PushVlan, SetField, match
from vnet.switch.datapath import Change
from vnet.switch.live.datapath import EbpfDatapath
from vnet.switch.live.netns import inside

ETH_P_ALL, PACKET_OUTGOING = 3, 4
SOL_PACKET, PACKET_AUXDATA, TP_STATUS_VLAN_VALID = 263, 8, 1 << 4
"""linux/if_packet.h: `struct tpacket_auxdata` has the tag, which the kernel takes out of the frame."""
TRUNK = 1
PRESENT = 0x1000
"""Of vlan_vid: there is a tag."""


@dataclass(frozen=True, slots=True)
class Host:
    """One on the LAN. `mac` is as it is written, `addresses` are `IP/PREFIX`."""

    vlan: int
    mac: str
    addresses: tuple[str, ...]


class Campus:
    """`prefix` begins the names of its namespaces, `host` is the namespace that has the trunk's near end."""

    def __init__(self, prefix: str, host: str, interface: str, hosts: Mapping[str, Host]) -> None:
        self._prefix, self.netns = prefix, f"{prefix}lan"
        sh(f"ip netns add {self.netns}")
        sh(f"ip netns exec {self.netns} sysctl -qw net.ipv6.conf.default.disable_ipv6=1")
        sh(f"ip -n {self.netns} link add far0 type veth peer name {interface} netns {host}")
        sh(f"ip -n {self.netns} link set far0 up")
        sh(f"ip -n {host} link set {interface} up")
        self._datapath = EbpfDatapath.open("lan", self.netns, BPFFS / self.netns)
        self._datapath.attach(TRUNK, "far0", uplink=True)
        self._hosts = hosts
        flows: list[Flow] = []
        for number, (name, each) in enumerate(hosts.items(), TRUNK + 1):
            self._add(name, each, number)
            flows += _access(number, each.vlan)
        self._datapath.commit(Change(put=tuple(flows)))

    def _add(self, name: str, each: Host, number: int) -> None:
        netns = self.name(name)
        sh(f"ip netns add {netns}")
        sh(f"ip netns exec {netns} sysctl -qw net.ipv6.conf.default.accept_dad=0")
        sh(f"ip -n {self.netns} link add p{number} type veth peer name eth0 netns {netns}")
        sh(f"ip -n {netns} link set eth0 address {each.mac} up")
        sh(f"ip -n {netns} link set lo up")
        sh(f"ip -n {self.netns} link set p{number} up")
        for address in each.addresses:
            sh(f"ip -n {netns} addr add {address} dev eth0")
        self._datapath.attach(number, f"p{number}")

    def name(self, host: str) -> str:
        """The namespace of a host."""
        return f"{self._prefix}{host}"

    def send(self, frame: bytes) -> None:
        """Put a frame on the trunk as it is, towards the fabric."""
        with inside(self.netns), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("far0", 0))
            raw.send(frame)

    @contextmanager
    def overheard(self) -> Iterator[socket.socket]:
        """What comes out of the trunk, as the kernel tells anybody who listens; `tags` reads it."""
        with inside(self.netns):
            raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        with raw:
            raw.bind(("far0", ETH_P_ALL))
            raw.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
            raw.setblocking(False)
            yield raw

    def close(self) -> None:
        """Nothing of it is left."""
        self._datapath.destroy()
        for name in (*map(self.name, self._hosts), self.netns):
            sh(f"ip netns del {name}")


def _access(number: int, vlan: int) -> tuple[Flow, Flow]:
    """One host in each VLAN has all that is sent there."""
    tag = (PushVlan(), SetField("vlan_vid", PRESENT | vlan), Output(TRUNK))
    return (
        _flow(10, {"in_port": number, "vlan_vid": 0}, tag),
        _flow(10, {"in_port": TRUNK, "vlan_vid": PRESENT | vlan}, (PopVlan(), Output(number))),
    )


def _flow(priority: int, fields: Mapping[str, int], actions: tuple[Action, ...]) -> Flow:
    return Flow(0, priority, match(**fields), Instructions(apply=actions))


def tags(overheard: socket.socket, source_mac: str) -> set[int | None]:
    """The VLANs of the frames that a sender has sent until now; None of one without a tag."""
    found: set[int | None] = set()
    while True:
        try:
            frame, beside, _, address = overheard.recvmsg(2048, 64)
        except BlockingIOError:
            return found
        if frame[6:12] == bytes.fromhex(source_mac.replace(":", "")) and address[2] != PACKET_OUTGOING:
            ((_, _, auxdata),) = beside
            status, tci = struct.unpack("=I12xH", auxdata[:18])
            found.add(tci if status & TP_STATUS_VLAN_VALID else None)


@contextmanager
def campus(prefix: str, host: str, interface: str, hosts: Mapping[str, Host]) -> Iterator[Campus]:
    """A campus for the duration of the body."""
    made = Campus(prefix, host, interface, hosts)
    try:
        yield made
    finally:
        made.close()
