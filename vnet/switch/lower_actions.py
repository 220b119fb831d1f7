"""Actions as records of the dataplane (`struct vnet_action`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
from vnet.openflow.message import BadAction, ErrorType
from vnet.switch import abi
from vnet.switch.abi import CtFlag, Op
from vnet.switch.datapath import Refused
from vnet.switch.places import PLACES, WORD_MASK, WRITABLE, Place, pieces, spread

WHOLE = 0xFFFF
"""All of a packet. What is not buffered is sent whole (section 7.4.1), whatever `max_len` says."""


@dataclass(frozen=True, slots=True)
class Record:
    """One `vnet_action`."""

    op: Op
    a: int = 0
    b: int = 0
    value: int = 0
    mask: int = 0


@dataclass(frozen=True, slots=True)
class PortList:
    """Outputs to several ports."""

    ports: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GroupRef:
    """Go through a group; its place in the maps is known to the image."""

    group: int


@dataclass(frozen=True, slots=True)
class MeterRef:
    """Pass a meter."""

    meter: int


Lowerable = Record | PortList | GroupRef | MeterRef


def lower_action(action: Action, table: int) -> list[Lowerable]:
    """The records of one action of a flow of `table`. Raises `Refused`."""
    match action:
        case Output():
            return [_output(action)]
        case OutputField():
            return [_output_field(action)]
        case PushVlan(ethertype):
            return [Record(Op.PUSH_VLAN, a=ethertype)]
        case PopVlan():
            return [Record(Op.POP_VLAN)]
        case PushMpls(ethertype):
            return [Record(Op.PUSH_MPLS, a=ethertype)]
        case PopMpls(ethertype):
            return [Record(Op.POP_MPLS, a=ethertype)]
        case SetMplsTtl(ttl):
            return _set("mpls_ttl", ttl, None)
        case DecMplsTtl():
            return [Record(Op.DEC_MPLS_TTL)]
        case SetIpTtl(ttl):
            return _set("nw_ttl", ttl, None)
        case DecIpTtl(error):
            return [_error(Op.DEC_TTL, error)]
        case CopyTtlOut():
            return [Record(Op.COPY_TTL_OUT)]
        case CopyTtlIn():
            return [Record(Op.COPY_TTL_IN)]
        case SetField(field, value, mask):
            return _set(field, value, mask)
        case Move():
            return _move(action)
        case ToGroup(group):
            return [GroupRef(group)]
        case Resubmit():
            return [_resubmit(action, table)]
        case Conntrack():
            return _conntrack(action)
        case ConntrackClear():
            return [Record(Op.CT_CLEAR)]
        case Reject(error):
            return [_error(Op.REJECT, error)]
        case Advertise(mac):
            return [Record(Op.ADVERTISE, value=mac)]


def _error(op: Op, error: IcmpError | None) -> Record:
    """`a` is the version of IP, 0 if no router says anything; its address in two halves."""
    if error is None:
        return Record(op)
    high, low = error.source >> 64, error.source & (1 << 64) - 1
    return Record(op, a=error.family, b=error.kind << 8 | error.code, value=high, mask=low)


def _output(action: Output) -> Record:
    match action.port:
        case Port.IN_PORT:
            return Record(Op.IN_PORT)
        case Port.CONTROLLER:
            return Record(Op.CONTROLLER, b=WHOLE)
        case Port.FLOOD | Port.ALL:
            return Record(Op.FLOOD)
        case Port.NORMAL:
            return Record(Op.NORMAL)
        case Port.TABLE:
            return Record(Op.RESUBMIT, a=0, b=abi.NO_PORT)
        case port if 0 < port < abi.PORTS:
            return Record(Op.OUTPUT, b=port)
    raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_OUT_PORT, f"cannot send to port {action.port:#x}")


def _output_field(action: OutputField) -> Record:
    name, place = action.field, _field(action.field)
    if FIELDS[name].full_mask > WORD_MASK:
        raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_SET_TYPE, f"{name} is too wide for a port number")
    mask = FIELDS[name].full_mask if action.bits is None else (1 << action.bits) - 1
    return Record(Op.OUTPUT_FIELD, a=place.word, b=place.shift + action.offset, mask=mask & 0xFFFFFFFF)


def _field(name: str) -> Place:
    if name not in PLACES:
        raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_SET_TYPE, f"no field {name}")
    return PLACES[name]


def _writable(name: str) -> Place:
    if name not in WRITABLE:
        raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_SET_TYPE, f"cannot write {name}")
    return PLACES[name]


def _set(field: str, value: int, mask: int | None) -> list[Lowerable]:
    place = _writable(field)
    mask = FIELDS[field].full_mask if mask is None else mask
    if FIELDS[field].reshapes:
        return [_reshape(field, value, mask)]
    return _put(place, value, mask)


def _put(place: Place, value: int, mask: int) -> list[Lowerable]:
    return [
        Record(Op.SET, a=word, b=place.need, value=part & part_mask, mask=part_mask)
        for word, part, part_mask in spread(place, value & mask, mask)
    ]


def _reshape(field: str, value: int, mask: int) -> Record:
    if not FIELDS[field].takes(value, mask):
        raise Refused(
            ErrorType.BAD_ACTION, BadAction.BAD_SET_ARGUMENT, f"cannot write {value:#x} into {field}"
        )
    return Record(Op.SET_TYPE if field == "eth_type" else Op.SET_PROTO, a=value)


def _move(action: Move) -> list[Lowerable]:
    target = _writable(action.target)
    if FIELDS[action.target].reshapes:
        why = f"cannot move into {action.target}"
        raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_SET_ARGUMENT, why)
    return _moved(action, target)


def _moved(action: Move, target: Place) -> list[Lowerable]:
    """Bits that lie in several words are moved piece by piece, the lowest first."""
    source = _field(action.source)
    records: list[Lowerable] = []
    done = 0
    while done < action.bits:
        left = action.bits - done
        from_word, from_shift, here = pieces(source, action.source_offset + done, left)[0]
        to_word, to_shift, there = pieces(target, action.target_offset + done, left)[0]
        bits = min(here, there)
        records.append(
            Record(
                Op.MOVE,
                a=from_word | to_word << 8,
                b=from_shift | to_shift << 8 | bits << 16,
                value=source.need | target.need << 8,
            )
        )
        done += bits
    return records


def _resubmit(action: Resubmit, table: int) -> Record:
    target = table if action.table is None else action.table
    if not 0 <= target < abi.TABLES:
        raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_ARGUMENT, f"cannot resubmit to table {target}")
    port = abi.NO_PORT if action.port in (None, Port.IN_PORT) else action.port
    assert port is not None
    return Record(Op.RESUBMIT, a=target, b=port)


def _conntrack(action: Conntrack) -> list[Lowerable]:
    if action.moves:
        return _conntrack_with_moves(action)
    return [*_tracking(action, CtFlag(0))]


def _conntrack_with_moves(action: Conntrack) -> list[Lowerable]:
    """What mark and label are to be is put in their places of the key, where `ct` finds it."""
    if action.zone_field and action.zone_field[0] in _OF_CONNECTIONS:
        why = "the zone cannot be read from what `exec` copies to"
        raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_ARGUMENT, why)
    records: list[Lowerable] = []
    masks = dict.fromkeys(_OF_CONNECTIONS, 0)
    for name, written in zip(_OF_CONNECTIONS, (action.mark, action.label), strict=True):
        if written is not None:
            value, masks[name] = written
            records += _put(PLACES[name], value, masks[name])
    for move in action.moves:
        records += _moved(move, PLACES[move.target])
        masks[move.target] |= move.target_mask
    mark, label = ((0, mask) if mask else None for mask in masks.values())
    return [*records, *_tracking(replace(action, mark=mark, label=label), CtFlag.MOVED)]


_OF_CONNECTIONS = ("ct_mark", "ct_label")


def _tracking(action: Conntrack, flags: CtFlag) -> list[Record]:
    flags |= CtFlag.COMMIT if action.commit else CtFlag(0)
    data: list[Record] = []
    if action.force:
        flags |= CtFlag.FORCE
    if action.table is not None:
        if not 0 <= action.table < abi.TABLES:
            raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_ARGUMENT, f"ct table {action.table}")
        flags |= CtFlag.RECIRC
    if action.zone_field is not None:
        flags |= CtFlag.ZONE_FIELD
        data.append(_zone_field(*action.zone_field))
    if action.label is not None:
        flags |= CtFlag.LABEL
        value, mask = action.label
        data += [_data(value >> 64, mask >> 64), _data(value & WORD_MASK, mask & WORD_MASK)]
    if action.nat is not None:
        nat_flags, records = _nat(action.nat)
        flags |= nat_flags
        data += records
    value, mask = action.mark or (0, 0)
    b = action.zone | (action.table or 0) << 16 | len(data) << 24
    return [Record(Op.CT, a=flags, b=b, value=value & mask, mask=mask), *data]


def _data(value: int, mask: int) -> Record:
    return Record(Op.DATA, value=value & mask, mask=mask)


def _zone_field(name: str, offset: int, bits: int) -> Record:
    word, shift, length = pieces(_field(name), offset, bits)[0]
    if length < bits or bits > 16:
        raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_ARGUMENT, f"{bits} bits of {name} are no zone")
    return Record(Op.DATA, value=word | shift << 8, mask=(1 << bits) - 1)


def _nat(nat: Nat) -> tuple[CtFlag, list[Record]]:
    """What a translation may choose: (first, last) address, high halves then low ones; (first, last) port."""
    flags = CtFlag.NAT
    if nat.source is None:
        return flags, []
    flags |= CtFlag.SNAT if nat.source else CtFlag.DNAT
    first, last = nat.addresses or (0, 0)
    if first >> 64 != last >> 64:
        why = "the addresses of a translation must share their first 64 bits"
        raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_ARGUMENT, why)
    if first:
        flags |= CtFlag.NAT_ADDRESS
    low_port, high_port = nat.ports or (0, 0)
    if nat.ports is not None:
        flags |= CtFlag.NAT_PORT
    return flags, [
        Record(Op.DATA, value=first >> 64, mask=last >> 64),
        Record(Op.DATA, value=first & WORD_MASK, mask=last & WORD_MASK),
        Record(Op.DATA, value=low_port, mask=high_port),
    ]


# -- action sets ----------------------------------------------------------------------------------

_ORDER: tuple[type[Action], ...] = (
    CopyTtlIn,
    PopVlan,
    PopMpls,
    PushMpls,
    PushVlan,
    CopyTtlOut,
    DecIpTtl,
    DecMplsTtl,
)
"""What an action set does first (section 5.10); then fields are set, then the packet leaves it."""

_FIELD_SLOTS = {
    name: len(_ORDER) + n
    for n, name in enumerate(
        sorted((f for f in FIELDS if f in WRITABLE), key=lambda name: not FIELDS[name].reshapes)
    )
}
"""First those that make other fields of what follows."""
assert max(_FIELD_SLOTS.values()) < abi.SLOT_GROUP, "an action set has too few slots"

_LAST: dict[type[Action], int] = {
    ToGroup: abi.SLOT_GROUP,
    Output: abi.SLOT_OUTPUT,
    OutputField: abi.SLOT_OUTPUT,
    Resubmit: abi.SLOT_OUTPUT + 1,
    Conntrack: abi.SLOT_OUTPUT + 2,
}
"""The last two only in buckets, which are not carried out from slots."""


def set_slot(action: Action) -> int:
    """Where an action stands in an action set; one that stands in the same place replaces it."""
    match action:
        case SetField(field, _, _):
            return _FIELD_SLOTS[field]
        case Move():
            return _FIELD_SLOTS[action.target]
        case SetIpTtl():
            return _FIELD_SLOTS["nw_ttl"]
        case SetMplsTtl():
            return _FIELD_SLOTS["mpls_ttl"]
    if type(action) in _LAST:
        return _LAST[type(action)]
    if type(action) in _ORDER:
        return _ORDER.index(type(action))
    why = f"{type(action).__name__} has no place in an action set"
    raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_TYPE, why)
