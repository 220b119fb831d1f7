"""The slow switch: each rule of OpenFlow that it stands for, one by one."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

from vnet.base.drop import DropReason
from vnet.openflow import cookie
from vnet.openflow.conntrack import Tracker
from vnet.openflow.fields import CtState
from vnet.openflow.flow import (
    Action,
    Conntrack,
    Flow,
    Instructions,
    Match,
    Move,
    Output,
    OutputField,
    PopVlan,
    Port,
    PushVlan,
    SetField,
    match,
)
from vnet.openflow.table import MAX_LOOKUPS, Outcome, PortState, SlowSwitch, find

PORTS = {1: PortState(), 2: PortState(), 3: PortState(), 4: PortState(flood=False), 5: PortState(up=False)}
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
IP4 = IP(src="10.0.0.1", dst="10.0.0.2")
PLAIN = bytes(ETHER / IP4 / UDP(sport=5, dport=53))
TAGGED = bytes(ETHER / Dot1Q(vlan=10, prio=3) / IP4 / UDP(sport=5, dport=53))
REPLY = bytes(
    Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01")
    / IP(src="10.0.0.2", dst="10.0.0.1")
    / UDP(sport=53, dport=5)
)


def do(*actions: Action, goto: int | None = None, table: int = 0, priority: int = 1, **wanted: int) -> Flow:
    return Flow(table, priority, match(**wanted), Instructions(apply=actions, goto=goto))


def run(*flows: Flow, frame: bytes = PLAIN, in_port: int = 1) -> Outcome:
    return SlowSwitch(flows, PORTS).receive(in_port, frame, 0.0)


def ports(outcome: Outcome) -> list[int]:
    return [port for port, _ in outcome.outputs]


# -- choosing -------------------------------------------------------------------------------------


def test_the_highest_priority_that_matches_decides() -> None:
    flows = (
        do(Output(2), priority=5, eth_type=0x800),
        do(Output(3), priority=9, eth_type=0x806),
        do(Output(4), priority=1),
    )
    assert ports(run(*flows)) == [2]


def test_equal_priorities_are_decided_the_same_in_any_order_and_told() -> None:
    one, other = do(Output(2), eth_type=0x800), do(Output(3), in_port=1)
    for flows in ((one, other), (other, one)):
        outcome = run(*flows)
        assert ports(outcome) == [2]
        assert outcome.ambiguous
        assert outcome.trail[0].rivals == (other,)
    assert not run(one).ambiguous


def test_a_field_the_packet_has_not_is_not_matched_even_by_zero() -> None:
    fields = {"eth_type": 0x806}
    assert find([do(tcp_dst=0)], fields) == (None, ())
    assert find([do()], fields)[0] is not None


def test_masks_select_the_bits_that_count() -> None:
    wanted = Flow(
        0,
        1,
        match(ipv4_src=(0x0A000000, 0xFF000000), udp_dst=(0x30, 0xFFF0)),
        Instructions(apply=(Output(2),)),
    )
    assert ports(run(wanted)) == [2]
    assert run(wanted, frame=bytes(ETHER / IP4 / UDP(dport=64))).drop is DropReason.TABLE_MISS


# -- losing ---------------------------------------------------------------------------------------


def test_no_flow_is_a_table_miss() -> None:
    outcome = run(do(goto=1))
    assert outcome.drop is DropReason.TABLE_MISS
    assert [(step.table, step.flow is None) for step in outcome.trail] == [(0, False), (1, True)]


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (cookie.make("x", DropReason.POLICY), DropReason.POLICY),
        (cookie.make("x"), DropReason.RULE),
        (0x1234, DropReason.RULE),
    ],
)
def test_a_flow_without_output_drops_with_the_reason_of_its_cookie(made: int, reason: DropReason) -> None:
    assert run(Flow(0, 1, Match(), cookie=made)).drop is reason


def test_a_malformed_packet_is_dropped_before_any_table() -> None:
    outcome = run(do(Output(2)), frame=PLAIN[:20])
    assert (outcome.drop, outcome.trail) == (DropReason.MALFORMED, ())
    assert outcome.detail == "IPv4 header truncated: 6 of 20 bytes"


@pytest.mark.parametrize("in_port", [5, 77])
def test_a_port_that_is_down_or_unknown_is_closed(in_port: int) -> None:
    assert run(do(Output(2)), in_port=in_port).drop is DropReason.PORT_CLOSED


@pytest.mark.parametrize("port", [5, 77])
def test_output_to_a_port_that_is_down_or_unknown_is_lost(port: int) -> None:
    assert run(do(Output(port))).drop is DropReason.NO_PORT
    assert ports(run(do(Output(port), Output(2)))) == [2]


def test_going_in_circles_is_a_loop() -> None:
    outcome = run(do(Conntrack(table=0)))
    assert (outcome.drop, len(outcome.trail)) == (DropReason.LOOP, MAX_LOOKUPS)


# -- sending --------------------------------------------------------------------------------------


def test_output_to_the_ingress_port_needs_in_port() -> None:
    assert run(do(Output(1))).drop is DropReason.SAME_PORT
    assert ports(run(do(Output(Port.IN_PORT)))) == [1]
    assert ports(run(do(Output(1), Output(2)))) == [2]


def test_flood_and_all_leave_out_the_ingress_port_and_ports_that_are_down() -> None:
    assert ports(run(do(Output(Port.FLOOD)))) == [2, 3]
    assert ports(run(do(Output(Port.ALL)))) == [2, 3, 4]


def test_a_packet_may_be_output_several_times_each_as_it_is_then() -> None:
    outcome = run(do(Output(2), PushVlan(), SetField("vlan_vid", 0x100A), Output(3)))
    assert outcome.outputs == ((2, PLAIN), (3, bytes(ETHER / Dot1Q(vlan=10) / IP4 / UDP(sport=5, dport=53))))


def test_the_controller_gets_the_packet_cut_to_max_len() -> None:
    outcome = run(do(Output(Port.CONTROLLER, 20), priority=0))
    (sent,) = outcome.to_controller
    assert (sent.frame, sent.total_len, sent.miss, sent.fields["in_port"]) == (
        PLAIN[:20],
        len(PLAIN),
        True,
        1,
    )
    assert outcome.drop is None
    assert not run(do(Output(Port.CONTROLLER))).to_controller[0].miss


def test_output_to_the_port_a_register_holds() -> None:
    assert ports(run(do(SetField("reg2", 3), goto=1), do(OutputField("reg2"), table=1))) == [3]


# -- changing -------------------------------------------------------------------------------------


def test_tags_are_popped_and_rewritten() -> None:
    assert run(do(PopVlan(), Output(2)), frame=TAGGED).outputs == ((2, PLAIN),)
    rewritten = bytes(ETHER / Dot1Q(vlan=20, prio=7) / IP4 / UDP(sport=5, dport=53))
    change = do(SetField("vlan_vid", 0x1014), SetField("vlan_pcp", 7), Output(2))
    assert run(change, frame=TAGGED).outputs == ((2, rewritten),)


def test_a_pushed_tag_is_seen_by_the_next_table() -> None:
    push = do(PushVlan(), SetField("vlan_vid", 0x100A), goto=1, vlan_vid=0)
    assert ports(run(push, do(Output(2), table=1, vlan_vid=0x100A))) == [2]


def test_macs_are_rewritten() -> None:
    (sent,) = run(do(SetField("eth_dst", 0x02000000FFFF), Output(2))).outputs
    assert sent[1][:6].hex() == "02000000ffff"


def test_registers_and_metadata_begin_at_zero_and_are_written_under_masks() -> None:
    first = Flow(
        0,
        1,
        match(reg0=0),
        Instructions(apply=(SetField("reg0", 0xAB, 0xF0),), metadata=(0xFF, 0x0F), goto=1),
    )
    assert ports(run(first, do(Output(2), table=1, reg0=0xA0, metadata=0x0F))) == [2]


def test_move_copies_bits_between_any_two_offsets() -> None:
    moves = do(
        SetField("reg0", 0x12345678), Move("reg0", "reg1", 8, 8, 4), Move("udp_dst", "reg3", 16), goto=1
    )
    assert ports(run(moves, do(Output(2), table=1, reg1=0x560, reg3=53))) == [2]


def test_moving_a_field_the_packet_has_not_moves_zero() -> None:
    flows = (do(SetField("reg3", 9), Move("tcp_dst", "reg3", 16), goto=1), do(Output(2), table=1, reg3=0))
    assert ports(run(*flows)) == [2]


@pytest.mark.parametrize(
    ("flow", "why"),
    [
        (do(goto=0), "goto 0 does not lead forward"),
        (do(SetField("ipv4_src", 1)), "cannot write ipv4_src"),
        (do(Move("reg0", "tcp_dst", 16)), "cannot write tcp_dst"),
        (Flow(0, 1, Match(), Instructions(write=(Conntrack(),))), "Conntrack has no place in an action set"),
    ],
)
def test_what_cannot_be_carried_out_is_refused(flow: Flow, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        SlowSwitch([flow], PORTS)


# -- action sets ----------------------------------------------------------------------------------


def written(*actions: Action, goto: int | None = None, table: int = 0, clear: bool = False) -> Flow:
    return Flow(table, 1, Match(), Instructions(write=actions, goto=goto, clear=clear))


def test_the_action_set_is_carried_out_at_the_end_in_its_own_order() -> None:
    flows = (written(Output(2), SetField("vlan_vid", 0x1014), PushVlan(), goto=1), do(table=1))
    assert run(*flows).outputs == ((2, bytes(ETHER / Dot1Q(vlan=20) / IP4 / UDP(sport=5, dport=53))),)


def test_a_later_write_replaces_and_clear_empties() -> None:
    assert ports(run(written(Output(2), goto=1), written(Output(3), table=1))) == [3]
    assert run(written(Output(2), goto=1), written(table=1, clear=True)).drop is DropReason.RULE


def test_a_miss_drops_the_action_set() -> None:
    assert run(written(Output(2), goto=1)).drop is DropReason.TABLE_MISS


# -- connections ----------------------------------------------------------------------------------


def test_ct_resumes_in_its_table_with_state_and_zone() -> None:
    tracked = do(Output(2), table=4, ct_state=CtState.TRK | CtState.NEW, ct_zone=7)
    assert ports(run(do(Conntrack(zone=7, table=4)), tracked)) == [2]


def test_before_and_after_ct_the_rest_of_the_pipeline_sees_no_state() -> None:
    flows = (do(Conntrack(zone=7), goto=1, ct_state=0), do(Output(2), table=1, ct_state=0, ct_zone=0))
    assert ports(run(*flows)) == [2]


def test_ct_forks_and_the_fork_keeps_registers() -> None:
    flows = (
        do(SetField("reg0", 1), Conntrack(table=4), SetField("reg0", 2), Output(2), goto=1),
        do(Output(3), table=1, reg0=2),
        do(Output(4), table=4, reg0=1),
    )
    assert ports(run(*flows)) == [2, 3, 4]


def stateful(*commit: Action) -> SlowSwitch:
    flows = (
        do(Conntrack(zone=7, table=1)),
        Flow(
            1,
            9,
            match(ct_state=(CtState.NEW, CtState.NEW), in_port=1),
            Instructions(apply=(*commit, Output(2))),
        ),
        Flow(1, 8, match(ct_state=(CtState.EST, CtState.EST), ct_mark=5), Instructions(apply=(Output(3),))),
        Flow(1, 7, match(ct_state=(CtState.EST, CtState.EST)), Instructions(apply=(Output(4),))),
        Flow(1, 1, Match(), cookie=cookie.make("deny", DropReason.POLICY)),
    )
    return SlowSwitch(flows, PORTS)


def test_only_a_committed_connection_has_replies() -> None:
    switch = stateful()
    assert ports(switch.receive(1, PLAIN, 0.0)) == [2]
    assert switch.receive(2, REPLY, 0.0).drop is DropReason.POLICY
    switch = stateful(Conntrack(zone=7, commit=True))
    assert ports(switch.receive(1, PLAIN, 0.0)) == [2]
    assert ports(switch.receive(2, REPLY, 0.0)) == [4]


def test_the_mark_of_a_connection_is_matched() -> None:
    switch = stateful(Conntrack(zone=7, commit=True, mark=(5, 0xFF)))
    switch.receive(1, PLAIN, 0.0)
    assert ports(switch.receive(2, REPLY, 0.0)) == [3]


def test_a_connection_times_out() -> None:
    switch = stateful(Conntrack(zone=7, commit=True))
    switch.receive(1, PLAIN, 0.0)
    assert switch.receive(2, REPLY, 31.0).drop is DropReason.POLICY


def test_commit_and_resume_at_once_sees_the_state_before_and_the_mark_after() -> None:
    flows = (
        do(Conntrack(zone=7, table=1, commit=True, mark=(5, 0xFF))),
        do(Output(2), table=1, ct_state=CtState.TRK | CtState.NEW, ct_mark=5),
    )
    assert ports(run(*flows)) == [2]


def test_a_full_table_and_a_later_fragment_have_their_reasons() -> None:
    commit = do(Conntrack(zone=7, commit=True), Output(2))
    full = SlowSwitch([commit], PORTS, Tracker(capacity=0))
    assert full.receive(1, PLAIN, 0.0).drop is DropReason.CT_FULL
    fragment = bytes(ETHER / IP(proto=6, frag=3) / Raw(bytes(24)))
    assert run(commit, frame=fragment).drop is DropReason.FRAGMENT


def test_connections_outlive_a_change_of_flows() -> None:
    before = stateful(Conntrack(zone=7, commit=True))
    before.receive(1, PLAIN, 0.0)
    after = SlowSwitch(before.flows, PORTS, before.tracker)
    assert ports(after.receive(2, REPLY, 1.0)) == [4]


def test_tcp_that_starts_no_connection_is_invalid() -> None:
    invalid = do(Output(2), table=1, ct_state=CtState.TRK | CtState.INV)
    frame = bytes(ETHER / IP4 / TCP(flags="A"))
    assert ports(run(do(Conntrack(table=1)), invalid, frame=frame)) == [2]
