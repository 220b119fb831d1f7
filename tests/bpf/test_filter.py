"""Filters of taps in the kernel = libpcap's own interpreter, on packets of all kinds and on broken ones."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator, Sequence

import pytest
from scapy.contrib.mpls import MPLS
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, LLC, SNAP, Dot1Q, Dot3, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.layers.sctp import SCTP
from scapy.packet import Raw

from tests.bpf.bench import Bench
from tests.bpf.pcap_oracle import Oracle, runs
from vnet.base.errors import InputError
from vnet.capture.live.libpcap import compile_filter
from vnet.switch.abi import TAPS, Point
from vnet.switch.live.netns import inside
from vnet.switch.taps import ANCILLARY, Tap, check

EXPRESSIONS = (
    "ip", "ip6", "arp", "rarp", "tcp", "udp", "sctp", "icmp", "icmp6", "igmp", "stp", "multicast",
    "broadcast", "host 10.0.0.1", "src host 10.0.0.1", "dst host 10.0.0.2 and tcp", "net 10.0.0.0/24",
    "src net 10.0.0.0/31", "host 2001:db8::1", "ip6 net 2001:db8::/32", "ether host 02:00:00:00:00:01",
    "ether src 02:00:00:00:00:01", "ether dst 02:00:00:00:00:02", "ether proto 0x88b5", "ether multicast",
    "ether[0] & 1 != 0", "port 53", "tcp port 443", "udp port 53", "src port 53", "dst portrange 400-500",
    "portrange 1-1023", "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0", "tcp[13] = 2", "tcp[tcpflags] == tcp-ack",
    "ip[0] & 0xf != 5", "ip[6:2] & 0x1fff = 0", "ip[6:2] & 0x3fff != 0", "icmp[icmptype] = icmp-echo",
    "icmp6[0] = 128", "ip proto 132", "ip6 proto 58", "ip6 protochain 6", "ip protochain 6", "ip[8] < 5",
    "ip[2:2] > 100", "len > 100", "len = 60", "less 80", "greater 80", "not ip", "not (arp or ip6)",
    "ip or ip6 or arp", "vlan", "vlan 10", "vlan 10 and ip", "vlan and vlan 20",
    "vlan 10 and vlan 20 and tcp port 443", "not vlan", "mpls", "mpls 7", "mpls and ip", "pppoes",
    "pppoes and ip", "pppoed", "tcp[((tcp[12] & 0xf0) >> 2):4] = 0x47455420", "udp[8:4] = 0x01020304",
    "ether[12:2] * 2 = 4096", "ip[2:2] - ((ip[0] & 0xf) << 2) - ((tcp[12] & 0xf0) >> 2) != 0",
    "ether[14] / 16 = 4", "ether[14] % 16 = 5", "ether[20] ^ 0x40 = 0", "ip[0] >> 4 = 4",
    "1 << 4 = len >> 2", "ether[5000] = 1", "ether[len - 1] = 0", "ip[ip[0] & 0xf] != 0",
    "ether[ether[14]:4] > 3", "link[0] = 2", "100 / (ether[13]) > 3", "len % ether[1] = 0",
    "tcp src port 443 and host 10.0.0.1 or udp dst port 53 and not host 10.0.0.9",
    "(tcp port 80 or tcp port 443) and (host 10.0.0.1 or host 2001:db8::1) and not net 10.9.0.0/16",
    " or ".join(f"host 10.0.{n >> 8}.{n & 255}" for n in range(120)),
)  # fmt: skip

A, B = "02:00:00:00:00:01", "02:00:00:00:00:02"


def link(**more: object) -> Ether:
    return Ether(src=A, dst=B, **more)


def kinds() -> Iterator[bytes]:
    four, six = IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="2001:db8::1", dst="2001:db8::2")
    syn, query = (
        TCP(sport=40000, dport=443, flags="S"),
        UDP(sport=40000, dport=53) / DNS(qd=DNSQR(qname="a.b")),
    )
    web = TCP(sport=40000, dport=80, flags="PA") / Raw(b"GET / HTTP/1.1\r\n")
    for frame in (
        *(
            link() / four / inner
            for inner in (syn, query, web, ICMP(), SCTP(sport=1, dport=2), Raw(b"\1" * 90))
        ),
        *(link() / six / inner for inner in (syn, query, web, ICMPv6EchoRequest(data=b"x" * 40))),
        link() / six / IPv6ExtHdrHopByHop() / syn,
        link() / six / IPv6ExtHdrFragment(offset=3, nh=6) / Raw(bytes(40)),
        link() / IP(src="10.0.0.1", dst="10.0.0.9", options=[IPOption_NOP()] * 8, ttl=3) / syn,
        link() / IP(src="10.0.0.1", dst="10.0.0.2", frag=9, proto=6) / Raw(bytes(range(64))),
        link() / IP(src="10.0.0.1", dst="10.0.0.2", flags="MF") / syn / Raw(bytes(64)),
        link() / ARP(psrc="10.0.0.1", pdst="10.0.0.2"),
        link(type=0x8035) / ARP(psrc="10.0.0.1", pdst="10.0.0.2"),
        Ether(src=A, dst="ff:ff:ff:ff:ff:ff") / ARP(psrc="10.0.0.1", pdst="10.0.0.2"),
        Ether(src=A, dst="01:00:5e:00:00:01") / IP(src="10.0.0.1", dst="224.0.0.1", proto=2) / Raw(bytes(8)),
        link() / Dot1Q(vlan=10) / four / syn,
        link() / Dot1Q(vlan=10, prio=5) / six / query,
        link() / Dot1Q(vlan=10) / Dot1Q(vlan=20) / four / syn,
        link(type=0x88A8) / Dot1Q(vlan=10) / Dot1Q(vlan=20) / four / query,
        link() / MPLS(label=7, s=1) / four / syn,
        link() / MPLS(label=7, s=0) / MPLS(label=8, s=1) / four / syn,
        link(type=0x8864) / PPPoE(sessionid=3) / PPP(proto=0x21) / four / syn,
        link(type=0x8863) / Raw(bytes(20)),
        link(type=0x88B5) / Raw(bytes(range(46))),
        Dot3(src=A, dst="01:80:c2:00:00:00") / LLC(dsap=0x42, ssap=0x42) / Raw(bytes(38)),
        Dot3(src=A, dst=B) / LLC() / SNAP(code=0x800) / four / syn,
    ):
        yield bytes(frame)


def spoiled(frames: Sequence[bytes], rounds: int, seed: int) -> Iterator[bytes]:
    """Cut short, with wrong bytes, lengthened: what a guest could send and no host would."""
    chance = random.Random(seed)
    for _ in range(rounds):
        frame = bytearray(chance.choice(frames))
        for _ in range(chance.choice((0, 0, 1, 3))):
            frame[chance.randrange(min(60, len(frame)))] = chance.choice((0, 1, 0x45, 0x4F, 0x60, 0xFF, 0x81))
        if chance.random() < 0.5:
            del frame[chance.randint(14, len(frame)) :]
        yield bytes(frame) + bytes(chance.choice((0, 0, 0, 1, 7)))


LEAST = {b"\x08\x00": 34, b"\x86\xdd": 54}
"""Bytes of a frame that BPF_PROG_TEST_RUN wants of these EtherTypes (net/bpf/test_run.c)."""


def taken(bench: Bench, frame: bytes) -> int:
    """Which taps are told of a frame, as bits."""
    if len(frame) >= LEAST.get(frame[12:14], 14):
        bench.datapath.run(1, frame)
    else:
        with wire(bench) as sender:
            sender.send(frame)
    return told(bench)


def wire(bench: Bench) -> socket.socket:
    """The other end of port 1. What is sent there has its tag beside it when a program sees it."""
    with inside(bench.netns):
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    opened.bind(("q1", 0))
    return opened


def told(bench: Bench) -> int:
    events = bench.datapath.read_events()
    return next((event.taps for event in events if event.point is Point.GUEST), 0)


def groups() -> list[tuple[str, ...]]:
    return [EXPRESSIONS[at : at + TAPS] for at in range(0, len(EXPRESSIONS), TAPS)]


def tap(expression: str) -> Tap:
    return Tap(frozenset({1}), compile_filter(expression))


@pytest.mark.parametrize("group", groups(), ids=lambda group: group[0])
def test_filters_take_what_libpcap_takes(bench: Bench, group: tuple[str, ...]) -> None:
    oracles = [Oracle(expression) for expression in group]
    bench.datapath.tap(dict(enumerate(map(tap, group))))
    frames = [*kinds()]
    both = 0
    for frame in (*frames, *spoiled(frames, 1500, seed=5)):
        mask = taken(bench, frame)
        for number, oracle in enumerate(oracles):
            wanted = oracle.takes(frame)
            assert bool(mask >> number & 1) is wanted, (group[number], frame.hex())
            both |= 1 << (2 * number + wanted)
    assert both.bit_count() >= 1.8 * len(group), "nearly every filter took one frame and left one"


def insns(seed: int) -> bytes:
    """A program of all there is in classic BPF; it need not make sense."""
    chance = random.Random(seed)
    n = chance.randint(2, 40)
    code = [
        struct.pack("=HBBI", 2, 0, 0, word) for word in range(16)
    ]  # libpcap leaves its memory as it finds it
    for at in range(n - 1):
        kind = chance.choice(
            [
                0x20,
                0x28,
                0x30,
                0x40,
                0x48,
                0x50,
                0x00,
                0x80,
                0x60,
                0x01,
                0x81,
                0x61,
                0xB1,
                0x02,
                0x03,
                0x07,
                0x87,
            ]
            + [op | source | 4 for op in (0, 0x10, 0x20, 0x30, 0x40, 0x50, 0x90, 0xA0) for source in (0, 8)]
            + [0x6C, 0x7C, 0x64, 0x74, 0x84]
            + [op | source | 5 for op in (0x10, 0x20, 0x30, 0x40) for source in (0, 8)]
        )
        room = min(255, n - 2 - at)
        k = chance.choice(
            (0, 1, 3, 12, 13, 14, 15, 16, 23, 40, 0x800, 0x8100, 0xFFFFFFFF, chance.getrandbits(32))
        )
        if kind in (0x20, 0x28, 0x30):
            k %= ANCILLARY
        if kind in (0x02, 0x03, 0x60, 0x61):
            k %= 16
        if kind in (0x64, 0x74):
            k %= 32
        if kind in (0x34, 0x94):
            k = k or 1
        code.append(struct.pack("=HBBI", kind, chance.randint(0, room), chance.randint(0, room), k))
    return b"".join(code) + struct.pack("=HBBI", chance.choice((0x06, 0x16)), 0, 0, chance.choice((0, 1)))


def test_generated_programs_end_as_libpcaps_interpreter_does(bench: Bench) -> None:
    frames = [*kinds()]
    for first in range(0, 640, TAPS):
        programs = [insns(first + n) for n in range(TAPS)]
        for program in programs:
            check(program)
        bench.datapath.tap({n: Tap(frozenset({1}), program) for n, program in enumerate(programs)})
        for frame in spoiled(frames, 40, seed=first):
            mask = taken(bench, frame)
            for number, program in enumerate(programs):
                assert bool(mask >> number & 1) is runs(program, frame), (program.hex(), frame.hex())


def test_the_longest_filter_runs_to_its_end(bench: Bench) -> None:
    add = struct.pack("=HBBI", 0x04, 0, 0, 1)  # A += 1
    last = (
        struct.pack("=HBBI", 0x15, 0, 1, 4093),
        struct.pack("=HBBI", 6, 0, 0, 1),
        struct.pack("=HBBI", 6, 0, 0, 0),
    )
    full = add * 4093 + b"".join(last)
    bench.datapath.tap({n: Tap(frozenset({1}), full) for n in range(TAPS)})
    assert taken(bench, next(kinds())) == 0xFFFFFFFF
    with pytest.raises(InputError, match="4097 instructions; 4096"):
        check(add + full)


def test_a_tag_beside_the_frame_is_seen_where_the_file_shows_it(bench: Bench) -> None:
    """What comes over a wire has its outermost tag taken off by the kernel before any program sees it."""
    group = [e for e in EXPRESSIONS if "vlan" in e] + ["ip", "tcp", "len > 60", "ether[12:4] = 0x8100a00a"]
    group += [
        "ether[13] = 0",
        "ether[11:4] > 5",
        "ether[14:2] = 10",
        "ether[15:2] = 0x0a08",
        "ether[16:2] = 0x800",
    ]
    oracles = [Oracle(expression) for expression in group]
    bench.datapath.tap(dict(enumerate(map(tap, group))))
    with wire(bench) as sender:
        frames = [*kinds()]
        for frame in (*frames, *spoiled(frames, 300, seed=7)):
            if len(frame) < 20 or frame[12:14] not in (b"\x81\x00", b"\x88\xa8"):
                continue
            sender.send(frame)
            mask = told(bench)
            assert mask == sum(oracle.takes(frame) << n for n, oracle in enumerate(oracles)), frame.hex()


def test_a_filter_that_leaves_itself_is_refused() -> None:
    with pytest.raises(InputError, match="instruction 0 of the filter jumps out"):
        check(struct.pack("=HBBI", 0x15, 3, 0, 0) + struct.pack("=HBBI", 6, 0, 0, 1))
    with pytest.raises(InputError, match="does not end with a return"):
        check(struct.pack("=HBBI", 0, 0, 0, 0))
    with pytest.raises(InputError, match="memory word 16"):
        check(struct.pack("=HBBI", 2, 0, 0, 16) + struct.pack("=HBBI", 6, 0, 0, 1))
