"""Generated rules, packets and dialogues out of a small universe, so that they meet each other often."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, TCPerror, UDPerror
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from vnet.openflow.fields import ETH_ARP, ETH_IPV4, ETH_IPV6, FIELDS
from vnet.openflow.flow import (
    Action,
    Conntrack,
    Flow,
    Instructions,
    Match,
    Move,
    Output,
    OutputField,
    PopVlan,
    Port,
    PushVlan,
    SetField,
    match,
)

PORTS = (1, 2, 3, 4)
MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:01:01")
MULTICAST = "01:00:5e:00:00:01"
V4 = ("10.0.0.1", "10.0.0.2", "10.0.1.1", "192.0.2.1")
V6 = ("fd00::1", "fd00::2", "fd00:0:0:1::1", "fe80::1")
L4 = (53, 80, 81, 443, 8080)
VIDS = (10, 20, 300)

CLIENT, SERVER = ("02:00:00:00:00:01", "10.0.0.1", "fd00::1"), ("02:00:00:00:00:02", "10.0.0.2", "fd00::2")
ROUTER = ("02:00:00:00:00:09", "10.0.0.9", "fd00::9")


def number(text: str) -> int:
    """A MAC or IP address as an integer."""
    import ipaddress

    if text.count(":") == 5 and "::" not in text:
        return int(text.replace(":", ""), 16)
    return int(ipaddress.ip_address(text))


# -- packets --------------------------------------------------------------------------------------


def packets(dice: random.Random, count: int) -> Iterator[tuple[int, bytes]]:
    """(ingress port, frame): some repeated by another port, some cut off."""
    for _ in range(count):
        frame = bytes(_ethernet(dice))
        if not dice.randrange(25):
            frame = frame[: dice.randrange(14, len(frame) + 1)]
        elif not dice.randrange(8):
            frame += bytes(dice.randrange(1, 9))
        yield dice.choice(PORTS), frame


def _ethernet(dice: random.Random) -> Packet:
    frame = Ether(src=dice.choice(MACS), dst=dice.choice((*MACS, MULTICAST, "ff:ff:ff:ff:ff:ff")))
    for _ in range(dice.choice((0, 0, 0, 0, 1, 1, 2))):
        frame /= Dot1Q(vlan=dice.choice(VIDS), prio=dice.choice((0, 0, 3, 7)))
    return frame / dice.choice((_arp, _ipv4, _ipv4, _ipv4, _ipv6, _ipv6, _ipv6, _unknown))(dice)


def _unknown(dice: random.Random) -> Packet:
    return Raw(dice.randbytes(30))


def _arp(dice: random.Random) -> Packet:
    return ARP(
        op=dice.choice((1, 2)),
        hwsrc=dice.choice(MACS),
        hwdst=dice.choice(MACS),
        psrc=dice.choice(V4),
        pdst=dice.choice(V4),
    )


def _ipv4(dice: random.Random) -> Packet:
    options = [] if dice.randrange(5) else [b"\x94\x04\x00\x00"]
    header = IP(src=dice.choice(V4), dst=dice.choice(V4), tos=dice.choice((0, 3, 184)), options=options)
    kind = dice.randrange(8)
    if kind == 0:
        header.frag, header.proto = dice.choice((1, 185)), dice.choice((6, 17, 1))
        return header / Raw(dice.randbytes(24))
    if kind == 1:
        header.flags = "MF"
    icmp = ICMP(type=dice.choice((0, 8, 3, 13)), code=dice.choice((0, 1)), id=7)
    return header / dice.choice((_transport(dice), _transport(dice), icmp)) / Raw(dice.randbytes(8))


def _transport(dice: random.Random) -> Packet:
    ports = {"sport": dice.choice(L4), "dport": dice.choice(L4)}
    return TCP(flags="S", **ports) if dice.randrange(2) else UDP(**ports)


def _ipv6(dice: random.Random) -> Packet:
    header = IPv6(src=dice.choice(V6), dst=dice.choice(V6), tc=dice.choice((0, 3, 184)))
    if not dice.randrange(4):
        header /= dice.choice((IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt()))
    if not dice.randrange(6):
        offset, more = dice.choice(((0, 0), (0, 1), (3, 0)))
        header /= IPv6ExtHdrFragment(offset=offset, m=more, id=9, nh=17)
        if offset:
            return header / Raw(dice.randbytes(24))
    return header / dice.choice((_transport, _transport, _icmpv6))(dice) / Raw(dice.randbytes(8))


def _icmpv6(dice: random.Random) -> Packet:
    target = dice.choice(V6)
    mac = dice.choice(MACS)
    return dice.choice(
        (
            ICMPv6EchoRequest(id=7),
            ICMPv6ND_NS(tgt=target) / ICMPv6NDOptSrcLLAddr(lladdr=mac),
            ICMPv6ND_NA(tgt=target) / ICMPv6NDOptDstLLAddr(lladdr=mac),
            ICMPv6ND_NS(tgt=target),
        )
    )


# -- rules ----------------------------------------------------------------------------------------

TABLES = 4
INVALID = (0x30, 0x30)
"""+trk+inv, with which Open vSwitch refuses to commit."""


def rules(dice: random.Random) -> tuple[Flow, ...]:
    """Four tables of overlapping flows; priorities are distinct within a table.

    A set uses either `ct` or action sets: Open vSwitch 3.1 aborts when a packet with an action set is
    recirculated (assertion in `recirc_alloc_id__`).
    """
    flows, tracks = [], bool(dice.randrange(3))
    for table in range(TABLES):
        priorities = dice.sample(range(1, 1000), dice.randrange(4, 14))
        flows += [_flow(dice, table, priority, tracks) for priority in priorities]
        if dice.randrange(3):
            miss = Instructions(apply=_actions(dice, table, {}, tracks), goto=_goto(dice, table))
            flows.append(Flow(table, 0, Match(), miss))
    return tuple(flows)


def _goto(dice: random.Random, table: int) -> int | None:
    return dice.randrange(table + 1, TABLES) if table < TABLES - 1 and dice.randrange(4) else None


def _flow(dice: random.Random, table: int, priority: int, tracks: bool) -> Flow:
    wanted = _wanted(dice, table)
    write = (Output(dice.choice(PORTS)),) if not tracks and not dice.randrange(4) else ()
    instructions = Instructions(
        apply=_actions(dice, table, wanted, tracks) if dice.randrange(6) else (),
        clear=not dice.randrange(12),
        write=write,
        metadata=(dice.randrange(16), 0xF) if not dice.randrange(5) else None,
        goto=_goto(dice, table),
    )
    return Flow(table, priority, match(**wanted), instructions)


Wanted = dict[str, Any]


def _wanted(dice: random.Random, table: int) -> Wanted:
    """A match that fulfils its own prerequisites, rarely long: then rules overlap."""
    wanted: Wanted = {}
    for _ in range(dice.choice((0, 1, 1, 2, 3))):
        dice.choice((_layer1, _layer2, _layer2, _layer3, _layer3, _layer3, _layer4, _layer4))(dice, wanted)
    if table and not dice.randrange(3):
        name = dice.choice(("reg0", "reg1", "reg3", "metadata"))
        wanted[name] = (dice.randrange(4), dice.choice((1, 3, 0xFF)))
        wanted[name] = wanted[name][0] & wanted[name][1], wanted[name][1]
    if table and not dice.randrange(5):
        wanted["ct_state"] = dice.choice(((0x21, 0x21), (0x22, 0x22), INVALID, (0, 0x20), (0x20, 0x30)))
    return wanted


def _layer1(dice: random.Random, wanted: Wanted) -> None:
    wanted["in_port"] = dice.choice(PORTS)


def _layer2(dice: random.Random, wanted: Wanted) -> None:
    kind = dice.randrange(5)
    if kind == 0:
        wanted["eth_src"] = number(dice.choice(MACS))
    elif kind == 1:
        mask = dice.choice((FIELDS["eth_dst"].full_mask, 1 << 40, 0xFF))
        wanted["eth_dst"] = (number(dice.choice((*MACS, MULTICAST))) & mask, mask)
    elif kind == 2:
        wanted["vlan_vid"] = 0
        wanted.pop("vlan_pcp", None)
    else:
        wanted["vlan_vid"] = dice.choice((0x1000 | dice.choice(VIDS), (0x1000, 0x1000)))
        if not dice.randrange(3):
            wanted["vlan_pcp"] = dice.choice((0, 3))


def _layer3(dice: random.Random, wanted: Wanted) -> None:
    family = wanted.setdefault("eth_type", dice.choice((ETH_IPV4, ETH_IPV4, ETH_IPV6, ETH_IPV6, ETH_ARP)))
    if family == ETH_ARP:
        wanted[dice.choice(("arp_spa", "arp_tpa"))] = _address(dice, V4, 32)
        wanted["arp_op"] = dice.choice((1, 2))
    elif family in (ETH_IPV4, ETH_IPV6):
        version, pool, bits = ("ipv4", V4, 32) if family == ETH_IPV4 else ("ipv6", V6, 128)
        wanted[f"{version}_{dice.choice(('src', 'dst'))}"] = _address(dice, pool, bits)
        if not dice.randrange(4):
            wanted["ip_dscp" if dice.randrange(2) else "ip_ecn"] = dice.choice((0, 3, 46)) & 3
        if not dice.randrange(6):
            wanted["ip_frag"] = dice.choice(((0, 3), (1, 1), (1, 3), (2, 2)))
            if "ip_proto" in wanted and wanted["ip_frag"] == (2, 2):
                del wanted["ip_frag"]


def _address(dice: random.Random, pool: tuple[str, ...], bits: int) -> tuple[int, int]:
    full = (1 << bits) - 1
    mask = full << dice.choice((0, 0, bits // 4, bits // 2, bits - 8)) & full
    return number(dice.choice(pool)) & mask, mask


def _layer4(dice: random.Random, wanted: Wanted) -> None:
    family = wanted.setdefault("eth_type", dice.choice((ETH_IPV4, ETH_IPV6)))
    if family == ETH_ARP or wanted.get("ip_frag") == (2, 2):
        return
    icmp = 1 if family == ETH_IPV4 else 58
    protocol = wanted.setdefault("ip_proto", dice.choice((6, 17, icmp)))
    if protocol == icmp:
        kind = dice.choice((0, 8) if icmp == 1 else (128, 135, 136))
        wanted.setdefault("icmpv4_type" if icmp == 1 else "icmpv6_type", kind)
        if wanted.get("icmpv6_type") in (135, 136):
            wanted["ipv6_nd_target"] = _address(dice, V6, 128)
            if dice.randrange(2):
                option = "ipv6_nd_sll" if wanted["icmpv6_type"] == 135 else "ipv6_nd_tll"
                wanted[option] = number(dice.choice(MACS))
        return
    name = f"{'tcp' if protocol == 6 else 'udp'}_{dice.choice(('src', 'dst'))}"
    value = dice.choice(L4)
    mask = dice.choice((0xFFFF, 0xFFFF, 0xFFF0))
    wanted[name] = (value & mask, mask)


def _actions(dice: random.Random, table: int, wanted: Wanted, tracks: bool) -> tuple[Action, ...]:
    """Actions whose prerequisites the match fulfils, as Open vSwitch checks them."""
    tagged = bool(wanted.get("vlan_vid"))
    found: list[Action] = []
    for _ in range(dice.choice((0, 1, 1, 2, 3))):
        kind = dice.randrange(12)
        if kind < 3:
            found.append(Output(dice.choice((*PORTS, Port.IN_PORT, Port.FLOOD, Port.ALL))))
        elif kind == 3:
            found += [SetField("reg2", dice.choice(PORTS)), OutputField("reg2")]
        elif kind == 4:
            found.append(SetField(f"reg{dice.randrange(4)}", dice.randrange(4), dice.choice((None, 3, 1))))
        elif kind == 5:
            found.append(_move(dice, wanted))
        elif kind == 6 and wanted.get("vlan_vid") == 0 and not tagged:
            found += [PushVlan(), SetField("vlan_vid", 0x1000 | dice.choice(VIDS))]
            tagged = True
            break
        elif kind == 7 and tagged:
            found.append(SetField("vlan_vid", 0x1000 | dice.choice(VIDS)))
        elif kind == 8 and tagged:
            found.append(PopVlan())
            break
        elif kind == 9:
            found.append(SetField(dice.choice(("eth_src", "eth_dst")), number(dice.choice(MACS))))
        elif kind > 9 and tracks and wanted.get("eth_type") in (ETH_IPV4, ETH_IPV6):
            resume = dice.randrange(table + 1, TABLES + 1) if dice.randrange(3) else None
            commit = wanted.get("ct_state") != INVALID and bool(dice.randrange(2))
            found.append(Conntrack(zone=dice.choice((0, 7)), table=resume, commit=commit))
    return tuple(found)


def _move(dice: random.Random, wanted: Wanted) -> Move:
    names = [name for name in wanted if name.startswith(("tcp_", "udp_")) and name[4:] in ("src", "dst")]
    if names:
        return Move(names[0], "reg3", 16)
    offset = dice.choice((0, 8))
    return Move(f"reg{dice.randrange(4)}", f"reg{dice.randrange(4)}", 8, offset, dice.choice((0, 8)))


# -- dialogues ------------------------------------------------------------------------------------

FLAGS = ("S", "SA", "A", "PA", "FA", "R", "RA", "F", "SF", "SR", "", "P")
PROPER = ("S>", "S>", "SA<", "A>", "PA>", "A<", "PA<", "A>", "FA>", "A<", "FA<", "A>", "A>")
"""A connection as it should go, with one SYN sent twice; > is what the client says."""


CLIENT_PORTS = (40001, 40002)


def _sides(reply: bool, port: int) -> dict[str, int]:
    return {"sport": 80, "dport": port} if reply else {"sport": port, "dport": 80}


class Dialogue:
    """Two hosts (and a router that reports errors) who say something at random, on few tuples."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.sequence: dict[tuple[bool, int], int] = {}
        self.script = {port: count() for port in CLIENT_PORTS}

    def next(self) -> tuple[int, bytes, str]:
        """(ingress port, frame, what it is)."""
        reply = self.dice.random() < 0.45
        if self.dice.random() < 0.45:
            reply, frame, said = self._proper_tcp()
        else:
            frame, said = self.dice.choice((self._tcp, self._udp, self._udp, self._echo, self._error))(reply)
        return (2 if reply else 1), bytes(frame), said

    def _proper_tcp(self) -> tuple[bool, Packet, str]:
        port = self.dice.choice(CLIENT_PORTS)
        word = PROPER[next(self.script[port]) % len(PROPER)]
        reply = word.endswith("<")
        return reply, *self._segment(reply, port, word[:-1])

    def _hosts(self, reply: bool) -> tuple[tuple[str, str, str], tuple[str, str, str]]:
        return (SERVER, CLIENT) if reply else (CLIENT, SERVER)

    def _ip(self, reply: bool, six: bool) -> Packet:
        sender, receiver = self._hosts(reply)
        ip = IPv6(src=sender[2], dst=receiver[2]) if six else IP(src=sender[1], dst=receiver[1])
        return Ether(src=sender[0], dst=receiver[0]) / ip

    def _ports(self, reply: bool) -> tuple[dict[str, int], int]:
        port = self.dice.choice(CLIENT_PORTS)
        return _sides(reply, port), port

    def _tcp(self, reply: bool) -> tuple[Packet, str]:
        return self._segment(reply, self.dice.choice(CLIENT_PORTS), self.dice.choice(FLAGS))

    def _segment(self, reply: bool, port: int, flags: str) -> tuple[Packet, str]:
        ports = _sides(reply, port)
        mine, theirs = self.sequence.get((reply, port), 1000), self.sequence.get((not reply, port), 1000)
        segment = TCP(flags=flags, seq=mine, ack=theirs if "A" in flags else 0, **ports)
        self.sequence[reply, port] = mine + ("S" in flags) + ("F" in flags)
        return self._ip(reply, False) / segment, f"TCP {port} {flags or 'no flags'}"

    def _udp(self, reply: bool) -> tuple[Packet, str]:
        ports, port = self._ports(reply)
        six = bool(self.dice.randrange(2))
        return self._ip(reply, six) / UDP(**ports) / Raw(b"hello"), f"UDP{6 if six else 4} {port}"

    def _echo(self, reply: bool) -> tuple[Packet, str]:
        six, asks, identifier = self.dice.randrange(2), self.dice.randrange(3) > 0, self.dice.choice((1, 2))
        if six:
            message: Packet = ICMPv6EchoRequest(id=identifier) if asks else ICMPv6EchoReply(id=identifier)
        else:
            message = ICMP(type=8 if asks else 0, id=identifier)
        said = f"echo{6 if six else 4} {'request' if asks else 'reply'} {identifier}"
        return self._ip(reply, bool(six)) / message, said

    def _error(self, reply: bool) -> tuple[Packet, str]:
        """An error about what the other side (or, rarely, somebody else) sent, from it or from a router."""
        dice, six = self.dice, bool(self.dice.randrange(2))
        quoted_reply = not reply if dice.randrange(6) else reply
        ports, _ = self._ports(quoted_reply)
        frame = self._ip(reply, six)
        sender, receiver = self._hosts(quoted_reply)
        if six:
            if not dice.randrange(2):
                frame[IPv6].src = ROUTER[2]
            quoted = IPv6(src=sender[2], dst=receiver[2]) / UDP(**ports)
            return frame / ICMPv6DestUnreach(code=4) / quoted, f"unreachable6 about UDP {ports}"
        if not dice.randrange(2):
            frame[IP].src = ROUTER[1]
        inner = UDPerror(**ports) if dice.randrange(2) else TCPerror(**ports)
        quoted = IPerror(src=sender[1], dst=receiver[1]) / inner
        kind = dice.choice((3, 4, 11, 12))
        return frame / ICMP(type=kind, code=0) / quoted, f"ICMP error {kind} about {inner.name} {ports}"
