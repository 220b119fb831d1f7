"""Whether the headers that actions touch are those that the match says are there.

As Open vSwitch answers for OpenFlow 1.3 (lib/ofp-actions.c, `ofpacts_check`): in a list of actions all of
them are checked, in an action set only those that name a field or need a connection.
"""

from __future__ import annotations

from vnet.openflow.codec_error import bad_action
from vnet.openflow.codec_match import meets_prerequisites
from vnet.openflow.fields import ETH_IPV4, ETH_IPV6, FIELDS, VLAN_PRESENT, Field
from vnet.openflow.flow import (
    Action,
    Conntrack,
    CopyTtlIn,
    CopyTtlOut,
    DecIpTtl,
    DecMplsTtl,
    Instructions,
    Match,
    Move,
    PopMpls,
    PopVlan,
    PushMpls,
    PushVlan,
    SetField,
    SetIpTtl,
    SetMplsTtl,
)
from vnet.openflow.message import BadAction

_Known = dict[str, tuple[int, int]]
"""What is known of a packet: the value and mask of each field."""

_TAGGED = Field("vlan_vid", 13, needs=(("vlan_vid", VLAN_PRESENT),))
"""Writing the VLAN id needs a tag, matching it does not."""

_IP = Field("an IP header", 0, needs=(("eth_type", ETH_IPV4), ("eth_type", ETH_IPV6)))
_OF_FAMILY = {4: FIELDS["ipv4_src"], 6: FIELDS["ipv6_src"]}
_MPLS = Field("a label", 0, needs=FIELDS["mpls_label"].needs)
_TTL = Field("a TTL", 0, needs=_IP.needs + _MPLS.needs)

_HEADERS: dict[type[Action], Field] = {
    PopVlan: _TAGGED,
    PopMpls: _MPLS,
    SetMplsTtl: _MPLS,
    DecMplsTtl: _MPLS,
    SetIpTtl: _IP,
    DecIpTtl: _IP,
    CopyTtlOut: _TTL,
    CopyTtlIn: _TTL,
}
"""What an action needs that names no field."""

_BEHIND_ETHERNET = ("ip_proto", "icmpv4_type", "icmpv6_type")
"""Fields on which others depend and which nobody knows any more once the EtherType changes."""


def check_consistent(match: Match, instructions: Instructions) -> None:
    """Refuse actions on headers that the match (and the actions before) does not say are there.

    Raises: CodecError with MATCH_INCONSISTENT.
    """
    if instructions.apply:
        _check(match, instructions.apply, in_set=False)
    if instructions.write:
        _check(match, instructions.write, in_set=True)


def _check(match: Match, actions: tuple[Action, ...], in_set: bool) -> None:
    known = {name: (value, mask) for name, value, mask in match}
    for action in actions:
        needed = _fields(action) if in_set else _fields(action) + _header(action)
        if not all(meets_prerequisites(field, known) for field in needed):
            raise bad_action(BadAction.MATCH_INCONSISTENT)
        _learn(known, action)


def _fields(action: Action) -> tuple[Field, ...]:
    match action:
        case SetField(field=name):
            return (_written(name),)
        case Move():
            return FIELDS[action.source], _written(action.target)
        case Conntrack():
            return _tracked(action)
    return ()


def _tracked(action: Conntrack) -> tuple[Field, ...]:
    """IP, that of the addresses to translate to if there are any, and the field of the zone."""
    ip = _OF_FAMILY[action.nat.family] if action.nat and action.nat.addresses else _IP
    return (ip, FIELDS[action.zone_field[0]]) if action.zone_field else (ip,)


def _written(name: str) -> Field:
    return _TAGGED if name == "vlan_vid" else FIELDS[name]


def _header(action: Action) -> tuple[Field, ...]:
    header = _HEADERS.get(type(action))
    return (header,) if header else ()


def _learn(known: _Known, action: Action) -> None:
    """What is known of the packet after the action."""
    match action:
        case PushVlan():
            known["vlan_vid"] = VLAN_PRESENT, VLAN_PRESENT
        case PopVlan():
            known.pop("vlan_vid", None)
        case PushMpls(ethertype) | PopMpls(ethertype):
            _learn_type(known, ethertype)
        case SetField("eth_type", value):
            _learn_type(known, value)
        case SetField("ip_proto", value):
            _forget(known, _BEHIND_ETHERNET)
            known["ip_proto"] = value, FIELDS["ip_proto"].full_mask


def _learn_type(known: _Known, ethertype: int) -> None:
    known["eth_type"] = ethertype, FIELDS["eth_type"].full_mask
    _forget(known, _BEHIND_ETHERNET)


def _forget(known: _Known, names: tuple[str, ...]) -> None:
    for name in names:
        known.pop(name, None)
