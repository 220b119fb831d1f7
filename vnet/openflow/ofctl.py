"""Flows as text in the syntax of ovs-ofctl(8): what `add-flow` reads and `dump-flows` shows.

`text(flow)` is accepted by `ovs-ofctl -O OpenFlow13 add-flow`; it is also how vnet prints flows to people.
Protocols are written in shorthand (`tcp6` for eth_type=0x86dd,ip_proto=6), ports as `tp_src` and `tp_dst`.
Source: ovs-ofctl(8), ovs-fields(7), ovs-actions(7).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address

from vnet.openflow.fields import ETH_ARP, ETH_IPV4, ETH_IPV6, FIELDS, ICMP, ICMPV6, SCTP, TCP, UDP
from vnet.openflow.flow import (
    Action,
    Conntrack,
    Flow,
    FlowFlag,
    Instructions,
    Match,
    Move,
    Output,
    OutputField,
    PopVlan,
    Port,
    PushVlan,
    SetField,
)

PROTOCOLS = {
    (ETH_IPV4, None): "ip",
    (ETH_IPV6, None): "ipv6",
    (ETH_ARP, None): "arp",
    (ETH_IPV4, ICMP): "icmp",
    (ETH_IPV4, TCP): "tcp",
    (ETH_IPV4, UDP): "udp",
    (ETH_IPV4, SCTP): "sctp",
    (ETH_IPV6, ICMPV6): "icmp6",
    (ETH_IPV6, TCP): "tcp6",
    (ETH_IPV6, UDP): "udp6",
    (ETH_IPV6, SCTP): "sctp6",
}
"""Shorthands for (eth_type, ip_proto)."""

NAMES = {
    "eth_dst": "dl_dst",
    "eth_src": "dl_src",
    "eth_type": "dl_type",
    "ip_proto": "nw_proto",
    "ip_ecn": "nw_ecn",
    "ipv4_src": "nw_src",
    "ipv4_dst": "nw_dst",
    "tcp_src": "tp_src",
    "tcp_dst": "tp_dst",
    "udp_src": "tp_src",
    "udp_dst": "tp_dst",
    "sctp_src": "tp_src",
    "sctp_dst": "tp_dst",
    "icmpv4_type": "icmp_type",
    "icmpv4_code": "icmp_code",
    "icmpv6_type": "icmpv6_type",
    "icmpv6_code": "icmpv6_code",
    "ipv6_nd_target": "nd_target",
    "ipv6_nd_sll": "nd_sll",
    "ipv6_nd_tll": "nd_tll",
}
"""Names in a match where they differ from `vnet.openflow.fields`."""

CT_FLAGS = ("new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat")
"""Names of the bits of `ct_state`, from bit 0."""

FRAGMENTS = {
    (0, 3): "no",
    (1, 1): "yes",
    (1, 3): "first",
    (2, 2): "later",
    (3, 3): "later",
    (0, 2): "not_later",
}
"""Names of (value, mask) of `ip_frag`."""

FLAGS = {
    FlowFlag.SEND_FLOW_REM: "send_flow_rem",
    FlowFlag.CHECK_OVERLAP: "check_overlap",
    FlowFlag.RESET_COUNTS: "reset_counts",
    FlowFlag.NO_PACKET_COUNTS: "no_packet_counts",
    FlowFlag.NO_BYTE_COUNTS: "no_byte_counts",
}


def text(flow: Flow) -> str:
    """One flow as a line without its end, for example `cookie=0x1, table=0, priority=1,ip actions=drop`."""
    head = [f"cookie={flow.cookie:#x}", f"table={flow.table}"]
    head += [f"idle_timeout={flow.idle_timeout_s}"] if flow.idle_timeout_s else []
    head += [f"hard_timeout={flow.hard_timeout_s}"] if flow.hard_timeout_s else []
    head += [name for flag, name in FLAGS.items() if flow.flags & flag]
    what = ",".join([f"priority={flow.priority}", *match_words(flow.match)])
    return f"{', '.join(head)}, {what} actions={instructions_text(flow.instructions)}"


def match_text(match: Match) -> str:
    """A match alone, for example `tcp,in_port=1,tp_dst=80`; empty for one that takes every packet."""
    return ",".join(match_words(match))


def instructions_text(instructions: Instructions) -> str:
    """What follows `actions=`."""
    words = [action_text(action) for action in instructions.apply]
    words += ["clear_actions"] if instructions.clear else []
    if instructions.write:
        words.append(f"write_actions({','.join(action_text(action) for action in instructions.write)})")
    if instructions.metadata:
        value, mask = instructions.metadata
        words.append(f"write_metadata:{value:#x}/{mask:#x}")
    words += [f"goto_table:{instructions.goto}"] if instructions.goto is not None else []
    return ",".join(words) or "drop"


# -- match ----------------------------------------------------------------------------------------


def match_words(match: Match) -> list[str]:
    """The match's entries, the protocol first, the rest in order of their names."""
    word, covered = _protocol(match)
    rest = [_entry(*entry) for entry in match if entry[0] not in covered]
    return ([word] if word else []) + rest


def _protocol(match: Match) -> tuple[str, frozenset[str]]:
    """The shorthand and the fields it stands for."""
    ethertype, protocol = match.get("eth_type"), match.get("ip_proto")
    if ethertype is None:
        return "", frozenset()
    if protocol and (both := PROTOCOLS.get((ethertype[0], protocol[0]))):
        return both, frozenset({"eth_type", "ip_proto"})
    word = PROTOCOLS.get((ethertype[0], None), "")
    return word, frozenset({"eth_type"} if word else ())


def _entry(name: str, value: int, mask: int) -> str:
    if name == "ct_state":
        return f"ct_state={_ct_state(value, mask)}"
    if name == "ip_frag":
        return f"ip_frag={_fragment(value, mask)}"
    return f"{NAMES.get(name, name)}={_value(name, value, mask)}"


def _ct_state(value: int, mask: int) -> str:
    flags = ((name, 1 << bit) for bit, name in enumerate(CT_FLAGS))
    return "".join(("+" if value & bit else "-") + name for name, bit in flags if mask & bit)


def _fragment(value: int, mask: int) -> str:
    if (value, mask) not in FRAGMENTS:
        raise ValueError(f"ip_frag={value}/{mask} has no name in ovs-ofctl")
    return FRAGMENTS[value, mask]


def _value(name: str, value: int, mask: int) -> str:
    show = _shower(name)
    if mask == FIELDS[name].full_mask:
        return show(value)
    if name in ("ipv4_src", "ipv4_dst", "ipv6_src", "ipv6_dst", "arp_spa", "arp_tpa"):
        return f"{show(value)}/{_prefix(name, mask)}"
    return f"{show(value)}/{_mask(name, mask)}"


def _shower(name: str) -> Callable[[int], str]:
    """How a field's values are written."""
    if name in ("in_port", "ip_proto", "ct_zone") or name.endswith(("_type", "_code")) and name != "eth_type":
        return str
    if name.startswith(("eth_", "arp_sha", "arp_tha", "ipv6_nd_sll", "ipv6_nd_tll")) and name != "eth_type":
        return mac
    if name in ("ipv4_src", "ipv4_dst", "arp_spa", "arp_tpa"):
        return lambda value: str(IPv4Address(value))
    if name in ("ipv6_src", "ipv6_dst", "ipv6_nd_target"):
        return lambda value: str(IPv6Address(value))
    if name.startswith(("tcp_", "udp_", "sctp_", "arp_op", "ip_", "vlan_pcp")):
        return str
    return hex


def _mask(name: str, mask: int) -> str:
    """A mask: in the notation of addresses for them, else hexadecimal."""
    return hex(mask) if _shower(name) in (str, hex) else _shower(name)(mask)


def _prefix(name: str, mask: int) -> str:
    """The prefix length if the mask is one, else the mask as an address."""
    bits = FIELDS[name].bits
    length = mask.bit_count()
    is_prefix = mask == FIELDS[name].full_mask >> (bits - length) << (bits - length)
    return str(length) if is_prefix else _mask(name, mask)


def mac(value: int) -> str:
    """A 48-bit integer as aa:bb:cc:dd:ee:ff."""
    return value.to_bytes(6, "big").hex(":")


# -- actions --------------------------------------------------------------------------------------


def actions_text(actions: Iterable[Action]) -> str:
    """A list of actions, `drop` if it is empty."""
    return ",".join(action_text(action) for action in actions) or "drop"


def action_text(action: Action) -> str:
    """One action, for example `set_field:0x100a->vlan_vid`."""
    match action:
        case Output():
            return _output(action)
        case OutputField():
            return f"output:{subfield(action.field)}"
        case PushVlan():
            return f"push_vlan:{action.ethertype:#06x}"
        case PopVlan():
            return "pop_vlan"
        case SetField():
            return _set_field(action)
        case Move():
            source = subfield(action.source, action.source_offset, action.bits)
            return f"move:{source}->{subfield(action.target, action.target_offset, action.bits)}"
        case Conntrack():
            return _conntrack(action)


def _output(action: Output) -> str:
    if action.port == Port.CONTROLLER:
        return f"CONTROLLER:{action.max_len}"
    if action.port in Port._value2member_map_:
        return Port(action.port).name
    return f"output:{action.port}"


def _set_field(action: SetField) -> str:
    full = FIELDS[action.field].full_mask
    mask = full if action.mask is None else action.mask
    return (
        f"set_field:{_value(action.field, action.value, mask)}->{SET_NAMES.get(action.field, action.field)}"
    )


SET_NAMES = {
    "ipv4_src": "ip_src",
    "ipv4_dst": "ip_dst",
    "icmpv4_type": "icmp_type",
    "icmpv4_code": "icmp_code",
    "ip_ecn": "nw_ecn",
    "ipv6_nd_target": "nd_target",
    "ipv6_nd_sll": "nd_sll",
    "ipv6_nd_tll": "nd_tll",
}
"""Names behind `->` where they differ from `vnet.openflow.fields`; there `tp_src` would be ambiguous."""


def _conntrack(action: Conntrack) -> str:
    words = ["commit"] if action.commit else []
    words += ["force"] if action.force else []
    words += [f"table={action.table}"] if action.table is not None else []
    words += [f"zone={action.zone}"] if action.zone else []
    if action.mark:
        value, mask = action.mark
        words.append(f"exec(set_field:{value:#x}/{mask:#x}->ct_mark)")
    return f"ct({','.join(words)})" if words else "ct"


def subfield(name: str, offset: int = 0, bits: int | None = None) -> str:
    """Part of a field in NXM notation, for example `NXM_NX_REG2[]` or `OXM_OF_TCP_DST[0..7]`."""
    whole = FIELDS[name]
    full = f"{'NXM_NX' if whole.nicira else 'OXM_OF'}_{name.upper()}"
    if bits is None or (offset == 0 and bits == whole.bits):
        return f"{full}[]"
    return f"{full}[{offset}]" if bits == 1 else f"{full}[{offset}..{offset + bits - 1}]"
