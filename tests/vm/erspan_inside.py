"""Another machine that copies in ERSPAN are sent to, and what arrives there, inside a guest.

The namespaces are as a fabric has them: the device lies in that of the switch, what it sends leaves by the
routes of another, and the other machine is behind a wire from there.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from tests.waiting import until
from vnet.base.errors import HostError
from vnet.fabric.live import tunnels
from vnet.fabric.mirror import TUNNEL
from vnet.switch.live.netns import inside
from vnet.topology.model import ToErspan

SWITCH, UNDERLAY, COLLECTOR = "switch", "underlay", "collector"
DEVICE = f"{TUNNEL}far"
DEADLINE_S = 5.0
GRE = 47
"""IP protocol number."""
SEQUENCED = 0x1000
"""The only flag of the GRE header that type II has, of version 0 (RFC 2890)."""
ERSPAN_II = 0x88BE
TAG_IN_FRAME = 3
"""The encapsulation of a copied frame that still has its VLAN tag."""
Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Copy:
    """One packet of type II (draft-foschiano-erspan-03, 4.1 and 4.2), taken apart; IP fragments joined."""

    source: Address
    target: Address
    hops: int = 64
    """The TTL or hop limit it was sent with; nobody routes it here."""
    flags: int = SEQUENCED
    protocol: int = ERSPAN_II
    sequence: int = 0
    version: int = 1
    vlan: int = 0
    encapsulation: int = 0
    is_cut: bool = False
    session: int = 0
    index: int = 0
    frame: bytes = b""


def _copy(source: Address, target: Address, hops: int, gre: bytes) -> Copy:
    flags, protocol, sequence, first, second, third = struct.unpack_from("!HHIHHI", gre)
    return Copy(
        source, target, hops, flags, protocol, sequence,
        version=first >> 12, vlan=first & 0xFFF,
        encapsulation=second >> 11 & 3, is_cut=bool(second >> 10 & 1), session=second & 0x3FF,
        index=third & 0xFFFFF, frame=gre[16:],
    )  # fmt: skip


class Joined:
    """GRE packets directly on IP, out of Ethernet frames; fragments come in order."""

    def __init__(self) -> None:
        self._begun = b""

    def take(self, frame: bytes) -> Copy | None:
        """The copy that a frame completes, if it does."""
        ip = frame[14:]
        if frame[12:14] == b"\x08\x00" and ip[9] == GRE:
            self._begun += ip[(ip[0] & 15) * 4 : int.from_bytes(ip[2:4], "big")]
            if ip[6] & 0x20:  # more fragments
                return None
            gre, self._begun = self._begun, b""
            return _copy(IPv4Address(ip[12:16]), IPv4Address(ip[16:20]), ip[8], gre)
        if frame[12:14] == b"\x86\xdd" and ip[6] == GRE:
            gre = ip[40 : 40 + int.from_bytes(ip[4:6], "big")]
            return _copy(IPv6Address(ip[8:24]), IPv6Address(ip[24:40]), ip[7], gre)
        return None


@contextmanager
def collector(ours: str, theirs: str) -> Iterator[socket.socket]:
    """A machine of an address behind a wire from the underlay, and a socket for all that reaches it."""
    _sh(f"ip netns attach {SWITCH} {os.getpid()}")
    for name in (UNDERLAY, COLLECTOR):
        _sh(f"ip netns add {name}")
    try:
        _sh(f"ip -n {UNDERLAY} link add w0 type veth peer name w1 netns {COLLECTOR}")
        for name, end, address in ((UNDERLAY, "w0", ours), (COLLECTOR, "w1", theirs)):
            _sh(f"ip -n {name} address add {address} dev {end}" + " nodad" * (":" in address))
            _sh(f"ip -n {name} link set {end} up")
        _await_carrier()
        with inside(COLLECTOR):
            wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        wire.bind(("w1", 3))
        with wire:
            yield wire
    finally:
        for name in (SWITCH, UNDERLAY, COLLECTOR):
            _sh(f"ip netns del {name}")


def _await_carrier() -> None:
    """A device that is made before the kernel has seen it keeps more room for headers."""
    until(lambda: "state UP" in _sh(f"ip -n {UNDERLAY} link show w0"), DEADLINE_S)


@contextmanager
def device(to: ToErspan) -> Iterator[str]:
    """The device of a mirror, as the product makes it, in the namespace of the switch."""
    tunnels.make(DEVICE, to, SWITCH, UNDERLAY)
    try:
        yield DEVICE
    finally:
        tunnels.remove(DEVICE, SWITCH)


def refused(to: ToErspan) -> str:
    """Why there is no second device to the same machine under the same session ID."""
    try:
        tunnels.make(f"{TUNNEL}second", to, SWITCH, UNDERLAY)
    except HostError as error:
        return str(error)
    return ""


def copies(wire: socket.socket, count: int) -> list[Copy]:
    """The next copies that arrive."""
    found: list[Copy] = []
    joined, deadline = Joined(), time.monotonic() + DEADLINE_S
    while len(found) < count:
        wire.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            packet, address = wire.recvfrom(4096)
        except TimeoutError:
            raise AssertionError(f"{len(found)} of {count} copies came") from None
        copy = joined.take(packet) if address[2] != socket.PACKET_OUTGOING else None
        found += [copy] if copy else []
    return found


def _sh(command: str) -> str:
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout
