"""What vnet does otherwise than Open vSwitch 3.1, by name, each with its reason."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from tests.exams.differential.frames import internet
from vnet.base.drop import DropReason
from vnet.openflow import packet, rewrite
from vnet.openflow.conntrack import ACK, SYN
from vnet.openflow.fields import ETH_IPV4, ETH_IPV6, ETH_MPLS, CtState, ExtHeader
from vnet.openflow.flow import (
    Action,
    Conntrack,
    DecMplsTtl,
    PopMpls,
    PopVlan,
    PushMpls,
    PushVlan,
    Resubmit,
    SetField,
    SetMplsTtl,
    ToGroup,
)
from vnet.openflow.group import Group
from vnet.openflow.message import PacketInReason
from vnet.openflow.packet import Checksum, Sum
from vnet.openflow.table import Outcome


@dataclass(frozen=True, slots=True)
class Difference:
    """Something vnet does otherwise, and why."""

    reason: str
    explains: Callable[[bytes, Outcome, tuple[Group, ...]], bool]


def _fields(frame: bytes) -> dict[str, int]:
    return dict(packet.parse(frame).fields)


def tracked(outcome: Outcome) -> bool:
    return any(
        isinstance(action, Conntrack)
        for step in outcome.trail
        if step.flow
        for action in step.flow.instructions.apply
    )


def done(outcome: Outcome) -> set[type[Action]]:
    """The kinds of actions that the flows on the way hold."""
    used = (step.flow.instructions for step in outcome.trail if step.flow)
    return {type(action) for instructions in used for action in instructions.apply + instructions.write}


def _has_set(outcome: Outcome) -> bool:
    return any(step.flow.instructions.write for step in outcome.trail if step.flow)


def _writes_popped_tag(outcome: Outcome) -> bool:
    used = [step.flow.instructions for step in outcome.trail if step.flow]
    return any(PopVlan() in one.write + one.apply for one in used) and any(
        isinstance(action, SetField) and action.field in ("vlan_vid", "vlan_pcp")
        for one in used
        for action in one.write + one.apply
    )


def _is_wrong(frame: bytes) -> bool:
    """Whether a checksum that the connection tracker of Open vSwitch looks at is wrong."""
    parsed = packet.parse(frame)
    for one in parsed.checksums:
        covered = [frame[start:end] for start, end in one.covers]
        if (
            one.kind is not Sum.CRC32C
            and _sum(parsed, covered) not in (0, 0xFFFF)
            and not _is_absent(frame, one)
        ):
            return True
    return False


def _sum(parsed: packet.Packet, covered: list[bytes]) -> int:
    """0 if the checksum in it is right. Layer 4 with addresses covers its length and protocol as well."""
    pseudo = struct.pack("!II", len(covered[0]), parsed.fields["ip_proto"]) if len(covered) > 1 else b""
    return internet(b"".join((pseudo, *(part + bytes(len(part) % 2) for part in reversed(covered)))))


def _is_absent(frame: bytes, checksum: Checksum) -> bool:
    """No UDP checksum, which only IPv4 allows (RFC 8200, section 8.1)."""
    absent = frame[checksum.at : checksum.at + 2] == b"\0\0"
    return checksum.kind is Sum.UDP and absent and "ipv4_src" in _fields(frame)


def _labels(frame: bytes) -> int:
    """How many labels a frame has."""
    count = 0
    while (bottom := _stack_bottom(frame)) is not None:
        frame, count = rewrite.pop_mpls(frame, 0xFFFF if bottom else ETH_MPLS), count + 1
    return count


def _stack_bottom(frame: bytes) -> int | None:
    try:
        return _fields(frame).get("mpls_bos")
    except packet.Malformed:  # the stack ends with the frame
        return None


def _tracked_as(outcome: Outcome, bit: int) -> bool:
    return any(step.fields["ct_state"] & bit for step in outcome.trail)


def is_opening(frame: bytes) -> bool:
    """Whether it is the first segment of a TCP connection."""
    return _fields(frame).get("tcp_flags", 0) & (SYN | ACK) == SYN


def _guesses_label(outcome: Outcome) -> bool:
    """Whether a label was pushed and not given a value and class, or in front of what has no TTL."""
    for step in outcome.trail:
        if step.flow is None:
            continue
        used = step.flow.instructions.apply + step.flow.instructions.write
        written = {action.field for action in used if isinstance(action, SetField)}
        ip = step.fields["eth_type"] in (ETH_IPV4, ETH_IPV6)
        if any(isinstance(a, PushMpls) for a in used) and not (ip and {"mpls_label", "mpls_tc"} <= written):
            return True
    return False


def _written(outcome: Outcome, groups: tuple[Group, ...]) -> set[str]:
    """The fields that flows on the way or any bucket write."""
    flows = (step.flow.instructions for step in outcome.trail if step.flow)
    lists = [
        *(one.apply + one.write for one in flows),
        *(b.actions for group in groups for b in group.buckets),
    ]
    return {action.field for actions in lists for action in actions if isinstance(action, SetField)}


def _writes_label_part(outcome: Outcome) -> bool:
    used = (step.flow.instructions for step in outcome.trail if step.flow)
    return any(
        isinstance(action, SetMplsTtl | DecMplsTtl)
        or (isinstance(action, SetField) and action.field.startswith("mpls_"))
        for one in used
        for action in one.apply + one.write
    )


def _pushed_labels(outcome: Outcome) -> int:
    used = (step.flow.instructions for step in outcome.trail if step.flow)
    return sum(isinstance(action, PushMpls) for one in used for action in one.apply + one.write)


def _pops_label(outcome: Outcome, groups: tuple[Group, ...]) -> bool:
    in_buckets = (action for group in groups for bucket in group.buckets for action in bucket.actions)
    return PopMpls in done(outcome) or any(isinstance(action, PopMpls) for action in in_buckets)


def _has_two_tags(frame: bytes, ours: Outcome, groups: tuple[Group, ...]) -> bool:
    """Whether it came with two, left with two, or may have had two in between, in a bucket."""
    pushing = [bucket for group in groups for bucket in group.buckets if PushVlan() in bucket.actions]
    in_bucket = bool(pushing) and ToGroup in done(ours)
    nested = any(isinstance(action, ToGroup) for bucket in pushing for action in bucket.actions)
    tagged = nested or rewrite.is_tagged(frame) or PushVlan in done(ours)
    frames = (frame, *(sent for _, sent in ours.outputs))
    return (
        (in_bucket and tagged)
        or (rewrite.is_tagged(frame) and PushVlan in done(ours))
        or any(rewrite.is_tagged(rewrite.pop_vlan(f)) for f in frames if rewrite.is_tagged(f))
    )


def _repeats_nd_option(frame: bytes) -> bool:
    """Neighbour discovery with two options for a link-layer address of one kind."""
    place = packet.parse(frame).places.get("ipv6_nd_target")
    kinds = []
    at = place.start + 16 if place else len(frame)
    while at + 8 <= len(frame) and frame[at + 1]:
        kinds.append(frame[at])
        at += 8 * frame[at + 1]
    return any(kinds.count(kind) > 1 for kind in (packet.OPTION_SLL, packet.OPTION_TLL))


def _rewrites_in_set(outcome: Outcome) -> bool:
    used = (step.flow.instructions.write for step in outcome.trail if step.flow)
    written = [action for actions in used for action in actions if isinstance(action, SetField)]
    fields = [action.field for action in written]
    return any(action.mask is not None and fields.count(action.field) > 1 for action in written)


def _has_fragment_header(frame: bytes) -> bool:
    """An IPv6 packet whose first header is a fragment header, though it may fragment nothing."""
    start = 18 if rewrite.is_tagged(frame) else 14
    return "ipv6_src" in _fields(frame) and frame[start + 6] == packet.FRAGMENT


BY_DESIGN = {
    "malformed": Difference(
        "a header that is cut off or contradicts itself is dropped; Open vSwitch uses what it could read",
        lambda _frame, ours, _groups: DropReason.MALFORMED in (ours.drop, ours.failure),
    ),
    "later IPv6 fragment": Difference(
        "ip_proto is what the fragment header says, so that a rule for TCP covers it; Open vSwitch says 44",
        lambda frame, _ours, _groups: (
            _fields(frame).get("ip_frag") == packet.FRAG_LATER and "ipv6_src" in _fields(frame)
        ),
    ),
    "action set after a miss": Difference(
        "a miss drops the packet (OpenFlow 1.3.5, section 5.4); Open vSwitch still carries out the set",
        lambda _frame, ours, _groups: any(step.flow is None for step in ours.trail) and _has_set(ours),
    ),
    "ICMP timestamp": Difference(
        "only echo opens a connection; Open vSwitch tracks timestamp and information requests too",
        lambda frame, ours, _groups: _fields(frame).get("icmpv4_type") in (13, 14, 15, 16) and tracked(ours),
    ),
    "port 0 of a later fragment": Difference(
        "a later fragment has no ports and matches none; Open vSwitch lets it match port or type 0",
        lambda frame, _ours, _groups: _fields(frame).get("ip_frag") == packet.FRAG_LATER,
    ),
    "second tag": Difference(
        "what a popped tag uncovers or a second one hides is read again; Open vSwitch keeps what it saw",
        _has_two_tags,
    ),
    "expired TTL": Difference(
        "the packet goes no further; Open vSwitch only stops the list of actions, not its caller or the set",
        lambda _frame, ours, _groups: (
            any(sent.reason is PacketInReason.INVALID_TTL for sent in ours.to_controller)
            and (_has_set(ours) or Resubmit in done(ours))
        ),
    ),
    "pushed label": Difference(
        "a new label is 0, of class 0, its TTL that of IP or 0; Open vSwitch guesses all three",
        lambda _frame, ours, _groups: _guesses_label(ours),
    ),
    "part of a label": Difference(
        "class or TTL of a label is written into the label that is there; Open vSwitch's cached flow also"
        " writes the value of the packet that made it (commit_mpls_action does not un-wildcard it)",
        lambda frame, ours, _groups: "mpls_label" in _fields(frame) and _writes_label_part(ours),
    ),
    "too short for Ethernet": Difference(
        "a frame of 60 bytes stays so without its label; Open vSwitch does not pad it",
        lambda frame, ours, groups: len(frame) < 72 and _pops_label(ours, groups),
    ),
    "four labels": Difference(
        "there is no bound; Open vSwitch drops a packet that would have more than three labels",
        lambda frame, ours, _groups: _labels(frame) + _pushed_labels(ours) > 3,
    ),
    "waypoint": Difference(
        "the checksum follows a new source even before the last waypoint; Open vSwitch then leaves it wrong",
        lambda frame, _ours, _groups: bool(_fields(frame).get("ipv6_exthdr", 0) & ExtHeader.ROUTER),
    ),
    "atomic fragment": Difference(
        "the checksum follows an address also behind a fragment header that fragments nothing (RFC 6946);"
        " Open vSwitch then leaves it wrong",
        lambda frame, _ours, _groups: (
            bool(_fields(frame).get("ipv6_exthdr", 0) & ExtHeader.FRAG) and not _fields(frame)["ip_frag"]
        ),
    ),
    "drop-eligible": Difference(
        "a copy of the packet as it came is drop-eligible still; Open vSwitch forgets it once any copy of it"
        " got another tag",
        lambda frame, _ours, _groups: rewrite.is_tagged(frame) and bool(frame[14] & 0x10),
    ),
    "repeated ND option": Difference(
        "of two options of a kind the first counts, as for Linux; Open vSwitch then reads none",
        lambda frame, _ours, _groups: _repeats_nd_option(frame),
    ),
    "part of a field in a set": Difference(
        "the last write of a field replaces those before (OpenFlow 1.5.1, section 5.6); Open vSwitch carries"
        " out all, which differs where the last one has a mask",
        lambda _frame, ours, _groups: _rewrites_in_set(ours),
    ),
    "protocol 0": Difference(
        "ARP of operation 0 and IP of protocol 0 are written as any other; Open vSwitch leaves them as they"
        " are (commit_set_nw_action takes 0 for no layer 3)",
        lambda frame, ours, groups: (
            0 in (_fields(frame).get("arp_op"), _fields(frame).get("ip_proto"))
            and any(name.startswith(("arp_", "ip", "nw_")) for name in _written(ours, groups))
        ),
    ),
    "tracked in mid-stream": Difference(
        "TCP that starts no connection and belongs to none is invalid; Open vSwitch picks it up as new",
        lambda frame, ours, _groups: (
            tracked(ours) and _fields(frame).get("tcp_flags", SYN) & (SYN | ACK) != SYN
        ),
    ),
    "simultaneous open": Difference(
        "a responder's SYN is a reply; Open vSwitch calls it new and not a reply",
        lambda frame, ours, _groups: _tracked_as(ours, CtState.RPL) and is_opening(frame),
    ),
    "no tag to write": Difference(
        "a packet whose only tag was popped has none to write; Open vSwitch then pushes one",
        lambda _frame, ours, _groups: _writes_popped_tag(ours),
    ),
    "tracked with a wrong checksum": Difference(
        "checksums are the guest's own affair; Open vSwitch calls such a packet invalid",
        lambda frame, ours, _groups: tracked(ours) and _is_wrong(frame),
    ),
    "tracked fragment": Difference(
        "a later fragment cannot be attributed and is dropped; Open vSwitch reassembles fragments",
        lambda frame, ours, _groups: (
            (bool(_fields(frame).get("ip_frag")) or _has_fragment_header(frame)) and tracked(ours)
        ),
    ),
}


REOPENED = "reopening"
"""A SYN opens anew once either side has reset or both sent FIN; Open vSwitch waits for ACKs. A reset after
which both sides go on is taken back, and a SYN then opens nothing. Only who knows the connections can tell
whether this applies."""


OTHER_CONNECTIONS = frozenset(
    {
        "ICMP timestamp",
        "tracked in mid-stream",
        "simultaneous open",
        "tracked with a wrong checksum",
        REOPENED,
    }
)
"""Where the connections that are known differ afterwards, even if the packet itself fares the same."""


def explain(frame: bytes, ours: Outcome, groups: tuple[Group, ...]) -> str | None:
    """The name of the difference that may explain why Open vSwitch does otherwise."""
    return next((name for name, known in BY_DESIGN.items() if known.explains(frame, ours, groups)), None)
