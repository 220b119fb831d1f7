"""Flows to words and records; what the dataplane cannot do is refused with the specified error."""

from __future__ import annotations

import pytest

from vnet.base.drop import DropReason
from vnet.openflow import cookie
from vnet.openflow.fields import FIELDS
from vnet.openflow.flow import (
    Action,
    Conntrack,
    Flow,
    Instructions,
    Output,
    OutputField,
    PopVlan,
    Port,
    SetField,
    match,
)
from vnet.openflow.message import BadAction, BadInstruction, ErrorType, FlowModFailed
from vnet.switch.abi import NO_TABLE, Op, Word
from vnet.switch.datapath import Refused
from vnet.switch.lower import PLACES, PortList, Record, lower, lower_match


def with_actions(*actions: Action, goto: int | None = None) -> Flow:
    return Flow(0, 1, instructions=Instructions(actions, goto=goto))


def test_every_field_has_a_place_that_no_other_field_of_one_packet_shares() -> None:
    assert set(PLACES) <= set(FIELDS)
    for packet in (
        ("in_port", "eth_dst", "eth_src", "eth_type", "vlan_vid", "vlan_pcp", "arp_op", "arp_spa", "arp_tpa"),
        ("ip_proto", "ip_dscp", "ip_ecn", "ip_frag", "ipv4_src", "ipv4_dst", "tcp_src", "tcp_dst", "in_port"),
        (
            "ipv6_src",
            "ipv6_dst",
            "icmpv6_type",
            "icmpv6_code",
            "ipv6_nd_target",
            "ipv6_nd_sll",
            "ipv6_nd_tll",
        ),
        ("metadata", "ct_state", "ct_mark", "ct_zone", *(f"reg{n}" for n in range(8))),
    ):
        taken: set[tuple[int, int]] = set()
        for name in packet:
            words, place = FIELDS[name].bits, PLACES[name]
            bits = {(place.word + (place.shift + n) // 64, (place.shift + n) % 64) for n in range(words)}
            assert not taken & bits, name
            taken |= bits


def test_ipv6_address_spans_two_words_high_first() -> None:
    mask, words = lower_match(match(ipv6_src=(0xFD00 << 112 | 5, (1 << 128) - 1)))
    assert mask == ((Word.IP_SRC, (1 << 64) - 1), (Word.IP_SRC + 1, (1 << 64) - 1))
    assert words == (0xFD00 << 48, 5)


def test_half_masked_ipv6_address_needs_one_word() -> None:
    mask, _ = lower_match(match(ipv6_src=(0xFD00 << 112, 0xFFFF << 112)))
    assert mask == ((Word.IP_SRC, 0xFFFF << 48),)


def test_port_matches_only_packets_that_have_ports() -> None:
    mask, words = lower_match(match(eth_type=0x800, ip_proto=17, udp_dst=0))
    assert dict(mask)[Word.PORT] == 0xFF << 24 | 1
    assert dict(zip((word for word, _ in mask), words, strict=True))[Word.PORT] == 17 << 24 | 1


def test_absent_link_layer_address_is_matched_as_zero() -> None:
    """Open vSwitch's meaning, on which the source guard relies: nothing but the word is compared."""
    mask, words = lower_match(match(ipv6_nd_sll=0))
    assert (mask, words) == (((Word.SHA, (1 << 48) - 1),), (0,))


def test_output_field_takes_no_more_than_the_field() -> None:
    assert lower(with_actions(OutputField("vlan_pcp"))).actions == (
        Record(Op.OUTPUT_FIELD, a=Word.DST, b=13, mask=7),
    )


def test_outputs_in_a_row_become_one_list() -> None:
    form = lower(with_actions(Output(1), Output(2), Output(3), PopVlan(), Output(4)))
    assert form.actions == (PortList((1, 2, 3)), Record(Op.POP_VLAN), Record(Op.OUTPUT, b=4))


def test_flow_without_output_drops_for_its_cookies_reason() -> None:
    assert lower(Flow(0, 1, cookie=cookie.make("x", DropReason.SPOOF_IP))).drop_reason is DropReason.SPOOF_IP
    assert lower(Flow(0, 1, cookie=7)).drop_reason is DropReason.RULE
    assert lower(Flow(0, 1)).goto == NO_TABLE


@pytest.mark.parametrize(
    ("flow", "error", "code"),
    [
        (with_actions(Output(0)), ErrorType.BAD_ACTION, BadAction.BAD_OUT_PORT),
        (with_actions(Output(5000)), ErrorType.BAD_ACTION, BadAction.BAD_OUT_PORT),
        (with_actions(OutputField("nonsense")), ErrorType.BAD_ACTION, BadAction.BAD_SET_TYPE),
        (with_actions(OutputField("ipv6_src")), ErrorType.BAD_ACTION, BadAction.BAD_SET_TYPE),
        (with_actions(*[PopVlan()] * 65), ErrorType.BAD_ACTION, BadAction.TOO_MANY),
        (Flow(64, 1), ErrorType.FLOW_MOD_FAILED, FlowModFailed.BAD_TABLE_ID),
        (
            Flow(3, 1, instructions=Instructions(goto=3)),
            ErrorType.BAD_INSTRUCTION,
            BadInstruction.BAD_TABLE_ID,
        ),
        (with_actions(Output(Port.LOCAL)), ErrorType.BAD_ACTION, BadAction.BAD_OUT_PORT),
        (with_actions(SetField("ct_state", 1)), ErrorType.BAD_ACTION, BadAction.BAD_SET_TYPE),
        (with_actions(Conntrack(table=64)), ErrorType.BAD_ACTION, BadAction.BAD_ARGUMENT),
        (
            Flow(0, 1, instructions=Instructions(write=(Conntrack(),))),
            ErrorType.BAD_ACTION,
            BadAction.BAD_TYPE,
        ),
    ],
)
def test_what_cannot_be_carried_out_is_refused(flow: Flow, error: ErrorType, code: int) -> None:
    with pytest.raises(Refused) as refused:
        lower(flow)
    assert (refused.value.error_type, refused.value.code) == (error, code)
