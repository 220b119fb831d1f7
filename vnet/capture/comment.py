"""Why a packet passed or was lost, in words: the comments of a capture file, the end of a text line.

dropped: POLICY — policy db-from-app, rule 2 "deny any" at three-tier.vnet.yaml:21
    (table ingress, ct_state=+trk+new, generation 3)
    segmentation offload: 45 segments of 1,448 bytes
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vnet.base.drop import DropReason
from vnet.capture.record import PacketRecord, Point, Verdict
from vnet.capture.segments import segments
from vnet.openflow.fields import CtState

Explain = Callable[[int], str]
"""Cookie of a flow to where it came from (`policy NAME, rule N "TEXT" at FILE:LINE`), "" if unknown."""

TableName = Callable[[int], str]
"""Number of a table to its name."""

MEANING: Mapping[DropReason, str] = {
    DropReason.NONE: "not dropped",
    DropReason.TABLE_MISS: "no flow of the table matches this packet",
    DropReason.RULE: "the flow that matched has no output",
    DropReason.PORT_CLOSED: "the port has no complete set of rules yet, or is down",
    DropReason.MALFORMED: "a header is cut off or contradicts itself",
    DropReason.FRAGMENT: "a fragment that belongs to no known connection",
    DropReason.CT_INVALID: "the packet does not fit the state of its connection",
    DropReason.CT_FULL: "the connection table is full",
    DropReason.CT_QUOTA: "this NIC has as many connections as it may have",
    DropReason.MTU: "larger than the output port can send",
    DropReason.TTL: "the time to live ran out",
    DropReason.NO_PORT: "the output port does not exist or is down",
    DropReason.LOOP: "more table lookups than one packet is allowed",
    DropReason.SAME_PORT: "the only output is the port the packet came in by",
    DropReason.ACTION_FAILED: "the kernel refused an action on this packet",
    DropReason.RATE: "over the declared rate",
    DropReason.STORM: "over the limit for broadcast, multicast and unknown destinations",
    DropReason.UNSUPPORTED: "the packet needs something this datapath refuses",
    DropReason.NO_BUCKET: "the group has no bucket that could take the packet",
    DropReason.NAT_FULL: "no address and port are left to translate to",
    DropReason.REFUSAL_QUOTA: "too many packets of this NIC were just refused; no new flow is looked at",
    DropReason.POLICY: "no rule allows it, or a rule denies it",
    DropReason.SPOOF_MAC: "the source MAC address is not this NIC's",
    DropReason.SPOOF_IP: "the source IP address is not this NIC's",
    DropReason.SPOOF_ARP: "the ARP sender is not this NIC",
    DropReason.SPOOF_ND: "the neighbour discovery sender is not this NIC",
    DropReason.ROGUE_DHCP: "a guest may not answer as a DHCP server",
    DropReason.ROGUE_RA: "a guest may not send router advertisements",
    DropReason.VLAN_NOT_ALLOWED: "a guest may not send this VLAN tag",
    DropReason.ETHERTYPE: "only IPv4, IPv6 and ARP may be sent",
    DropReason.ISOLATED: "VMs of this network may not talk to each other",
    DropReason.NO_DST: "no NIC of this network has the destination's address",
    DropReason.NO_ROUTE: "there is no route to the destination",
    DropReason.INVALID_STATE: "not the first packet of a connection, and of no connection known",
    DropReason.MULTICAST: "broadcast or multicast that the fabric does not carry",
    DropReason.REJECTED: "a rule rejects it, or resets its connection; the sender was told",
}
"""One sentence for each reason, for packets that no rule of the user explains."""

_STATE_BITS = (
    ("trk", CtState.TRK),
    ("new", CtState.NEW),
    ("est", CtState.EST),
    ("rel", CtState.REL),
    ("rpl", CtState.RPL),
    ("inv", CtState.INV),
    ("snat", CtState.SNAT),
    ("dnat", CtState.DNAT),
)


def ct_state_text(ct_state: int) -> str:
    """The connection state as `ovs-ofctl` writes it: `+trk+new`; `-trk` when not tracked."""
    return "".join(f"+{name}" for name, bit in _STATE_BITS if ct_state & bit) or "-trk"


def annotate(record: PacketRecord, explain: Explain, table_name: TableName = str) -> tuple[str, ...]:
    """The comments for one packet: first the verdict with all that led to it, then what the packet is."""
    circumstances = (
        f"table {table_name(record.table)}, ct_state={ct_state_text(record.ct_state)}, "
        f"generation {record.generation}"
    )
    cause = because(record, explain)
    verdict = f"{outcome(record)}{' — ' if cause else ''}{cause} ({circumstances})"
    cut = segments(record.data, record.original_length, record.gso_size, record.gso_segs)
    return (verdict, f"segmentation offload: {cut}") if cut else (verdict,)


def outcome(record: PacketRecord) -> str:
    """`dropped: REASON`, `passed` or `delivered`."""
    if record.verdict is Verdict.DROP:
        return f"dropped: {record.reason.name}"
    return "delivered" if record.point in (Point.DELIVERED, Point.UPLINK_OUT) else "passed"


def because(record: PacketRecord, explain: Explain) -> str:
    """Where the rule that decided came from; for a drop that no rule explains, what the reason means."""
    origin = explain(record.cookie) if record.cookie else ""
    if origin or record.verdict is Verdict.PASS:
        return origin
    return MEANING[record.reason]
