"""Frames that are neither IP nor ARP: what bridges, switches and links tell each other, and disguises."""

from __future__ import annotations

from collections.abc import Iterator

from vnet.drill.attack import Exercise, Maker
from vnet.drill.frames import BROADCAST, ether, ip, layer4, wire
from vnet.drill.ra import advertisement
from vnet.drill.scene import Scene

BRIDGE_GROUP, LLDP_GROUP, SLOW, GVRP_GROUP = (f"01:80:c2:00:00:{end}" for end in ("00", "0e", "02", "21"))
CISCO, CISCO_PVST = "01:00:0c:cc:cc:cc", "01:00:0c:cc:cc:cd"
SNAP = b"\xaa\xaa\x03"
STP, RSTP_ROOT = b"\x42\x42\x03", bytes.fromhex("0000020200000000" + "0" * 12 + "00000000" + "0" * 16)

LENGTH_FRAMES = {
    "BPDU of STP, as root": (BRIDGE_GROUP, STP + bytes(4) + bytes(31), "Yersinia; IEEE 802.1D, 9.3"),
    "BPDU of RSTP, as root": (BRIDGE_GROUP, STP + RSTP_ROOT, "Yersinia; IEEE 802.1Q, 14.4"),
    "BPDU of PVST+": (CISCO_PVST, SNAP + b"\x00\x00\x0c\x01\x0b" + bytes(35), "Yersinia"),
    "CDP": (CISCO, SNAP + b"\x00\x00\x0c\x20\x00" + b"\x02\xb4\x00\x00", "Yersinia; CVE-2020-3119"),
    "DTP: be a trunk": (CISCO, SNAP + b"\x00\x00\x0c\x20\x04" + b"\x01" + bytes(20), "Yersinia"),
    "VTP: no VLANs": (CISCO, SNAP + b"\x00\x00\x0c\x20\x03" + bytes(72), "Yersinia; CVE-2006-4774"),
    "GVRP join": (GVRP_GROUP, STP + b"\x00\x01\x01\x04\x02\x00\x02\x00\x00", "IEEE 802.1D, 12"),
    "NetBEUI": (BROADCAST, b"\xf0\xf0\x03" + bytes(40), "IEEE 802.2"),
    "IPX": (BROADCAST, b"\xff\xff" + bytes(40), "Novell raw 802.3"),
}
"""802.3 frames: destination, what follows the length, source."""

TYPED_FRAMES = {
    "LLDP": (LLDP_GROUP, 0x88CC, "IEEE 802.1AB"),
    "LACP": (SLOW, 0x8809, "IEEE 802.1AX, 6.4"),
    "MAC control: PAUSE": ("01:80:c2:00:00:01", 0x8808, "IEEE 802.3, 31B"),
    "EAPOL": ("01:80:c2:00:00:03", 0x888E, "IEEE 802.1X, 11"),
    "MVRP": (GVRP_GROUP, 0x88F5, "IEEE 802.1Q, 11"),
    "connectivity fault management": ("01:80:c2:00:00:30", 0x8902, "IEEE 802.1Q, 21"),
    "PTP": ("01:1b:19:00:00:00", 0x88F7, "IEEE 1588, annex F"),
    "MACsec": (BROADCAST, 0x88E5, "IEEE 802.1AE"),
    "RARP": (BROADCAST, 0x8035, "RFC 903"),
    "PPPoE discovery": (BROADCAST, 0x8863, "RFC 2516, 5"),
    "PPPoE session": ("victim", 0x8864, "RFC 2516, 6"),
    "loopback (ECTP)": ("victim", 0x9000, "Ethernet II, 8"),
    "FCoE": ("victim", 0x8906, "FC-BB-5"),
    "ATA over Ethernet": (BROADCAST, 0x88A2, "AoE; CVE-2023-6270"),
    "TRILL": ("01:80:c2:00:00:40", 0x22F3, "RFC 6325"),
    "provider backbone tag": ("victim", 0x88E7, "IEEE 802.1Q, 9.7"),
    "transparent Ethernet bridging": ("victim", 0x6558, "RFC 1701"),
    "NSH": ("victim", 0x894F, "RFC 8300"),
    "PROFINET": ("victim", 0x8892, "IEC 61158-6-10"),
    "wake on LAN": ("victim", 0x0842, "AMD Magic Packet"),
    "local experiment": ("victim", 0x88B5, "IEEE 802, 9.2.4"),
}
"""Destination, EtherType, source."""


def attacks(scene: Scene) -> Iterator[Exercise]:
    """Control frames and other EtherTypes."""
    make = Maker("link", scene.twin.name)
    twin, victim = scene.twin, scene.victim
    for what, (target, body, source) in LENGTH_FRAMES.items():
        yield make.attack(what, source, wire(ether(twin.mac, target, len(body))) + body)
    for what, (target, kind, source) in TYPED_FRAMES.items():
        to = victim.mac if target == "victim" else target
        yield make.attack(what, source, wire(ether(twin.mac, to, kind)) + bytes(46))
    yield from _disguised(scene, make)


def _disguised(scene: Scene, make: Maker) -> Iterator[Exercise]:
    """IP where no guard would look for it."""
    twin, victim = scene.twin, scene.victim
    path = scene.toward(6, 4)
    forged = wire(ip(4, victim.v4, path.address), layer4(path))
    routes = wire(*advertisement(twin.local, "ff02::1"))
    for kind, what in ((0x8847, "unicast"), (0x8848, "multicast")):
        label = (16 << 12 | 1 << 8 | 64).to_bytes(4, "big")
        frame = wire(ether(twin.mac, path.station.mac, kind)) + label + forged
        yield make.attack(f"forged IPv4 behind an MPLS {what} label", "RFC 3032", frame)
    for what, kind, body in (("forged IPv4", 0x0800, forged), ("router advertisement", 0x86DD, routes)):
        snap = SNAP + bytes(3) + kind.to_bytes(2, "big") + body
        to = path.station.mac if kind == 0x0800 else "33:33:00:00:00:01"
        for length, said in (
            (len(snap), ""),
            (1501, " of a length that is none"),
            (8, " with a wrong length"),
        ):
            source = "CVE-2021-27861, CVE-2021-27862; RFC 1042" if said else "CVE-2021-27853; RFC 1042"
            yield make.attack(f"{what} in LLC/SNAP{said}", source, wire(ether(twin.mac, to, length)) + snap)
    for kind in (0x0800, 0x86DD):
        other = forged if kind == 0x86DD else routes
        frame = wire(ether(twin.mac, path.station.mac, kind)) + other
        yield make.attack(f"the other IP version under {kind:#06x}", "RFC 2464, 3", frame)
