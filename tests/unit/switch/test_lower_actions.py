"""Each action as records of the dataplane, its place in an action set, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    Flow,
    IcmpError,
    Instructions,
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
from vnet.openflow.group import Bucket, Group, GroupType
from vnet.openflow.message import BadAction, ErrorType, GroupModFailed
from vnet.switch import abi
from vnet.switch.abi import CtFlag, Need, Op, Word
from vnet.switch.datapath import GroupKey, Refused
from vnet.switch.lower import lower, lower_group, lower_packet_out
from vnet.switch.lower_actions import (
    GroupRef,
    Lowerable,
    MeterRef,
    PortList,
    Record,
    lower_action,
    set_slot,
)
from vnet.switch.places import PLACES, WRITABLE, pieces, spread

ALL = (1 << 64) - 1
TABLE = 3


@pytest.mark.parametrize(
    ("action", "record"),
    [
        (Output(5), Record(Op.OUTPUT, b=5)),
        (Output(abi.PORTS - 1), Record(Op.OUTPUT, b=abi.PORTS - 1)),
        (Output(Port.IN_PORT), Record(Op.IN_PORT)),
        (Output(Port.CONTROLLER, 64), Record(Op.CONTROLLER, b=0xFFFF)),
        (Output(Port.CONTROLLER, 0), Record(Op.CONTROLLER, b=0xFFFF)),
        (Output(Port.FLOOD), Record(Op.FLOOD)),
        (Output(Port.ALL), Record(Op.FLOOD)),
        (Output(Port.NORMAL), Record(Op.NORMAL)),
        (Output(Port.TABLE), Record(Op.RESUBMIT, a=0, b=abi.NO_PORT)),
        (OutputField("reg3"), Record(Op.OUTPUT_FIELD, a=Word.REGS + 1, b=32, mask=0xFFFFFFFF)),
        (OutputField("reg3", 4, 4), Record(Op.OUTPUT_FIELD, a=Word.REGS + 1, b=36, mask=0xF)),
        (PushVlan(0x88A8), Record(Op.PUSH_VLAN, a=0x88A8)),
        (PopVlan(), Record(Op.POP_VLAN)),
        (PushMpls(0x8848), Record(Op.PUSH_MPLS, a=0x8848)),
        (PopMpls(0x0800), Record(Op.POP_MPLS, a=0x0800)),
        (SetMplsTtl(9), Record(Op.SET, a=Word.MPLS, b=Need.MPLS, value=9, mask=0xFF)),
        (DecMplsTtl(), Record(Op.DEC_MPLS_TTL)),
        (SetIpTtl(9), Record(Op.SET, a=Word.MORE, b=Need.IP, value=9 << 56, mask=0xFF << 56)),
        (DecIpTtl(), Record(Op.DEC_TTL)),
        (DecIpTtl(IcmpError(4, 11, 0, 9)), Record(Op.DEC_TTL, a=4, b=11 << 8, mask=9)),
        (Reject(), Record(Op.REJECT)),
        (Reject(IcmpError(6, 1, 3, 7 << 64 | 9)), Record(Op.REJECT, a=6, b=1 << 8 | 3, value=7, mask=9)),
        (Advertise(0x02766E000001), Record(Op.ADVERTISE, value=0x02766E000001)),
        (CopyTtlOut(), Record(Op.COPY_TTL_OUT)),
        (CopyTtlIn(), Record(Op.COPY_TTL_IN)),
        (SetField("vlan_pcp", 5), Record(Op.SET, a=Word.DST, b=Need.VLAN, value=5 << 13, mask=7 << 13)),
        (SetField("reg0", 0x1F, 0xF), Record(Op.SET, a=Word.REGS, value=0xF, mask=0xF)),
        (SetField("tcp_dst", 80), Record(Op.SET, a=Word.L4, b=Need.TCP, value=80 << 32, mask=0xFFFF << 32)),
        (SetField("eth_type", 0x600), Record(Op.SET_TYPE, a=0x600)),
        (SetField("ip_proto", 17), Record(Op.SET_PROTO, a=17)),
        (SetField("mpls_bos", 0), Record(Op.SET, a=Word.MPLS, b=Need.MPLS, value=0, mask=1 << 8)),
        (ToGroup(7), GroupRef(7)),
        (Resubmit(5, 7), Record(Op.RESUBMIT, a=7, b=5)),
        (Resubmit(None, 7), Record(Op.RESUBMIT, a=7, b=abi.NO_PORT)),
        (Resubmit(Port.IN_PORT), Record(Op.RESUBMIT, a=TABLE, b=abi.NO_PORT)),
        (Conntrack(7), Record(Op.CT, a=0, b=7)),
        (ConntrackClear(), Record(Op.CT_CLEAR)),
    ],
)
def test_an_action_is_one_record(action: Action, record: Lowerable) -> None:
    assert lower_action(action, TABLE) == [record]


def refusal(action: Action) -> int:
    with pytest.raises(Refused) as refused:
        lower_action(action, TABLE)
    assert refused.value.error_type == ErrorType.BAD_ACTION
    return refused.value.code


@pytest.mark.parametrize(
    ("action", "code"),
    [
        *((Output(port), BadAction.BAD_OUT_PORT) for port in (0, abi.PORTS, Port.LOCAL, Port.ANY)),
        (OutputField("ct_label"), BadAction.BAD_SET_TYPE),
        (OutputField("nonsense"), BadAction.BAD_SET_TYPE),
        *((SetField(name, 1), BadAction.BAD_SET_TYPE) for name in sorted(PLACES.keys() - WRITABLE)),
        (SetField("nonsense", 1), BadAction.BAD_SET_TYPE),
        (Move("nonsense", "reg0", 4), BadAction.BAD_SET_TYPE),
        (Move("reg0", "in_port", 4), BadAction.BAD_SET_TYPE),
        (Move("reg0", "eth_type", 16), BadAction.BAD_SET_ARGUMENT),
        (Move("reg0", "ip_proto", 8), BadAction.BAD_SET_ARGUMENT),
        (SetField("ip_proto", 1, 1), BadAction.BAD_SET_ARGUMENT),
        *((SetField("eth_type", value), BadAction.BAD_SET_ARGUMENT) for value in (0, 0x5FF, 0x8100, 0x88A8)),
        (Resubmit(None, abi.TABLES), BadAction.BAD_ARGUMENT),
        (Conntrack(table=abi.TABLES), BadAction.BAD_ARGUMENT),
        (Conntrack(zone_field=("reg0", 0, 17)), BadAction.BAD_ARGUMENT),
        (Conntrack(zone_field=("ct_label", 60, 8)), BadAction.BAD_ARGUMENT),
        (Conntrack(zone_field=("nonsense", 0, 8)), BadAction.BAD_SET_TYPE),
        (Conntrack(commit=True, nat=Nat(True, 6, (0, 1 << 64))), BadAction.BAD_ARGUMENT),
    ],
)
def test_what_the_dataplane_cannot_do_is_refused(action: Action, code: BadAction) -> None:
    assert refusal(action) == code


def test_an_address_of_128_bits_is_written_word_by_word() -> None:
    value = 0xFD00 << 112 | 5
    assert lower_action(SetField("ipv6_src", value), TABLE) == [
        Record(Op.SET, a=Word.IP_SRC, b=Need.IPV6, value=0xFD00 << 48, mask=ALL),
        Record(Op.SET, a=Word.IP_SRC + 1, b=Need.IPV6, value=5, mask=ALL),
    ]
    assert lower_action(SetField("ipv6_src", value, 0xFF), TABLE) == [
        Record(Op.SET, a=Word.IP_SRC + 1, b=Need.IPV6, value=5, mask=0xFF)
    ]


# -- moves ----------------------------------------------------------------------------------------


def key_with(name: str, value: int) -> list[int]:
    key = [0] * abi.KEY_WORDS
    for word, part, _ in spread(PLACES[name], value, FIELDS[name].full_mask):
        key[word] |= part
    return key


def held(key: list[int], name: str) -> int:
    place, full = PLACES[name], FIELDS[name].full_mask
    if place.wide:
        return key[place.word] << 64 | key[place.word + 1]
    return key[place.word] >> place.shift & full


CROSSING = ("ipv6_src", "ipv6_nd_target", "ct_label", "eth_dst", "reg1", "metadata", "tunnel_id")
"""No two of them share a word."""


def _offset(last: int) -> st.SearchStrategy[int]:
    """Often one from which a wide field's two words are both met."""
    return st.sampled_from([0, last, min(50, last), min(64, last)]) | st.integers(0, last)


@given(st.data())
def test_a_move_over_words_moves_every_bit_and_no_other(data: st.DataObject) -> None:
    source, target = data.draw(st.permutations(CROSSING).filter(lambda names: names[1] in WRITABLE))[:2]
    room = min(FIELDS[source].bits, FIELDS[target].bits)
    bits = data.draw(st.sampled_from([room, room - 7, room // 2, 1]))
    at, to = (data.draw(_offset(FIELDS[name].bits - bits)) for name in (source, target))
    value, before = (
        FIELDS[name].full_mask // data.draw(st.sampled_from([1, 3, 7])) for name in (source, target)
    )
    key = [a | b for a, b in zip(key_with(source, value), key_with(target, before), strict=True)]
    for record in lower_action(Move(source, target, bits, at, to), TABLE):
        assert isinstance(record, Record)
        _move(key, record)
    mask = (1 << bits) - 1
    assert held(key, target) == before & ~(mask << to) | (value >> at & mask) << to
    assert held(key, source) == value


def _move(key: list[int], record: Record) -> None:
    """As `vnet_move` of `bpf/walk.h`."""
    assert record.op is Op.MOVE
    mask = (1 << (record.b >> 16)) - 1
    value = key[record.a & 0xFF] >> (record.b & 0xFF) & mask
    at = record.b >> 8 & 0xFF
    key[record.a >> 8] = (key[record.a >> 8] & ~(mask << at) | value << at) & ALL


def test_a_move_tells_what_both_fields_need() -> None:
    (record,) = lower_action(Move("nw_ttl", "arp_op", 8), TABLE)
    assert isinstance(record, Record)
    assert record.value == Need.IP | Need.ARP << 8
    assert record.b == 56 | 0 << 8 | 8 << 16


@pytest.mark.parametrize(
    ("offset", "bits", "expected"),
    [
        (0, 64, [(24, 0, 64)]),
        (60, 8, [(24, 60, 4), (23, 0, 4)]),
        (64, 64, [(23, 0, 64)]),
        (0, 128, [(24, 0, 64), (23, 0, 64)]),
    ],
)
def test_pieces_of_a_wide_field_are_told_lowest_first(
    offset: int, bits: int, expected: list[tuple[int, int, int]]
) -> None:
    assert pieces(PLACES["ct_label"], offset, bits) == expected


# -- connection tracking --------------------------------------------------------------------------


def test_operands_follow_ct_in_the_order_zone_label_translation() -> None:
    action = Conntrack(
        table=9,
        commit=True,
        force=True,
        mark=(0x1F, 0xF),
        label=(1 << 64 | 2, 3 << 64 | 2),
        zone_field=("reg9", 4, 12),
        nat=Nat(True, 4, (0x0A000001, 0x0A000009), (1000, 2000)),
    )
    flags = (
        CtFlag.COMMIT | CtFlag.FORCE | CtFlag.RECIRC | CtFlag.ZONE_FIELD | CtFlag.LABEL
        | CtFlag.NAT | CtFlag.SNAT | CtFlag.NAT_ADDRESS | CtFlag.NAT_PORT
    )  # fmt: skip
    assert lower_action(action, TABLE) == [
        Record(Op.CT, a=flags, b=9 << 16 | 6 << 24, value=0xF, mask=0xF),
        Record(Op.DATA, value=Word.REGS + 4 | 36 << 8, mask=0xFFF),
        Record(Op.DATA, value=1, mask=3),
        Record(Op.DATA, value=2, mask=2),
        Record(Op.DATA, value=0, mask=0),
        Record(Op.DATA, value=0x0A000001, mask=0x0A000009),
        Record(Op.DATA, value=1000, mask=2000),
    ]


@pytest.mark.parametrize(
    ("nat", "flags", "operands"),
    [
        (Nat(), CtFlag.NAT, []),
        (Nat(False), CtFlag.NAT | CtFlag.DNAT, [(0, 0), (0, 0), (0, 0)]),
        (Nat(True, ports=(5, 9)), CtFlag.NAT | CtFlag.SNAT | CtFlag.NAT_PORT, [(0, 0), (0, 0), (5, 9)]),
        (
            Nat(False, 6, (0xFD00 << 112 | 1, 0xFD00 << 112 | 7)),
            CtFlag.NAT | CtFlag.DNAT | CtFlag.NAT_ADDRESS,
            [(0xFD00 << 48, 0xFD00 << 48), (1, 7), (0, 0)],
        ),
    ],
)
def test_a_translation_tells_what_it_may_choose(
    nat: Nat, flags: CtFlag, operands: list[tuple[int, int]]
) -> None:
    head, *data = lower_action(Conntrack(5, commit=True, nat=nat), TABLE)
    assert head == Record(Op.CT, a=flags | CtFlag.COMMIT, b=5 | len(operands) << 24)
    assert data == [Record(Op.DATA, value=value, mask=mask) for value, mask in operands]


def test_what_is_copied_to_a_connection_stands_in_the_key_before_ct() -> None:
    moves = Move("reg1", "ct_mark", 8, 4, 8), Move("eth_src", "ct_label", 32, 0, 48)
    action = Conntrack(commit=True, mark=(0x1, 0xF), label=(5, 7), moves=moves)
    label = PLACES["ct_label"].word
    assert lower_action(action, TABLE) == [
        Record(Op.SET, a=Word.CT, value=1 << 32, mask=0xF << 32),
        Record(Op.SET, a=label + 1, value=5, mask=7),
        Record(Op.MOVE, a=Word.REGS | Word.CT << 8, b=36 | 40 << 8 | 8 << 16),
        Record(Op.MOVE, a=Word.SRC | label + 1 << 8, b=16 | 48 << 8 | 16 << 16),
        Record(Op.MOVE, a=Word.SRC | label << 8, b=32 | 0 << 8 | 16 << 16),
        Record(Op.CT, a=CtFlag.COMMIT | CtFlag.LABEL | CtFlag.MOVED, b=2 << 24, mask=0xFF0F),
        Record(Op.DATA, mask=0xFFFF),
        Record(Op.DATA, mask=0xFFFF << 48 | 7),
    ]


def test_the_zone_cannot_be_read_from_where_a_copy_goes() -> None:
    action = Conntrack(commit=True, zone_field=("ct_label", 0, 16), moves=(Move("reg0", "ct_mark", 8),))
    with pytest.raises(Refused):
        lower_action(action, TABLE)


# -- instructions and action sets -----------------------------------------------------------------


def test_instructions_are_carried_out_meter_first_metadata_last() -> None:
    given = Instructions((PopVlan(),), True, (Output(4),), (0x5F, 0xF), goto=7, meter=2)
    form = lower(Flow(TABLE, 1, instructions=given))
    assert form.actions == (
        MeterRef(2),
        Record(Op.POP_VLAN),
        Record(Op.CLEAR),
        Record(Op.WRITE, a=abi.SLOT_OUTPUT, b=1),
        Record(Op.OUTPUT, b=4),
        Record(Op.SET, a=Word.METADATA, value=0xF, mask=0xF),
    )
    assert (form.goto, form.miss) == (7, False)
    assert lower(Flow(TABLE, 0)).miss


def test_a_written_action_of_several_records_says_how_many() -> None:
    form = lower(Flow(0, 1, instructions=Instructions(write=(SetField("ipv6_dst", 1), Output(1)))))
    first, *_, last, output = form.actions
    assert first == Record(Op.WRITE, a=set_slot(SetField("ipv6_dst", 1)), b=2)
    assert (last, output) == (Record(Op.WRITE, a=abi.SLOT_OUTPUT, b=1), Record(Op.OUTPUT, b=1))


ORDER = (
    CopyTtlIn(), PopVlan(), PopMpls(0x800), PushMpls(), PushVlan(), CopyTtlOut(), DecIpTtl(), DecMplsTtl(),
    SetField("eth_type", 0x800), SetField("ip_proto", 6), SetField("eth_dst", 1), ToGroup(1), Output(1),
)  # fmt: skip
"""OpenFlow 1.3.5, section 5.10."""


def test_an_action_set_is_carried_out_in_the_order_of_the_specification() -> None:
    assert sorted(ORDER, key=set_slot) == list(ORDER)


def test_every_field_has_a_slot_of_its_own_between_headers_and_outputs() -> None:
    slots = [set_slot(SetField(name, 1)) for name in sorted(WRITABLE)]
    assert len(set(slots)) == len(slots)
    assert set_slot(DecMplsTtl()) < min(slots)
    assert max(slots) < abi.SLOT_GROUP < abi.SLOT_OUTPUT < abi.SET


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (SetField("nw_ttl", 1), SetIpTtl(2)),
        (SetField("mpls_ttl", 1), SetMplsTtl(2)),
        (SetField("reg0", 1, 1), Move("reg1", "reg0", 4)),
        (Output(1), OutputField("reg0")),
        (PushVlan(0x8100), PushVlan(0x88A8)),
    ],
)
def test_actions_that_replace_each_other_in_a_set_have_one_slot(one: Action, other: Action) -> None:
    assert set_slot(one) == set_slot(other)


@pytest.mark.parametrize("action", [Conntrack(), Resubmit(None, 5), ConntrackClear()])
def test_what_has_no_place_in_an_action_set_is_refused(action: Action) -> None:
    with pytest.raises(Refused) as refused:
        lower(Flow(0, 1, instructions=Instructions(write=(action,))))
    assert (refused.value.error_type, refused.value.code) == (ErrorType.BAD_ACTION, BadAction.BAD_TYPE)


def test_a_controllers_packet_has_no_port_lists_and_begins_at_the_first_table() -> None:
    actions = (Output(1), Output(2), Output(Port.TABLE), Resubmit(4))
    assert lower_packet_out(actions) == (
        Record(Op.OUTPUT, b=1),
        Record(Op.OUTPUT, b=2),
        Record(Op.RESUBMIT, a=0, b=abi.NO_PORT),
        Record(Op.RESUBMIT, a=0, b=4),
    )
    with pytest.raises(Refused):
        lower_packet_out([Output(1)] * (abi.RULE_ACTIONS + 1))


# -- groups ---------------------------------------------------------------------------------------


def bucket(*actions: Action) -> tuple[Lowerable, ...]:
    (records,) = lower_group(Group(1, GroupType.ALL, (Bucket(actions),))).buckets
    return records


def test_a_bucket_is_an_action_set_whatever_its_order() -> None:
    assert bucket(Output(1), SetField("eth_dst", 1), PopVlan()) == (
        Record(Op.POP_VLAN),
        *lower_action(SetField("eth_dst", 1), 0),
        Record(Op.OUTPUT, b=1),
    )


def test_of_each_kind_a_bucket_carries_out_the_last() -> None:
    assert bucket(Output(1), SetField("eth_dst", 1), SetField("eth_dst", 2), Output(2)) == (
        *lower_action(SetField("eth_dst", 2), 0),
        Record(Op.OUTPUT, b=2),
    )


@pytest.mark.parametrize(
    ("actions", "way"),
    [
        ((Output(1), ToGroup(2)), GroupRef(2)),
        ((Resubmit(None, 4), Output(1)), Record(Op.OUTPUT, b=1)),
        ((Output(1), Resubmit(None, 4)), Record(Op.OUTPUT, b=1)),
        ((Conntrack(table=4), Resubmit(None, 4)), Record(Op.RESUBMIT, a=4, b=abi.NO_PORT)),
    ],
)
def test_a_bucket_has_one_way_out(actions: tuple[Action, ...], way: Lowerable) -> None:
    assert bucket(*actions) == (way,)


def test_outputs_to_several_ports_are_a_list_only_outside_of_action_sets() -> None:
    assert lower(Flow(0, 1, instructions=Instructions((Output(1), Output(2))))).actions == (PortList((1, 2)),)
    assert bucket(Output(1), Output(2)) == (Record(Op.OUTPUT, b=2),)


@pytest.mark.parametrize(
    ("group", "code"),
    [
        (Group(4, GroupType.FAST_FAILOVER, (Bucket(watch_group=9),)), GroupModFailed.WATCH_UNSUPPORTED),
        (Group(4, GroupType.ALL, (Bucket(),) * (abi.BUCKETS + 1)), GroupModFailed.OUT_OF_BUCKETS),
    ],
)
def test_groups_that_cannot_be_are_refused_by_their_number(group: Group, code: GroupModFailed) -> None:
    with pytest.raises(Refused) as refused:
        lower_group(group)
    assert (refused.value.error_type, refused.value.code) == (ErrorType.GROUP_MOD_FAILED, code)
    assert refused.value.key == GroupKey(4)
