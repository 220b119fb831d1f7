"""Flows, groups and meters in the syntax of ovs-ofctl(8), with what `vnet.openflow.ofctl` lacks."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

from vnet.openflow import ofctl
from vnet.openflow.flow import (
    Action,
    Conntrack,
    ConntrackClear,
    DecIpTtl,
    DecMplsTtl,
    Flow,
    Instructions,
    Nat,
    PopMpls,
    Port,
    PushMpls,
    Resubmit,
    SetField,
    SetIpTtl,
    SetMplsTtl,
    ToGroup,
)
from vnet.openflow.group import ANY_GROUP, BandType, Bucket, Group, GroupType, Meter, MeterFlag

RENAMED = {"ipv6_flabel": "ipv6_label", "tunnel_id": "tun_id"}


def flow_text(flow: Flow) -> str:
    """One flow as `add-flow` reads it."""
    head = ofctl.text(Flow(flow.table, flow.priority, flow.match, cookie=flow.cookie))
    return _renamed(head.removesuffix("actions=drop")) + f"actions={_instructions(flow.instructions)}"


def _renamed(text: str) -> str:
    for ours, theirs in RENAMED.items():
        text = text.replace(f"{ours}=", f"{theirs}=").replace(f"->{ours}", f"->{theirs}")
    return text.replace("NXM_NX_NW_TTL", "NXM_NX_IP_TTL")


def _instructions(instructions: Instructions) -> str:
    words = [f"meter:{instructions.meter}"] if instructions.meter is not None else []
    words += _actions(instructions.apply)
    words += ["clear_actions"] if instructions.clear else []
    words += [f"write_actions({','.join(_actions(instructions.write))})"] if instructions.write else []
    if instructions.metadata:
        value, mask = instructions.metadata
        words.append(f"write_metadata:{value:#x}/{mask:#x}")
    words += [f"goto_table:{instructions.goto}"] if instructions.goto is not None else []
    return ",".join(words) or "drop"


def _actions(actions: Iterable[Action]) -> list[str]:
    return [_action(action) for action in actions]


def _action(action: Action) -> str:
    match action:
        case PushMpls():
            return f"push_mpls:{action.ethertype:#x}"
        case PopMpls():
            return f"pop_mpls:{action.ethertype:#x}"
        case SetMplsTtl():
            return f"set_mpls_ttl({action.ttl})"
        case SetIpTtl():
            return f"mod_nw_ttl:{action.ttl}"
        case DecMplsTtl():
            return "dec_mpls_ttl"
        case DecIpTtl():
            return "dec_ttl"
        case ToGroup():
            return f"group:{action.group}"
        case Resubmit():
            port = "" if action.port is None else action.port
            return f"resubmit({port},{'' if action.table is None else action.table})"
        case ConntrackClear():
            return "ct_clear"
        case Conntrack():
            return _conntrack(action)
        case SetField(field="vlan_vid"):
            return ofctl.action_text(action)
        case _:
            return _renamed(ofctl.action_text(action))


def _conntrack(action: Conntrack) -> str:
    words = ["commit"] if action.commit else []
    words += ["force"] if action.force else []
    words += [f"table={action.table}"] if action.table is not None else []
    if action.zone_field:
        name, offset, bits = action.zone_field
        words.append(f"zone={ofctl.subfield(name, offset, bits)}")
    elif action.zone:
        words.append(f"zone={action.zone}")
    changes = [
        f"set_field:{change[0]:#x}/{change[1]:#x}->{name}"
        for name, change in (("ct_mark", action.mark), ("ct_label", action.label))
        if change
    ]
    words += [f"exec({','.join(changes)})"] if changes else []
    words += [_nat(action.nat)] if action.nat else []
    return f"ct({','.join(words)})"


def _nat(nat: Nat) -> str:
    if nat.source is None:
        return "nat"
    address = IPv4Address if nat.family == 4 else IPv6Address
    ends = [
        f"[{address(end)}]" if nat.family == 6 and nat.ports else str(address(end))
        for end in nat.addresses or ()
    ]
    ports = f":{nat.ports[0]}-{nat.ports[1]}" if nat.ports else ""
    return f"nat({'src' if nat.source else 'dst'}={'-'.join(ends)}{ports})"


KINDS = {
    GroupType.ALL: "all",
    GroupType.SELECT: "select",
    GroupType.INDIRECT: "indirect",
    GroupType.FAST_FAILOVER: "ff",
}


def group_text(group: Group) -> str:
    """One group as `add-group` reads it."""
    buckets = [_bucket(bucket, group.kind) for bucket in group.buckets]
    return ",".join([f"group_id={group.number}", f"type={KINDS[group.kind]}", *buckets])


def _bucket(bucket: Bucket, kind: GroupType) -> str:
    words = [f"weight:{bucket.weight}"] if kind is GroupType.SELECT else []
    words += [f"watch_port:{bucket.watch_port}"] if bucket.watch_port != Port.ANY else []
    words += [f"watch_group:{bucket.watch_group}"] if bucket.watch_group != ANY_GROUP else []
    return f"bucket={','.join([*words, 'actions=' + (','.join(_actions(bucket.actions)) or 'drop')])}"


def meter_text(meter: Meter) -> str:
    """One meter as `add-meter` reads it; Open vSwitch knows bands that drop only."""
    words = ["kbps" if meter.flags & MeterFlag.KBPS else "pktps"]
    words += [
        name for flag, name in ((MeterFlag.BURST, "burst"), (MeterFlag.STATS, "stats")) if meter.flags & flag
    ]
    for band in meter.bands:
        assert band.kind is BandType.DROP, band
        words.append(f"band=type=drop,rate={band.rate}" + (f",burst_size={band.burst}" if band.burst else ""))
    return f"meter={meter.number},{','.join(words)}"
