"""Actions as text in the syntax of ovs-ofctl (ovs-actions(7))."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

from vnet.openflow.fields import FIELDS
from vnet.openflow.flow import (
    Action,
    Advertise,
    Conntrack,
    ConntrackClear,
    CopyTtlIn,
    CopyTtlOut,
    DecIpTtl,
    DecMplsTtl,
    IcmpError,
    Move,
    Nat,
    Output,
    OutputField,
    PopMpls,
    PopVlan,
    Port,
    PushMpls,
    PushVlan,
    Reject,
    Resubmit,
    SetField,
    SetIpTtl,
    SetMplsTtl,
    ToGroup,
)
from vnet.openflow.ofctl_match import subfield, value_text


def actions_text(actions: Iterable[Action]) -> str:
    """A list of actions, `drop` if it is empty."""
    return ",".join(action_text(action) for action in actions) or "drop"


def action_text(action: Action) -> str:
    """One action, for example `set_field:0x100a->vlan_vid`."""
    match action:
        case Output():
            return _output(action)
        case OutputField():
            return f"output:{subfield(action.field, action.offset, action.bits)}"
        case SetField():
            return _set_field(action)
        case Move():
            source = subfield(action.source, action.source_offset, action.bits)
            return f"move:{source}->{subfield(action.target, action.target_offset, action.bits)}"
        case ToGroup():
            return f"group:{action.group}"
        case Resubmit():
            return _resubmit(action)
        case Conntrack():
            return _conntrack(action)
        case _:
            return _header_text(action)


_HeaderAction = (
    PushVlan
    | PopVlan
    | PushMpls
    | PopMpls
    | SetMplsTtl
    | DecMplsTtl
    | SetIpTtl
    | DecIpTtl
    | CopyTtlOut
    | CopyTtlIn
    | ConntrackClear
    | Advertise
    | Reject
)


def _header_text(action: _HeaderAction) -> str:
    """Actions on tags, labels and TTLs: a word and a number at most.

    Open vSwitch has no action that copies a TTL, that rejects or that answers; those words are ours.
    """
    match action:
        case PushVlan(ethertype):
            return f"push_vlan:{ethertype:#06x}"
        case PushMpls(ethertype):
            return f"push_mpls:{ethertype:#06x}"
        case PopMpls(ethertype):
            return f"pop_mpls:{ethertype:#06x}"
        case SetMplsTtl(ttl):
            return f"set_mpls_ttl({ttl})"
        case SetIpTtl(ttl):
            return f"mod_nw_ttl:{ttl}"
        case Reject(IcmpError() as error):
            return f"reject({_error(error)})"
        case DecIpTtl(IcmpError() as error):
            return f"dec_ttl(reject({_error(error)}))"
        case Advertise(mac):
            return f"advertise({mac.to_bytes(6, 'big').hex(':')})"
        case _:
            return _WORDS[type(action)]


def _error(error: IcmpError) -> str:
    icmp, address = ("icmp", IPv4Address) if error.family == 4 else ("icmpv6", IPv6Address)
    return f"{icmp}_type={error.kind},{icmp}_code={error.code},src={address(error.source)}"


_WORDS: dict[type[Action], str] = {
    PopVlan: "pop_vlan",
    DecMplsTtl: "dec_mpls_ttl",
    DecIpTtl: "dec_ttl",
    CopyTtlOut: "copy_ttl_out",
    CopyTtlIn: "copy_ttl_in",
    ConntrackClear: "ct_clear",
    Reject: "reject",
}


def _output(action: Output) -> str:
    if action.port == Port.CONTROLLER:
        return f"CONTROLLER:{action.max_len}"
    if action.port in Port._value2member_map_:
        return Port(action.port).name
    return f"output:{action.port}"


def _resubmit(action: Resubmit) -> str:
    table = "" if action.table is None else str(action.table)
    return f"resubmit({_port(action.port)},{table})"


def _port(port: int | None) -> str:
    """A port's number, the name of a reserved one, nothing for None."""
    if port is None:
        return ""
    return Port(port).name if port in Port._value2member_map_ else str(port)


def _set_field(action: SetField) -> str:
    full = FIELDS[action.field].full_mask
    value = value_text(action.field, action.value, full if action.mask is None else action.mask)
    return f"set_field:{value}->{SET_NAMES.get(action.field, action.field)}"


SET_NAMES = {
    "ipv4_src": "ip_src",
    "ipv4_dst": "ip_dst",
    "icmpv4_type": "icmp_type",
    "icmpv4_code": "icmp_code",
    "ip_ecn": "nw_ecn",
    "ipv6_flabel": "ipv6_label",
    "tunnel_id": "tun_id",
    "ipv6_nd_target": "nd_target",
    "ipv6_nd_sll": "nd_sll",
    "ipv6_nd_tll": "nd_tll",
}
"""Names behind `->` where they differ from `vnet.openflow.fields`; there `tp_src` would be ambiguous."""


def _conntrack(action: Conntrack) -> str:
    words = ["commit"] if action.commit else []
    words += ["force"] if action.force else []
    words += [f"table={action.table}"] if action.table is not None else []
    if action.zone_field:
        words.append(f"zone={subfield(*action.zone_field)}")
    elif action.zone:
        words.append(f"zone={action.zone}")
    words += [_nat(action.nat)] if action.nat else []
    written = [
        f"set_field:{value[0]:#x}/{value[1]:#x}->{name}"
        for name, value in (("ct_mark", action.mark), ("ct_label", action.label))
        if value
    ]
    written += map(action_text, action.moves)
    words += [f"exec({','.join(written)})"] if written else []
    return f"ct({','.join(words)})" if words else "ct"


def _nat(nat: Nat) -> str:
    words = []
    if nat.source is not None:
        bounds = _nat_range(nat)
        words.append(("src" if nat.source else "dst") + (f"={bounds}" if bounds else ""))
    words += [name for bit, name in NAT_FLAGS.items() if nat.flags & bit]
    return f"nat({','.join(words)})" if words else "nat"


NAT_FLAGS = {4: "persistent", 8: "hash", 16: "random"}
"""Names of the bits of `Nat.flags`."""


def _nat_range(nat: Nat) -> str:
    """Addresses and ports, for example `10.0.0.1-10.0.0.9:1000-2000`; IPv6 in brackets before a port."""
    if nat.addresses is None:
        return ""
    show = IPv4Address if nat.family == 4 else IPv6Address
    first, last = (str(show(address)) for address in nat.addresses)
    if nat.ports is None:
        return _span(first, last)
    if nat.family == 6:
        first, last = f"[{first}]", f"[{last}]"
    return f"{_span(first, last)}:{_span(str(nat.ports[0]), str(nat.ports[1]))}"


def _span(first: str, last: str) -> str:
    return first if first == last else f"{first}-{last}"
