"""Generated rules, packets and dialogues out of a small universe, so that they meet each other often."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

from scapy.contrib.mpls import MPLS
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
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw

from vnet.openflow.fields import ETH_ARP, ETH_IPV4, ETH_IPV6, ETH_MPLS, ETH_SVLAN, ETH_VLAN, FIELDS
from vnet.openflow.flow import (
    Action,
    Conntrack,
    ConntrackClear,
    DecIpTtl,
    DecMplsTtl,
    Flow,
    Instructions,
    Match,
    Move,
    Nat,
    Output,
    OutputField,
    PopMpls,
    PopVlan,
    Port,
    PushMpls,
    PushVlan,
    Resubmit,
    SetField,
    SetIpTtl,
    SetMplsTtl,
    ToGroup,
    match,
)
from vnet.openflow.group import Bucket, Group, GroupType

PORTS = (1, 2, 3, 4)
DOWN = 9
"""A port that does not exist, for buckets that watch it."""
MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:01:01")
MULTICAST = "01:00:5e:00:00:01"
V4 = ("10.0.0.1", "10.0.0.2", "10.0.1.1", "192.0.2.1")
V6 = ("fd00::1", "fd00::2", "fd00:0:0:1::1", "fe80::1")
L4 = (53, 80, 81, 443, 8080)
VIDS = (10, 20, 300)
WRONG = (0, 0x1234)
"""Checksums; 0xffff is 0 in another guise, and which of both a change leads to is nobody's concern."""
TTLS = (1, 2, 64, 64, 255)
FLOW_LABELS = (0, 0xA5, 0xFFFFF)
LABEL_V4, LABEL_V6, LABELS = 100, 200, (16, 17, 18)
"""At the bottom of a stack the label says what it carries, so that it can be popped; LABELS do not."""

CLIENT, SERVER = ("02:00:00:00:00:01", "10.0.0.1", "fd00::1"), ("02:00:00:00:00:02", "10.0.0.2", "fd00::2")
ROUTER = ("02:00:00:00:00:09", "10.0.0.9", "fd00::9")
PUBLIC = ("02:00:00:00:00:09", "192.0.2.9", "fd00:9::9")
"""The address that a translation shows to the other side."""
Host = tuple[str, str, str]


def number_of(text: str) -> int:
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
        tag = dice.choice((Dot1Q, Dot1Q, Dot1AD))
        frame /= tag(vlan=dice.choice(VIDS), prio=dice.choice((0, 0, 3, 7)))
    kinds = (_arp, _ipv4, _ipv4, _ipv4, _ipv6, _ipv6, _ipv6, _mpls, _unknown)
    return frame / dice.choice(kinds)(dice)


def _mpls(dice: random.Random) -> Packet:
    """One or two labels; the inner one says which IP follows."""
    stack: Packet | None = None
    if not dice.randrange(3):
        stack = _label(dice, dice.choice(LABELS), bottom=False)
    label, inner = (LABEL_V4, _ipv4) if dice.randrange(2) else (LABEL_V6, _ipv6)
    last = _label(dice, label, bottom=True) / inner(dice)
    return last if stack is None else stack / last


def _label(dice: random.Random, label: int, bottom: bool) -> Packet:
    return MPLS(label=label, cos=dice.choice((0, 3, 7)), s=bottom, ttl=dice.choice(TTLS))


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
    header = IP(
        src=dice.choice(V4),
        dst=dice.choice(V4),
        tos=dice.choice((0, 3, 184)),
        ttl=dice.choice(TTLS),
        options=options,
    )
    if not dice.randrange(10):
        header.chksum = dice.choice(WRONG)
    kind = dice.randrange(8)
    if kind == 0:
        header.frag, header.proto = dice.choice((1, 185)), dice.choice((6, 17, 1))
        return header / Raw(dice.randbytes(24))
    if kind == 1:
        header.flags = "MF"
    icmp = ICMP(type=dice.choice((0, 8, 3, 13)), code=dice.choice((0, 1)), id=7) / Raw(dice.randbytes(8))
    return header / dice.choice((_transport(dice), _transport(dice), icmp))


def _transport(dice: random.Random) -> Packet:
    ports = {"sport": dice.choice(L4), "dport": dice.choice(L4)}
    if not dice.randrange(6):
        return SCTP(**ports) / Raw(dice.randbytes(4))
    segment = (
        TCP(flags=dice.choice(("S", "S", "A", "SEC", "FPA")), **ports) if dice.randrange(2) else UDP(**ports)
    )
    if not dice.randrange(6):
        segment.chksum = dice.choice(WRONG)
    return segment / Raw(dice.randbytes(dice.choice((0, 7, 8))))


def _ipv6(dice: random.Random) -> Packet:
    header = IPv6(
        src=dice.choice(V6),
        dst=dice.choice(V6),
        tc=dice.choice((0, 3, 184)),
        hlim=dice.choice(TTLS),
        fl=dice.choice(FLOW_LABELS),
    )
    if not dice.randrange(4):
        waypoint = IPv6ExtHdrRouting(addresses=[dice.choice(V6)], segleft=dice.randrange(2))
        header /= dice.choice((IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), waypoint))
    if not dice.randrange(6):
        offset, more = dice.choice(((0, 0), (0, 1), (3, 0)))
        header /= IPv6ExtHdrFragment(offset=offset, m=more, id=9, nh=17)
        if offset:
            return header / Raw(dice.randbytes(24))
    return header / dice.choice((_transport, _transport, _icmpv6))(dice)


def _icmpv6(dice: random.Random) -> Packet:
    target = dice.choice(V6)
    mac = dice.choice(MACS)
    return dice.choice(
        (
            ICMPv6EchoRequest(id=7) / Raw(dice.randbytes(8)),
            ICMPv6ND_NS(tgt=target) / ICMPv6NDOptSrcLLAddr(lladdr=mac),
            ICMPv6ND_NA(tgt=target) / ICMPv6NDOptDstLLAddr(lladdr=mac),
            ICMPv6ND_NS(tgt=target),
        )
    )


# -- rules ----------------------------------------------------------------------------------------

TABLES = 4
INVALID = (0x30, 0x30)
"""+trk+inv, with which Open vSwitch refuses to commit."""


@dataclass(frozen=True, slots=True)
class Program:
    """Flows and the groups that they name, those that others name first."""

    flows: tuple[Flow, ...]
    groups: tuple[Group, ...] = ()


def rules(dice: random.Random) -> tuple[Flow, ...]:
    """Four tables of overlapping flows that need no groups; priorities are distinct within a table."""
    return _flows(dice, tracks=bool(dice.randrange(3)), groups=())


def programs(dice: random.Random, reshapes: bool = False) -> Program:
    """The same with groups. `reshapes`: with Set-Field of what Open vSwitch does not write.

    A program uses either `ct`, labels popped and SELECT, or action sets: Open vSwitch 3.1 aborts when a
    packet with an action set is recirculated (assertion in `recirc_alloc_id__`).
    """
    tracks = bool(dice.randrange(3))
    groups = _groups(dice, tracks, reshapes)
    return Program(_flows(dice, tracks, groups, reshapes), groups)


def _flows(
    dice: random.Random, tracks: bool, groups: tuple[Group, ...], reshapes: bool = False
) -> tuple[Flow, ...]:
    flows = []
    for table in range(TABLES):
        priorities = dice.sample(range(1, 1000), dice.randrange(4, 14))
        flows += [_flow(dice, table, priority, tracks, groups, reshapes) for priority in priorities]
        if dice.randrange(3):
            actions = _Site(dice, table, {}, tracks, groups, reshapes).actions()
            miss = Instructions(apply=actions, goto=_goto(dice, table))
            flows.append(Flow(table, 0, Match(), miss))
    return tuple(flows)


def _goto(dice: random.Random, table: int) -> int | None:
    return dice.randrange(table + 1, TABLES) if table < TABLES - 1 and dice.randrange(4) else None


def _flow(
    dice: random.Random, table: int, priority: int, tracks: bool, groups: tuple[Group, ...], reshapes: bool
) -> Flow:
    wanted = _wanted(dice, table)
    site = _Site(dice, table, wanted, tracks, groups, reshapes)
    apply = site.actions() if dice.randrange(6) else ()
    write: tuple[Action, ...] = ()
    if not tracks and not dice.randrange(3):
        write = _Site(dice, table, {} if site.over else wanted, tracks, groups, reshapes).action_set()
    instructions = Instructions(
        apply=apply,
        clear=not dice.randrange(12),
        write=write,
        metadata=(dice.randrange(16), 0xF) if not dice.randrange(5) else None,
        goto=_goto(dice, table),
    )
    return Flow(table, priority, match(**wanted), instructions)


def _groups(dice: random.Random, tracks: bool, reshapes: bool) -> tuple[Group, ...]:
    """One of each kind, in any order; a bucket may go on to a group before it."""
    kinds = [kind for kind in GroupType if tracks or kind is not GroupType.SELECT]
    dice.shuffle(kinds)
    return tuple(
        Group(
            number,
            kind,
            tuple(
                _bucket(dice, kind, number, reshapes)
                for _ in range(1 if kind is GroupType.INDIRECT else dice.randrange(1, 4))
            ),
        )
        for number, kind in enumerate(kinds, 1)
    )


def _bucket(dice: random.Random, kind: GroupType, number: int, reshapes: bool) -> Bucket:
    actions: list[Action] = []
    if reshapes and not dice.randrange(3):
        actions.append(_reshaping(dice))
    if not dice.randrange(3):
        actions += [PushVlan(), SetField("vlan_vid", 0x1000 | dice.choice(VIDS))]
    if not dice.randrange(3):
        actions.append(SetField("eth_src", number_of(dice.choice(MACS))))
    if not dice.randrange(5):
        actions.append(DecIpTtl())
    onward = number > 1 and not dice.randrange(3)
    actions.append(ToGroup(dice.randrange(1, number)) if onward else Output(dice.choice(PORTS)))
    dice.shuffle(actions)
    watch = dice.choice((*PORTS, DOWN)) if kind is GroupType.FAST_FAILOVER else Port.ANY
    return Bucket(tuple(actions), dice.choice((0, 1, 5)) if kind is GroupType.SELECT else 0, watch)


Wanted = dict[str, Any]


def _wanted(dice: random.Random, table: int) -> Wanted:
    """A match that fulfils its own prerequisites, rarely long: then rules overlap."""
    wanted: Wanted = {}
    for _ in range(dice.choice((0, 1, 1, 2, 3))):
        dice.choice((_layer1, _layer2, _layer2, _layer3, _layer3, _layer3, _layer4, _layer4))(dice, wanted)
    if table and not dice.randrange(3):
        name = dice.choice(("reg0", "reg1", "reg3", "metadata", "tunnel_id"))
        wanted[name] = (dice.randrange(4), dice.choice((1, 3, 0xFF)))
        wanted[name] = wanted[name][0] & wanted[name][1], wanted[name][1]
    if table and not dice.randrange(5):
        wanted["ct_state"] = dice.choice(((0x21, 0x21), (0x22, 0x22), INVALID, (0, 0x20), (0x20, 0x30)))
    if table and not dice.randrange(12):
        wanted.update(dice.choice(({"ct_mark": (2, 2)}, {"ct_label": (1 << 64, 1 << 64)}, {"ct_zone": 7})))
    return wanted


def _layer1(dice: random.Random, wanted: Wanted) -> None:
    wanted["in_port"] = dice.choice(PORTS)


def _layer2(dice: random.Random, wanted: Wanted) -> None:
    kind = dice.randrange(5)
    if kind == 0:
        wanted["eth_src"] = number_of(dice.choice(MACS))
    elif kind == 1:
        mask = dice.choice((FIELDS["eth_dst"].full_mask, 1 << 40, 0xFF))
        wanted["eth_dst"] = (number_of(dice.choice((*MACS, MULTICAST))) & mask, mask)
    elif kind == 2:
        wanted["vlan_vid"] = 0
        wanted.pop("vlan_pcp", None)
    else:
        wanted["vlan_vid"] = dice.choice((0x1000 | dice.choice(VIDS), (0x1000, 0x1000)))
        if not dice.randrange(3):
            wanted["vlan_pcp"] = dice.choice((0, 3))


def _layer3(dice: random.Random, wanted: Wanted) -> None:
    families = (ETH_IPV4, ETH_IPV4, ETH_IPV4, ETH_IPV6, ETH_IPV6, ETH_IPV6, ETH_ARP, ETH_MPLS)
    family = wanted.setdefault("eth_type", dice.choice(families))
    if family == ETH_MPLS:
        _wanted_label(dice, wanted)
    elif family == ETH_ARP:
        wanted[dice.choice(("arp_spa", "arp_tpa"))] = _address(dice, V4, 32)
        wanted["arp_op"] = dice.choice((1, 2))
    elif family in (ETH_IPV4, ETH_IPV6):
        version, pool, bits = ("ipv4", V4, 32) if family == ETH_IPV4 else ("ipv6", V6, 128)
        wanted[f"{version}_{dice.choice(('src', 'dst'))}"] = _address(dice, pool, bits)
        if not dice.randrange(4):
            wanted["ip_dscp" if dice.randrange(2) else "ip_ecn"] = dice.choice((0, 3, 46)) & 3
        if not dice.randrange(5):
            wanted["nw_ttl"] = dice.choice(TTLS)
        if family == ETH_IPV6 and not dice.randrange(4):
            wanted["ipv6_flabel"] = dice.choice(((0xA5, 0xFFFFF), (5, 0xF), (0, 0xFFFFF)))
        if not dice.randrange(6):
            wanted["ip_frag"] = dice.choice(((0, 3), (1, 1), (1, 3), (2, 2)))
            if "ip_proto" in wanted and wanted["ip_frag"] == (2, 2):
                del wanted["ip_frag"]


def _wanted_label(dice: random.Random, wanted: Wanted) -> None:
    if dice.randrange(3):
        wanted["mpls_label"] = dice.choice((LABEL_V4, LABEL_V6, *LABELS))
    if not dice.randrange(3):
        wanted["mpls_tc"] = dice.choice((0, 3, 5))
    if dice.randrange(2) or wanted.get("mpls_label") in LABELS:
        wanted["mpls_bos"] = int(wanted.get("mpls_label", LABEL_V4) in (LABEL_V4, LABEL_V6))
    if not dice.randrange(4):
        wanted["mpls_ttl"] = dice.choice(TTLS)


def _address(dice: random.Random, pool: tuple[str, ...], bits: int) -> tuple[int, int]:
    full = (1 << bits) - 1
    mask = full << dice.choice((0, 0, bits // 4, bits // 2, bits - 8)) & full
    return number_of(dice.choice(pool)) & mask, mask


def _layer4(dice: random.Random, wanted: Wanted) -> None:
    family = wanted.setdefault("eth_type", dice.choice((ETH_IPV4, ETH_IPV6)))
    if family not in (ETH_IPV4, ETH_IPV6) or wanted.get("ip_frag") == (2, 2):
        return
    icmp = 1 if family == ETH_IPV4 else 58
    protocol = wanted.setdefault("ip_proto", dice.choice((6, 6, 17, 17, 132, icmp)))
    if protocol == 6 and not dice.randrange(3):
        wanted["tcp_flags"] = dice.choice(((2, 2), (0x12, 0x12), (0, 0x10), (0xC2, 0xFFF)))
    if protocol == icmp:
        kind = dice.choice((0, 8) if icmp == 1 else (128, 135, 136))
        wanted.setdefault("icmpv4_type" if icmp == 1 else "icmpv6_type", kind)
        if wanted.get("icmpv6_type") in (135, 136):
            wanted["ipv6_nd_target"] = _address(dice, V6, 128)
            if dice.randrange(2):
                option = "ipv6_nd_sll" if wanted["icmpv6_type"] == 135 else "ipv6_nd_tll"
                wanted[option] = number_of(dice.choice(MACS))
        return
    name = f"{({6: 'tcp', 17: 'udp', 132: 'sctp'})[protocol]}_{dice.choice(('src', 'dst'))}"
    value = dice.choice(L4)
    mask = dice.choice((0xFFFF, 0xFFFF, 0xFFF0))
    wanted[name] = (value & mask, mask)


class _Site:
    """Where actions stand: they may need only what the match there promises, as Open vSwitch checks."""

    def __init__(
        self,
        dice: random.Random,
        table: int,
        wanted: Wanted,
        tracks: bool,
        groups: tuple[Group, ...],
        reshapes: bool,
    ) -> None:
        self.dice, self.table, self.wanted, self.tracks, self.groups = dice, table, wanted, tracks, groups
        self.reshapes = reshapes
        self.over = False
        """Whether what the match promised no longer holds."""

    def actions(self) -> tuple[Action, ...]:
        """A list of them."""
        found: list[Action] = []
        for _ in range(self.dice.choice((0, 1, 1, 2, 3, 4))):
            makers = (*self._outputs(), *self._pipeline(), *self._changes(), *self._changes())
            found += self.dice.choice(makers)()
            if self.over:
                break
        return tuple(found) if not self.over else (*found, *self._output())

    def action_set(self) -> tuple[Action, ...]:
        """Some to be written into the action set, in any order."""
        found: list[Action] = []
        for _ in range(self.dice.choice((0, 1, 2))):
            if not self.over:
                found += self.dice.choice(self._changes())()
        found = [action for action in found if not isinstance(action, Move | PopMpls)]
        ends = [self._output, self._group] if self.groups else [self._output]
        last = self.dice.choice(ends)()
        return (*found, *last) if self.dice.randrange(2) else (*last, *found)

    def _outputs(self) -> list[_Maker]:
        return [self._output, self._output, self._to_register, *([self._group] * 2 if self.groups else [])]

    def _pipeline(self) -> list[_Maker]:
        makers: list[_Maker] = [self._load, self._move, self._resubmit]
        if self.tracks and self.wanted.get("eth_type") in (ETH_IPV4, ETH_IPV6):
            makers += [*[self._track] * 6, lambda: [ConntrackClear()]]
        return makers

    def _changes(self) -> list[_Maker]:
        """Those that change the packet."""
        makers: list[_Maker] = [self._set_mac]
        ethertype = self.wanted.get("eth_type")
        if "vlan_vid" in self.wanted:
            makers += [self._change_tag] * (4 if self.wanted["vlan_vid"] else 2)
        if ethertype in (ETH_IPV4, ETH_IPV6):
            makers += [self._set_ip, self._set_ip, self._ip_ttl]
        if ethertype == ETH_ARP:
            makers.append(self._set_arp)
        if ethertype == ETH_MPLS:
            makers += [self._set_mpls, self._set_mpls, self._pop_mpls, self._pop_mpls]
        if self.wanted.get("vlan_vid") == 0:
            makers.append(self._push_mpls)
        if "ip_proto" in self.wanted:
            makers += [self._set_layer4, self._set_layer4]
        if self.reshapes:
            makers += [lambda: [_reshaping(self.dice)]] * 2
        return makers

    def _output(self) -> list[Action]:
        return [Output(self.dice.choice((*PORTS, Port.IN_PORT, Port.FLOOD, Port.ALL)))]

    def _to_register(self) -> list[Action]:
        return [SetField("reg2", self.dice.choice(PORTS)), OutputField("reg2")]

    def _group(self) -> list[Action]:
        return [ToGroup(self.dice.choice(self.groups).number)]

    def _load(self) -> list[Action]:
        dice = self.dice
        name = dice.choice(("reg0", "reg1", "reg2", "reg3", "tunnel_id"))
        return [SetField(name, dice.randrange(4), dice.choice((None, 3, 1)))]

    def _move(self) -> list[Action]:
        return [_move(self.dice, self.wanted)]

    def _resubmit(self) -> list[Action]:
        if self.table == TABLES - 1:
            return []
        dice = self.dice
        return [Resubmit(dice.choice((None, *PORTS)), dice.randrange(self.table + 1, TABLES))]

    def _track(self) -> list[Action]:
        dice = self.dice
        resume = dice.randrange(self.table + 1, TABLES + 1) if dice.randrange(3) else None
        commit = self.wanted.get("ct_state") != INVALID and bool(dice.randrange(2))
        return [
            Conntrack(
                zone=dice.choice((0, 7)),
                table=resume,
                commit=commit,
                mark=(dice.randrange(4), 3) if commit and dice.randrange(2) else None,
                label=(dice.randrange(4) << 64, 3 << 64) if commit and dice.randrange(2) else None,
                zone_field=("reg0", 0, 16) if not dice.randrange(4) else None,
            )
        ]

    def _set_mac(self) -> list[Action]:
        return [SetField(self.dice.choice(("eth_src", "eth_dst")), number_of(self.dice.choice(MACS)))]

    def _change_tag(self) -> list[Action]:
        dice = self.dice
        set_vid = SetField("vlan_vid", 0x1000 | dice.choice(VIDS))
        if not self.wanted["vlan_vid"]:
            self.over = True
            return [PushVlan(dice.choice((ETH_VLAN, ETH_SVLAN))), set_vid]
        kind = dice.randrange(6)
        if kind < 2:
            return [set_vid] if kind else [SetField("vlan_pcp", dice.choice((0, 5)))]
        self.over = True
        return [PushVlan(dice.choice((ETH_VLAN, ETH_SVLAN))), set_vid] if kind == 2 else [PopVlan()]

    def _set_ip(self) -> list[Action]:
        dice, six = self.dice, self.wanted["eth_type"] == ETH_IPV6
        kind = dice.randrange(4)
        if kind == 0:
            return [SetField("ip_dscp", dice.choice((0, 46)))]
        if kind == 1:
            return [SetField("ipv6_flabel", dice.choice(FLOW_LABELS)) if six else SetField("ip_ecn", 2)]
        side = dice.choice(("src", "dst"))
        value, mask = _address(dice, V6 if six else V4, 128 if six else 32)
        return [SetField(f"ipv{6 if six else 4}_{side}", value, mask)]

    def _ip_ttl(self) -> list[Action]:
        dice = self.dice
        return [dice.choice((DecIpTtl(), DecIpTtl(), SetIpTtl(dice.choice(TTLS)), SetField("nw_ttl", 9)))]

    def _set_arp(self) -> list[Action]:
        name = self.dice.choice(("arp_op", "arp_spa", "arp_tpa", "arp_sha", "arp_tha"))
        pool = {"arp_op": (1, 2), "arp_spa": V4, "arp_tpa": V4}.get(name, MACS)
        value = self.dice.choice(pool)
        return [SetField(name, number_of(value) if isinstance(value, str) else value)]

    def _set_mpls(self) -> list[Action]:
        dice = self.dice
        changes: list[Action] = [SetField("mpls_tc", dice.choice((0, 5))), SetMplsTtl(dice.choice(TTLS))]
        if self.wanted.get("mpls_label") in LABELS:
            changes.append(SetField("mpls_label", dice.choice(LABELS)))
        return [dice.choice((*changes, DecMplsTtl(), SetField("mpls_ttl", 9)))]

    def _pop_mpls(self) -> list[Action]:
        """As the label says what it carries; without recirculation, so that it may stand in a set."""
        carried = {LABEL_V4: ETH_IPV4, LABEL_V6: ETH_IPV6}.get(self.wanted.get("mpls_label", 0))
        if self.wanted.get("mpls_bos") == 0:
            carried = ETH_MPLS
        if carried is None or not self.tracks:
            return []
        self.over = True
        return [PopMpls(carried)]

    def _push_mpls(self) -> list[Action]:
        """Of an untagged packet, with label and TC set: there Open vSwitch differs by design."""
        dice = self.dice
        self.over = True
        known = {ETH_IPV4: LABEL_V4, ETH_IPV6: LABEL_V6}.get(self.wanted.get("eth_type", 0))
        label = dice.choice(LABELS) if known is None else known
        return [PushMpls(), SetField("mpls_label", label), SetField("mpls_tc", dice.choice((0, 5)))]

    def _set_layer4(self) -> list[Action]:
        dice, protocol = self.dice, self.wanted["ip_proto"]
        name = {6: "tcp", 17: "udp", 132: "sctp"}.get(protocol)
        if name:
            value, mask = dice.choice(L4), dice.choice((None, None, 0xFF))
            return [SetField(f"{name}_{dice.choice(('src', 'dst'))}", value & (mask or 0xFFFF), mask)]
        if "ipv6_nd_target" in self.wanted:
            return [self._set_nd()]
        if self.wanted.get("icmpv4_type") == 8:
            return [SetField("icmpv4_code", dice.choice((0, 3)))]
        return []

    def _set_nd(self) -> Action:
        option = "ipv6_nd_sll" if self.wanted["icmpv6_type"] == 135 else "ipv6_nd_tll"
        if self.dice.randrange(2):
            return SetField(option, number_of(self.dice.choice(MACS)))
        return SetField("ipv6_nd_target", number_of(self.dice.choice(V6)))


_Maker = Callable[[], list[Action]]

ETHERTYPES = (ETH_IPV4, ETH_IPV6, ETH_ARP, ETH_MPLS, 0x88B5)
PROTOCOLS = (0, 1, 6, 6, 17, 17, 44, 58, 60, 132, 253)


def _reshaping(dice: random.Random) -> SetField:
    """Of a field that says what follows; ours does not ask whether it is so."""
    return dice.choice(
        (
            SetField("eth_type", dice.choice(ETHERTYPES)),
            SetField("ip_proto", dice.choice(PROTOCOLS)),
            SetField("ip_proto", dice.choice(PROTOCOLS)),
            SetField("mpls_bos", dice.randrange(2)),
        )
    )


def _move(dice: random.Random, wanted: Wanted) -> Move:
    ports = [name for name in wanted if name in ("tcp_src", "udp_src", "tcp_dst", "udp_dst")]
    if ports and dice.randrange(2):
        return Move(ports[0], "reg3", 16)
    if wanted.get("eth_type") == ETH_IPV4 and dice.randrange(2):
        return dice.choice(
            (Move("ipv4_src", "ipv4_dst", 32), Move("reg1", "ipv4_src", 8, 0, 24), Move("nw_ttl", "reg1", 8))
        )
    if not dice.randrange(3):
        return Move("eth_src", "eth_dst", 16, 32, 0)
    offset = dice.choice((0, 8))
    return Move(f"reg{dice.randrange(4)}", f"reg{dice.randrange(4)}", 8, offset, dice.choice((0, 8)))


# -- dialogues ------------------------------------------------------------------------------------

FLAGS = ("S", "SA", "A", "PA", "FA", "R", "RA", "F", "SF", "SR", "", "P")
PROPER = ("S>", "S>", "SA<", "A>", "PA>", "A<", "PA<", "A>", "FA>", "A<", "FA<", "A>", "A>")
"""A connection as it should go, with one SYN sent twice; > is what the client says."""


CLIENT_PORTS = (40001, 40002)


@dataclass(frozen=True, slots=True)
class Hidden:
    """A translation between the two hosts: of the client's source (True) or the server's target.

    The client speaks to the server's public address, the server to the client's; the port is either kept or
    one of `ports`.
    """

    source: bool
    ports: tuple[int, int] | None = None

    def translations(self) -> tuple[Nat, Nat]:
        """For IPv4 and IPv6."""
        kept = PUBLIC if self.source else SERVER
        four, six = number_of(kept[1]), number_of(kept[2])
        return Nat(self.source, 4, (four, four), self.ports), Nat(self.source, 6, (six, six), self.ports)

    def as_seen(self, reply: bool) -> tuple[Host, Host]:
        """Who sends to whom, as the sender knows them."""
        if reply:
            return SERVER, PUBLIC if self.source else CLIENT
        return CLIENT, SERVER if self.source else PUBLIC

    def port(self, dice: random.Random, reply: bool, own: int) -> int:
        """The translated port as the sender of a reply, or of what is no reply, knows it."""
        if not reply or self.ports is None:
            return own
        return dice.randint(*self.ports)


class Dialogue:
    """Two hosts (and a router that reports errors) who say something at random, on few tuples."""

    def __init__(self, dice: random.Random, hidden: Hidden | None = None) -> None:
        self.dice, self.hidden = dice, hidden
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

    def _hosts(self, reply: bool) -> tuple[Host, Host]:
        if self.hidden:
            return self.hidden.as_seen(reply)
        return (SERVER, CLIENT) if reply else (CLIENT, SERVER)

    def _sides(self, reply: bool, port: int) -> dict[str, int]:
        """Ports as who sends them knows them."""
        client, server = port, 80
        if self.hidden and self.hidden.source:
            client = self.hidden.port(self.dice, reply, port)
        elif self.hidden:
            server = self.hidden.port(self.dice, reply, server)
        return {"sport": server, "dport": client} if reply else {"sport": client, "dport": server}

    def _ip(self, reply: bool, six: bool) -> Packet:
        sender, receiver = self._hosts(reply)
        ip = IPv6(src=sender[2], dst=receiver[2]) if six else IP(src=sender[1], dst=receiver[1])
        return Ether(src=sender[0], dst=receiver[0]) / ip

    def _ports(self, reply: bool) -> tuple[dict[str, int], int]:
        port = self.dice.choice(CLIENT_PORTS)
        return self._sides(reply, port), port

    def _tcp(self, reply: bool) -> tuple[Packet, str]:
        return self._segment(reply, self.dice.choice(CLIENT_PORTS), self.dice.choice(FLAGS))

    def _segment(self, reply: bool, port: int, flags: str) -> tuple[Packet, str]:
        ports = self._sides(reply, port)
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
        ports, _ = self._ports(reply)
        frame = self._ip(reply, six)
        sender, receiver = self._hosts(reply)
        if dice.randrange(6):
            sender, receiver = receiver, sender
            ports = {"sport": ports["dport"], "dport": ports["sport"]}
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
