"""Flows and groups as the dataplane runs them: matches as masked words, actions as fixed-size records.

Pure. A match becomes (mask, words): which bits of which words of the parsed key must have which
value. What the dataplane cannot carry out is refused here, with the OpenFlow error to answer with,
before anything is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, starmap

from vnet.base.drop import DropReason
from vnet.openflow import cookie, fields
from vnet.openflow.fields import Frag
from vnet.openflow.flow import Action, Conntrack, Flow, Instructions, Match, Resubmit, is_own, rejects
from vnet.openflow.group import ANY_GROUP, Bucket, Group, GroupType
from vnet.openflow.message import (
    BadAction,
    BadInstruction,
    BadMatch,
    ErrorType,
    FlowModFailed,
    GroupModFailed,
)
from vnet.switch import abi
from vnet.switch.abi import CtFlag, Kind, Need, Op, Trait, Word
from vnet.switch.datapath import GroupKey, Refused
from vnet.switch.lower_actions import (
    Lowerable,
    MeterRef,
    PortList,
    Record,
    lower_action,
    set_slot,
)
from vnet.switch.places import CT_FAMILY_SHIFT, PLACES, WORD_MASK, spread

MaskWords = tuple[tuple[int, int], ...]
"""(word, mask) pairs in word order: what rules that share a hash table have in common."""

Reads = tuple[int, ...]
"""By word of the flow cache's key: the bits that a rule asks for."""

NOTHING: Reads = (0,) * abi.CACHE_WORDS
ALWAYS: Reads = (0xFFFFFFFF_FF00FFFF, 0x1000, 0xFFFF, 0, 0, 0, 0, 0)
"""Ingress port, protocol, fragment or not, tag or not, EtherType: any action may ask for these."""
FLOW: Reads = (0xFFFFFFFF_FF00FFFF, WORD_MASK, WORD_MASK, *(WORD_MASK,) * 5)
"""All that tells flows and connections apart."""

LOGGED_BYTES = 128
"""How much of a packet the log is sent, as much as of one that is dropped (observe.h)."""


def union(all_reads: Iterable[Reads]) -> Reads:
    """What any of them asks for."""
    total = NOTHING
    for reads in all_reads:
        total = tuple(a | b for a, b in zip(total, reads, strict=True))
    return total


@dataclass(frozen=True, slots=True)
class Lowered:
    """A flow as the dataplane runs it. `words` are the values under `mask`, in the same order."""

    mask: MaskWords
    words: tuple[int, ...]
    actions: tuple[Lowerable, ...]
    goto: int
    drop_reason: DropReason
    reads: Reads
    """What the actions ask for; the match is in `mask`."""
    miss: bool
    """A table-miss flow (section 5.4)."""
    logged: bool = False
    """Its packets are told for a log."""


@dataclass(frozen=True, slots=True)
class LoweredGroup:
    """A group as the dataplane runs it: the actions of each bucket in the order of an action set."""

    buckets: tuple[tuple[Lowerable, ...], ...]
    reads: Reads


def lower(flow: Flow) -> Lowered:
    """Translate a flow. Raises `Refused` if this dataplane cannot carry it out."""
    if not 0 <= flow.table < abi.TABLES:
        raise Refused(ErrorType.FLOW_MOD_FAILED, FlowModFailed.BAD_TABLE_ID, f"no table {flow.table}")
    mask, words = lower_match(flow.match)
    actions = lower_instructions(flow.instructions, flow.table)
    logged = cookie.is_logged(flow.cookie)
    goto = flow.instructions.goto
    if goto is not None and not flow.table < goto < abi.TABLES:
        raise Refused(ErrorType.BAD_INSTRUCTION, BadInstruction.BAD_TABLE_ID, f"cannot go to table {goto}")
    return Lowered(
        mask,
        words,
        tuple(map(_headers_only, actions)) if logged else actions,
        abi.NO_TABLE if goto is None else goto,
        cookie.reason(flow.cookie),
        reads_of(actions),
        flow.priority == 0 and not flow.match.entries,
        logged,
    )


def _headers_only(record: Lowerable) -> Lowerable:
    """Whole packets would let one port's log fill the ring buffer that carries those of all."""
    if isinstance(record, Record) and record.op == Op.CONTROLLER:
        return Record(Op.CONTROLLER, b=LOGGED_BYTES)
    return record


def lower_match(match: Match) -> tuple[MaskWords, tuple[int, ...]]:
    """The (mask, words) of a match. Raises `Refused` for a field or a width this dataplane lacks."""
    values: dict[int, int] = {}
    masks: dict[int, int] = {}
    for name, value, mask in match:
        place = PLACES.get(name)
        if place is None:
            raise Refused(ErrorType.BAD_MATCH, BadMatch.BAD_FIELD, f"cannot match {name}")
        has = [(Word.PORT, place.has, place.has)] if place.has else []
        if place.family:
            has.append((Word.ZONE, place.family << CT_FAMILY_SHIFT, 0xFF << CT_FAMILY_SHIFT))
        for word, part_value, part_mask in [*spread(place, value, mask), *has]:
            values[word] = values.get(word, 0) | part_value
            masks[word] = masks.get(word, 0) | part_mask
    if len(masks) > abi.MASK_WORDS:
        why = f"a match over {len(masks)} words of the key; {abi.MASK_WORDS} are possible"
        raise Refused(ErrorType.FLOW_MOD_FAILED, FlowModFailed.TABLE_FULL, why)
    order = sorted(masks)
    return tuple((word, masks[word]) for word in order), tuple(values[word] for word in order)


def lower_instructions(instructions: Instructions, table: int) -> tuple[Lowerable, ...]:
    """Records in order of execution: meter, apply, clear, write, metadata."""
    if rejects(instructions.apply) and instructions != Instructions(apply=instructions.apply[:1]):
        raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_ARGUMENT, "a flow that rejects does nothing else")
    lowered: list[Lowerable] = []
    if instructions.meter is not None:
        lowered.append(MeterRef(instructions.meter))
    lowered += lower_actions(instructions.apply, table)
    if instructions.clear:
        lowered.append(Record(Op.CLEAR))
    for action in instructions.write:
        lowered += _written(action, table)
    if instructions.metadata is not None:
        value, mask = instructions.metadata
        lowered.append(Record(Op.SET, a=Word.METADATA, value=value & mask, mask=mask))
    return _bounded(lowered)


def lower_actions(actions: Iterable[Action], table: int) -> list[Lowerable]:
    """A list of actions; runs of plain outputs become one list, which costs the packet one step."""
    lowered: list[Lowerable] = []
    for action in actions:
        for record in lower_action(action, table):
            _append(lowered, record)
    return lowered


def _append(lowered: list[Lowerable], record: Lowerable) -> None:
    before = lowered[-1] if lowered else None
    if isinstance(record, Record) and record.op == Op.OUTPUT:
        if isinstance(before, Record) and before.op == Op.OUTPUT:
            lowered[-1] = PortList((before.b, record.b))
            return
        if isinstance(before, PortList):
            lowered[-1] = PortList((*before.ports, record.b))
            return
    lowered.append(record)


def _written(action: Action, table: int) -> list[Lowerable]:
    """An action for the action set: the record that writes it there, then what it writes."""
    if isinstance(action, Conntrack | Resubmit) or is_own(action):
        why = "ct, resubmit and vnet's own actions have no place in an action set"
        raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_TYPE, why)
    records = lower_action(action, table)
    return [Record(Op.WRITE, a=set_slot(action), b=len(records)), *records]


def _bounded(lowered: list[Lowerable]) -> tuple[Lowerable, ...]:
    if len(lowered) > abi.RULE_ACTIONS:
        why = f"{len(lowered)} actions; {abi.RULE_ACTIONS} fit"
        raise Refused(ErrorType.BAD_ACTION, BadAction.TOO_MANY, why)
    return tuple(lowered)


def lower_packet_out(actions: Iterable[Action]) -> tuple[Lowerable, ...]:
    """A controller's actions on its packet, where OFPP_TABLE means the first table; without port lists."""
    listed = tuple(actions)
    _refuse_reject(listed)
    return _bounded([record for action in listed for record in lower_action(action, 0)])


def _refuse_reject(actions: Iterable[Action]) -> None:
    if any(map(is_own, actions)):
        raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_TYPE, "only a flow can have vnet's own actions")


def lower_group(group: Group) -> LoweredGroup:
    """Translate a group. Raises `Refused` if this dataplane cannot carry it out."""
    if any(bucket.watch_group != ANY_GROUP for bucket in group.buckets):
        why, key = "a bucket can watch a port, not a group", GroupKey(group.number)
        raise Refused(ErrorType.GROUP_MOD_FAILED, GroupModFailed.WATCH_UNSUPPORTED, why, key)
    if len(group.buckets) > abi.BUCKETS:
        why = f"{len(group.buckets)} buckets; {abi.BUCKETS} fit"
        key = GroupKey(group.number)
        raise Refused(ErrorType.GROUP_MOD_FAILED, GroupModFailed.OUT_OF_BUCKETS, why, key)
    buckets = tuple(_bucket(bucket) for bucket in group.buckets)
    chosen_by_flow = group.kind == GroupType.SELECT and len(buckets) > 1
    reads = union([*map(reads_of, buckets), FLOW if chosen_by_flow else NOTHING])
    return LoweredGroup(buckets, reads)


def _bucket(bucket: Bucket) -> tuple[Lowerable, ...]:
    """In the order of an action set, in which the last of each kind counts, and one way out of it."""
    _refuse_reject(bucket.actions)
    kept = {set_slot(action): action for action in bucket.actions}
    ways = [slot for slot in kept if slot >= abi.SLOT_GROUP]
    for slot in sorted(ways)[1:]:
        del kept[slot]
    return _bounded(lower_actions([kept[slot] for slot in sorted(kept)], 0))


def reads_of(records: Sequence[Lowerable]) -> Reads:
    """The bits of the flow cache's key that decide what these records make of a packet."""
    return union(starmap(_reads_of_one, pairwise((*records, None))))


def _reads_of_one(record: Lowerable | None, after: Lowerable | None) -> Reads:
    """`after` is what stands behind the record, which may be its first operand."""
    if not isinstance(record, Record):
        return NOTHING
    match record.op:
        case Op.CT if record.a & CtFlag.ZONE_FIELD:
            assert isinstance(after, Record)
            return union((FLOW, _bits(after.value & 0xFF, WORD_MASK)))
        case Op.CT:
            return FLOW
        case Op.SET:
            return union((_rewritten(record.a, record.mask), _needed(record.b)))
        case Op.MOVE:
            words = (_bits(word, WORD_MASK) for word in (record.a & 0xFF, record.a >> 8))
            return union((*words, _needed(record.value & 0xFF), _needed(record.value >> 8)))
        case Op.OUTPUT_FIELD:
            return _bits(record.a, WORD_MASK)
        case Op.PUSH_VLAN | Op.POP_VLAN:
            return _rewritten(Word.DST, 0xFFFF)
    return NOTHING


_UNITS: Mapping[int, tuple[int, ...]] = {
    Word.PORT: (0xFF000000, 0xFF0000),
    Word.DST: (WORD_MASK - 0xFFFF, 0xFFFF),
    Word.SRC: (WORD_MASK - 0xFFFF, 0xFFFF),
    **dict.fromkeys(range(Word.IP_SRC, Word.L4), (WORD_MASK,)),
    Word.L4: (0xFFFF << 48, 0xFFFF << 32, 0xFFFF),
}
"""By word: the bits that the dataplane writes into a packet together (`bpf/commit.h`)."""

_TYPE, _CODE = 0xFFFF << 48, 0xFFFF << 32
_NEEDED: Mapping[int, int] = {
    Need.ICMP: _TYPE | _CODE,
    Need.ICMPV6: _TYPE | _CODE,
    Need.ND: _TYPE,
    Need.ND_SOLICIT: _TYPE,
    Need.ND_ADVERT: _TYPE,
}
"""Bits of `Word.L4` that tell whether a field is there, or that are written together with it; for all
other fields `ALWAYS` tells it."""


def _needed(need: int) -> Reads:
    return _bits(Word.L4, _NEEDED.get(need, 0))


def _rewritten(word: int, mask: int) -> Reads:
    """A path writes whole fields, so who writes a bit of one asks for all of it."""
    for unit in _UNITS.get(word, ()):
        mask |= unit if mask & unit else 0
    return _bits(word, mask)


def _bits(word: int, mask: int) -> Reads:
    return tuple(mask if each == word else 0 for each in range(abi.CACHE_WORDS))


_TYPES = {fields.ETH_IPV4: Trait.IPV4, fields.ETH_IPV6: Trait.IPV6, fields.ETH_ARP: Trait.ARP}
_PROTOCOLS = {
    fields.TCP: Trait.TCP,
    fields.UDP: Trait.UDP,
    fields.ICMP: Trait.ICMP,
    fields.ICMPV6: Trait.ICMP,
    fields.SCTP: Trait.SCTP,
}


def traits(mask: MaskWords, words: Sequence[int]) -> Trait:
    """What every packet has that a match lets through, of what `vnet_traits` sees in a packet."""
    found = Trait(0)
    for (word, bits), value in zip(mask, words, strict=True):
        if word == Word.SRC and bits & 0xFFFF == 0xFFFF:
            found |= _TYPES.get(value & 0xFFFF, Trait(0))
        elif word == Word.PORT:
            if bits >> 24 & 0xFF == 0xFF:
                found |= _PROTOCOLS.get(value >> 24 & 0xFF, Trait(0))
            found |= Trait.LATER if value & bits & Frag.LATER << 8 else Trait(0)
        elif word == Word.CT:
            found |= Trait((value & bits & 0xFF) * Trait.CT)
    return found


def beyond(mask: MaskWords) -> Kind:
    """The kinds of packets of which a mask asks for what is not in the flow cache's key."""
    kinds = Kind(0)
    for word, bits in mask:
        if abi.CACHE_WORDS <= word < Word.METADATA:
            kinds |= Kind.LINK
        elif word == Word.MPLS:
            kinds |= Kind.MPLS
        elif word == Word.MORE:
            kinds |= Kind.IP if bits >> 56 else Kind(0)
            kinds |= Kind.TCP if bits >> 32 & 0xFFF else Kind(0)
            kinds |= Kind.IPV6 if bits >> 44 & 0xFFF or bits & 0xFFFFFFFF else Kind(0)
    return kinds
