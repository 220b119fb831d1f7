"""TCP segments that open no connection, and ports that look as if they belonged to one."""

from __future__ import annotations

from collections.abc import Iterator

from scapy.layers.inet import TCP, UDP
from scapy.packet import Raw

from vnet.drill.attack import NO_CLOSED_PORT, Exercise, Maker
from vnet.drill.frames import CLIENT_PORT, hop, wire
from vnet.drill.scene import TCP as TCP_NUMBER
from vnet.drill.scene import UDP as UDP_NUMBER
from vnet.drill.scene import Scene

SCANS = {
    "ACK": ("A", "nmap -sA"),
    "SYN and ACK": ("SA", "RFC 9293, 3.10.7.1; reflected floods"),
    "FIN": ("F", "nmap -sF"),
    "FIN and ACK": ("FA", "Maimon scan (nmap -sM)"),
    "RST": ("R", "inverse mapping; RFC 5961, 3"),
    "RST and ACK": ("RA", "RFC 5961, 3"),
    "NULL": ("", "nmap -sN"),
    "XMAS": ("FPU", "nmap -sX"),
    "all flags": ("FSRPAUEC", "ISIC"),
    "SYN and FIN": ("SF", "T/TCP scans; RFC 9293, 3.10.7"),
    "SYN and RST": ("SR", "RFC 9293, 3.10.7"),
    "PSH": ("P", "RFC 9293, 3.1"),
    "URG": ("U", "WinNuke (CVE-1999-0153)"),
    "PSH and ACK with data": ("PA", "RFC 5961, 5"),
}
SERVER_PORTS = (20, 53, 67, 80, 88, 123, 443, 500)


def attacks(scene: Scene) -> Iterator[Exercise]:
    """Segments without a SYN before them, toward a service that may be used; SYNs toward one that may not."""
    make = Maker("tcp", scene.twin.name)
    for version in (4, 6):
        path = scene.toward(TCP_NUMBER, version)
        for what, (flags, source) in SCANS.items():
            segment = TCP(sport=CLIENT_PORT, dport=path.port, flags=flags, seq=1, ack=1) / Raw(b"drill")
            frame = wire(hop(scene.twin, path), segment)
            yield make.attack(f"{what} without a connection, IPv{version}", source, frame)
        yield from _to_closed(scene, make, version)


def _to_closed(scene: Scene, make: Maker, version: int) -> Iterator[Exercise]:
    """A server's port as the source fools rules that have no memory."""
    what, source = f"TCP from servers' ports to a closed one, IPv{version}", "nmap --source-port"
    closed = scene.unreachable(TCP_NUMBER, version)
    if closed is None:
        yield make.missing(what, source, NO_CLOSED_PORT)
    else:
        ports = (CLIENT_PORT, *SERVER_PORTS)
        syns = (
            wire(hop(scene.twin, closed), TCP(sport=port, dport=closed.port, flags="S")) for port in ports
        )
        yield make.attack(what, source, *syns)
    what, source = f"UDP from servers' ports to a closed one, IPv{version}", "CVE-2003-1491, CVE-2004-1473"
    closed = scene.unreachable(UDP_NUMBER, version)
    if closed is None:
        yield make.missing(what, source, NO_CLOSED_PORT)
    else:
        datagrams = (UDP(sport=port, dport=closed.port) / Raw(b"drill") for port in SERVER_PORTS)
        yield make.attack(what, source, *(wire(hop(scene.twin, closed), each) for each in datagrams))
