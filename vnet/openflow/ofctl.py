"""Flows as text in the syntax of ovs-ofctl(8): what `add-flow` reads and `dump-flows` shows.

`text(flow)` is accepted by `ovs-ofctl -O OpenFlow13 add-flow`; it is also how vnet prints flows to people.
Protocols are written in shorthand (`tcp6` for eth_type=0x86dd,ip_proto=6), ports as `tp_src` and `tp_dst`.
Source: ovs-ofctl(8), ovs-fields(7), ovs-actions(7).
"""

from __future__ import annotations

from vnet.openflow.flow import Flow, FlowFlag, Instructions, Port
from vnet.openflow.group import ANY_GROUP, Band, BandType, Bucket, Group, GroupType, Meter, MeterFlag
from vnet.openflow.ofctl_action import action_text, actions_text
from vnet.openflow.ofctl_match import CT_FLAGS, mac, match_text, match_words, subfield

__all__ = [
    "CT_FLAGS",
    "action_text",
    "actions_text",
    "group_text",
    "instructions_text",
    "mac",
    "match_text",
    "meter_text",
    "subfield",
    "text",
]

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


def instructions_text(instructions: Instructions) -> str:
    """What follows `actions=`."""
    words = [] if instructions.meter is None else [f"meter:{instructions.meter}"]
    words += [action_text(action) for action in instructions.apply]
    words += ["clear_actions"] if instructions.clear else []
    if instructions.write:
        words.append(f"write_actions({','.join(action_text(action) for action in instructions.write)})")
    if instructions.metadata:
        value, mask = instructions.metadata
        words.append(f"write_metadata:{value:#x}/{mask:#x}")
    words += [f"goto_table:{instructions.goto}"] if instructions.goto is not None else []
    return ",".join(words) or "drop"


# -- groups and meters ----------------------------------------------------------------------------


GROUP_KINDS = {
    GroupType.ALL: "all",
    GroupType.SELECT: "select",
    GroupType.INDIRECT: "indirect",
    GroupType.FAST_FAILOVER: "fast_failover",
}
"""Names of the types of groups."""


def group_text(group: Group) -> str:
    """A group as `ovs-ofctl add-group` reads it."""
    buckets = (f"bucket={bucket_text(bucket, group.kind)}" for bucket in group.buckets)
    return ",".join([f"group_id={group.number}", f"type={GROUP_KINDS[group.kind]}", *buckets])


def bucket_text(bucket: Bucket, kind: GroupType) -> str:
    """One bucket, for example `weight:5,watch_port:1,actions=output:1`; unsaid, a SELECT weight is 1."""
    words = [f"weight:{bucket.weight}"] if kind == GroupType.SELECT else []
    words += [f"watch_port:{bucket.watch_port}"] if bucket.watch_port != Port.ANY else []
    words += [f"watch_group:{bucket.watch_group}"] if bucket.watch_group != ANY_GROUP else []
    return ",".join([*words, f"actions={actions_text(bucket.actions)}"])


def meter_text(meter: Meter) -> str:
    """A meter as `ovs-ofctl add-meter` reads it."""
    flags = [name for flag, name in METER_FLAGS.items() if meter.flags & flag]
    bands = ",".join(_band(band, meter.flags) for band in meter.bands)
    return ",".join([f"meter={meter.number}", *flags, *([f"bands={bands}"] if bands else [])])


METER_FLAGS = {
    MeterFlag.KBPS: "kbps",
    MeterFlag.PKTPS: "pktps",
    MeterFlag.BURST: "burst",
    MeterFlag.STATS: "stats",
}
"""Names of the flags of meters."""


def _band(band: Band, flags: MeterFlag) -> str:
    kind = "drop" if band.kind == BandType.DROP else "dscp_remark"
    words = [f"type={kind}", f"rate={band.rate}"]
    words += [f"burst_size={band.burst}"] if flags & MeterFlag.BURST else []
    words += [f"prec_level={band.precedence}"] if band.kind == BandType.DSCP_REMARK else []
    return ",".join(words)
