"""Programs that track connections in earnest, and dialogues for them.

Zones, marks, labels, translation and select groups; table 1 decides by the state that table 0 was given, and
what leaves shows its state as a tag. The words of a dialogue come in an order that makes connections.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from itertools import count

from tests.exams.differential.frames import Frame, ipv4_header, sealed
from tests.net.twin_generator import CLIENT, PROPER, ROUTER, SERVER, Host, Program, number_of
from vnet.openflow.fields import ETH_IPV4, ETH_IPV6
from vnet.openflow.flow import (
    Action,
    Conntrack,
    Flow,
    Instructions,
    Output,
    PushVlan,
    SetField,
    ToGroup,
    match,
)
from vnet.openflow.group import Bucket, Group, GroupType

FAMILIES = {ETH_IPV4: 4, ETH_IPV6: 6}
STATES = (*range(0x20, 0x30), 0x30)
OBSERVERS = (3, 4)
CLIENT_PORTS = (40001, 40002)
FLAGS = {"S": 2, "A": 0x10, "P": 8, "F": 1, "R": 4}
BYTES: dict[Host, tuple[bytes, bytes, bytes]] = {
    host: (number_of(host[0]).to_bytes(6, "big"), number_of(host[1]).to_bytes(4, "big"),
           number_of(host[2]).to_bytes(16, "big"))
    for host in (CLIENT, SERVER, ROUTER)
}  # fmt: skip


def connected(dice: random.Random, length: int) -> tuple[Program, tuple[Frame, ...]]:
    """A program and the packets for it."""
    program = _program(dice)
    talk = _Talk(dice)
    return program, tuple(frame for frame, _ in zip(talk.frames(), range(length), strict=False))


def _program(dice: random.Random) -> Program:
    zone = dice.choice((0, 7, 65535))
    groups = (Group(1, GroupType.SELECT, tuple(_bucket(dice, port) for port in OBSERVERS)),)
    flows = []
    for family in FAMILIES:
        by_register = not dice.randrange(3)
        track = Conntrack(
            zone=0 if by_register else zone, table=1, zone_field=("reg0", 0, 16) if by_register else None
        )
        flows.append(Flow(0, 1, match(eth_type=family), Instructions(apply=(SetField("reg0", zone), track))))
        flows += [_by_state(dice, family, zone, state) for state in STATES]
        flows += [_by_memory(dice, family, priority) for priority in range(20, 20 + dice.randrange(3))]
        flows += [_second_zone(dice, family)] * dice.randrange(2)
    return Program(tuple(flows), groups)


def _bucket(dice: random.Random, port: int) -> Bucket:
    tag: tuple[Action, ...] = (PushVlan(), SetField("vlan_vid", 0x1000 | 77)) if dice.randrange(2) else ()
    return Bucket((*tag, Output(port)), weight=dice.choice((1, 1, 5)))


def _by_state(dice: random.Random, family: int, zone: int, state: int) -> Flow:
    """What is new is mostly committed; what leaves tells the state."""
    new = state & 1 and not state & 0x10
    commit: tuple[Action, ...] = ()
    if new and dice.randrange(5) or not new and state != 0x30 and not dice.randrange(4):
        commit = (_commit(dice, zone),)
    show: tuple[Action, ...] = (PushVlan(), SetField("vlan_vid", 0x1000 | 0x100 | state))
    out: Action = ToGroup(1) if not dice.randrange(4) else Output(dice.choice(OBSERVERS))
    return Flow(
        1, 10, match(eth_type=family, ct_state=(state, 0x3F)), Instructions(apply=(*commit, *show, out))
    )


def _commit(dice: random.Random, zone: int) -> Conntrack:
    return Conntrack(
        zone=zone,
        commit=True,
        force=not dice.randrange(8),
        mark=(dice.randrange(4), 3) if dice.randrange(2) else None,
        label=(dice.randrange(4) << 64 | dice.randrange(2), 3 << 64 | 1) if dice.randrange(2) else None,
    )


def _by_memory(dice: random.Random, family: int, priority: int) -> Flow:
    """Connections with a mark or label go their own way."""
    what = dice.choice(({"ct_mark": (2, 2)}, {"ct_mark": (1, 3)}, {"ct_label": (1 << 64, 1 << 64)}))
    wanted = match(eth_type=family, ct_state=(0x20, 0x30), **what)
    again = (Conntrack(zone=dice.choice((8, 9)), table=2, commit=bool(dice.randrange(2))),)
    show = (SetField("eth_src", 0x020000000000 | priority), Output(dice.choice(OBSERVERS)))
    return Flow(1, priority, wanted, Instructions(apply=(*(again if dice.randrange(2) else ()), *show)))


def _second_zone(dice: random.Random, family: int) -> Flow:
    """What was tracked in another zone arrives here."""
    wanted = match(eth_type=family, ct_state=(0x21 if dice.randrange(2) else 0x20, 0x31))
    show = (PushVlan(), SetField("vlan_vid", 0x1000 | 0x200), Output(dice.choice(OBSERVERS)))
    return Flow(2, 5, wanted, Instructions(apply=show))


class _Talk:
    """Client at port 1, server at port 2, on few tuples; some says a router."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.script = {(port, six): count() for port in CLIENT_PORTS for six in (False, True)}
        self.sequence: dict[tuple[bool, int, bool], int] = {}

    def frames(self) -> Iterator[Frame]:
        """What is said, without end."""
        for number in count():
            dice = self.dice
            reply, six = dice.random() < 0.45, bool(dice.randrange(2))
            tail = struct.pack("!HH", dice.getrandbits(16), number & 0xFFFF)
            if dice.randrange(2):
                reply, protocol, segment = self._proper(six)
            else:
                kind = dice.choice((self._udp, self._udp, self._echo, self._error, self._stray))
                protocol, segment = kind(reply, six)
            sender, receiver = (SERVER, CLIENT) if reply else (CLIENT, SERVER)
            if protocol < 0:  # an error, perhaps of a router between
                protocol, sender = -protocol, sender if dice.randrange(2) else ROUTER
            data = _ethernet(sender, receiver, six, protocol, segment)
            yield Frame(2 if reply else 1, data + tail)

    def _sides(self, reply: bool, port: int) -> bytes:
        return struct.pack("!HH", *((80, port) if reply else (port, 80)))

    def _proper(self, six: bool) -> tuple[bool, int, bytes]:
        port = self.dice.choice(CLIENT_PORTS)
        word = PROPER[next(self.script[port, six]) % len(PROPER)]
        reply = word.endswith("<")
        return reply, 6, self._segment(reply, port, six, word[:-1])

    def _stray(self, reply: bool, six: bool) -> tuple[int, bytes]:
        flags = self.dice.choice(("S", "SA", "A", "R", "FA", "SF", ""))
        return 6, self._segment(reply, self.dice.choice(CLIENT_PORTS), six, flags)

    def _segment(self, reply: bool, port: int, six: bool, flags: str) -> bytes:
        mine = self.sequence.get((reply, port, six), 1000)
        theirs = self.sequence.get((not reply, port, six), 1000)
        self.sequence[reply, port, six] = mine + ("S" in flags) + ("F" in flags)
        bits = 5 << 12 | sum(FLAGS[flag] for flag in flags)
        numbers = struct.pack("!IIHHHH", mine, theirs if "A" in flags else 0, bits, 8192, 0, 0)
        return self._sides(reply, port) + numbers

    def _udp(self, reply: bool, _six: bool) -> tuple[int, bytes]:
        payload = self.dice.randbytes(self.dice.choice((0, 5)))
        sides = self._sides(reply, self.dice.choice(CLIENT_PORTS))
        return 17, sides + struct.pack("!HH", 8 + len(payload), 0) + payload

    def _echo(self, reply: bool, six: bool) -> tuple[int, bytes]:
        asks = reply == (not self.dice.randrange(4))
        kind = (129, 128)[asks] if six else (0, 8)[asks]
        message = struct.pack("!BBHHH", kind, 0, 0, self.dice.choice((1, 2)), 1)
        return (58 if six else 1), message

    def _error(self, reply: bool, six: bool) -> tuple[int, bytes]:
        """About a packet that went the other way, mostly."""
        dice = self.dice
        quoted_reply = not reply if dice.randrange(6) else reply
        sender, receiver = (SERVER, CLIENT) if quoted_reply else (CLIENT, SERVER)
        sides = self._sides(quoted_reply, dice.choice(CLIENT_PORTS))
        inner = sides + struct.pack("!HH", 8, 0)
        if six:
            quoted = _ipv6(sender, receiver, 17, inner)
            return -58, struct.pack("!BBHI", dice.choice((1, 3)), 0, 0, 0) + quoted
        protocol = dice.choice((6, 17))
        quoted = _ipv4(sender, receiver, protocol, inner)
        return -1, struct.pack("!BBHI", dice.choice((3, 11)), 0, 0, 0) + quoted


CHECKSUM_AT = {6: 16, 17: 6, 1: 2, 58: 2}


def _ethernet(sender: Host, receiver: Host, six: bool, protocol: int, segment: bytes) -> bytes:
    index = 2 if six else 1
    addresses = b"" if protocol == 1 else BYTES[sender][index] + BYTES[receiver][index]
    segment = sealed(protocol, segment, addresses, CHECKSUM_AT[protocol])
    packet = (_ipv6 if six else _ipv4)(sender, receiver, protocol, segment)
    ethertype = ETH_IPV6 if six else ETH_IPV4
    return BYTES[receiver][0] + BYTES[sender][0] + ethertype.to_bytes(2, "big") + packet


def _ipv4(sender: Host, receiver: Host, protocol: int, body: bytes) -> bytes:
    return ipv4_header(BYTES[sender][1], BYTES[receiver][1], protocol, len(body)) + body


def _ipv6(sender: Host, receiver: Host, protocol: int, body: bytes) -> bytes:
    start = struct.pack("!IHBB", 6 << 28, len(body), protocol, 64)
    return start + BYTES[sender][2] + BYTES[receiver][2] + body
