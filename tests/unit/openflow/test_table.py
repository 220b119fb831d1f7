"""The slow switch: each rule of OpenFlow that it stands for, one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Raw

from vnet.base.drop import DropReason
from vnet.openflow import cookie, packet
from vnet.openflow.conntrack import Tracker
from vnet.openflow.fields import CtState
from vnet.openflow.flow import (
    Action,
    Conntrack,
    ConntrackClear,
    CopyTtlIn,
    CopyTtlOut,
    DecIpTtl,
    DecMplsTtl,
    Flow,
    Instructions,
    Match,
    Move,
    Nat,
    Output,
    OutputField,
    PopMpls,
    PopVlan,
    Port,
    PushMpls,
    PushVlan,
    Resubmit,
    SetField,
    SetIpTtl,
    SetMplsTtl,
    ToGroup,
    match,
)
from vnet.openflow.group import Band, BandType, Bucket, Group, GroupType
from vnet.openflow.message import PacketInReason
from vnet.openflow.table import MAX_LOOKUPS, Chooser, Outcome, PortState, SlowSwitch, find, first

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


def test_the_controller_gets_the_whole_packet_whatever_max_len_is() -> None:
    outcome = run(do(Output(Port.CONTROLLER, 20), priority=0))
    (sent,) = outcome.to_controller
    assert (sent.frame, sent.miss, sent.fields["in_port"]) == (PLAIN, True, 1)
    assert outcome.drop is None
    assert not run(do(Output(Port.CONTROLLER))).to_controller[0].miss


def test_output_to_the_port_a_register_holds() -> None:
    assert ports(run(do(SetField("reg2", 3), goto=1), do(OutputField("reg2"), table=1))) == [3]
    assert ports(run(do(SetField("reg2", 0xA3B), OutputField("reg2", 4, 3)))) == [3]


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
        (do(SetField("ip_frag", 1)), "cannot write ip_frag"),
        (do(SetField("ip_proto", 1, 1)), "cannot write ip_proto"),
        (do(Move("reg0", "ip_proto", 8)), "cannot write ip_proto"),
        (do(SetField("eth_type", 0x8100)), "cannot write eth_type"),
        (do(SetField("eth_type", 0x5FF)), "cannot write eth_type"),
        (do(Move("reg0", "tcp_flags", 12)), "cannot write tcp_flags"),
        (Flow(0, 1, Match(), Instructions(write=(Resubmit(),))), "Resubmit has no place in an action set"),
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
    assert ports(run(*flows)) == [4, 2, 3]


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


# -- rewriting ------------------------------------------------------------------------------------


def test_fields_of_all_layers_are_written_and_moved() -> None:
    change = do(SetField("ipv4_src", 0x0A000000, 0xFFFFFF00), Move("udp_src", "udp_dst", 16), Output(2))
    changed = bytes(ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=5, dport=5))
    assert run(change).outputs == ((2, changed),)


def test_writing_a_field_the_packet_has_not_changes_nothing() -> None:
    assert run(
        do(SetField("tcp_dst", 9), SetField("vlan_vid", 0x1005), SetField("mpls_label", 5), Output(2))
    ).outputs == ((2, PLAIN),)


def test_a_label_hides_what_it_carries_until_it_is_popped() -> None:
    push = do(PushMpls(), SetField("mpls_label", 77), goto=1, eth_type=0x800)
    pop = do(PopMpls(0x800), goto=2, table=1, mpls_label=77)
    assert run(push, pop, do(Output(2), table=2, udp_dst=53)).outputs == ((2, PLAIN),)
    assert run(push, do(Output(2), table=1, udp_dst=53)).drop is DropReason.TABLE_MISS


def test_popping_a_label_off_what_is_no_ip_is_malformed() -> None:
    outcome = run(do(PushMpls(), Output(3), PopMpls(0x86DD), goto=1), do(Output(2), table=1))
    assert (ports(outcome), outcome.drop, outcome.failure) == ([3], None, DropReason.MALFORMED)


def test_the_tunnel_is_a_field_of_the_pipeline_alone() -> None:
    assert ports(
        run(do(SetField("tunnel_id", 7), goto=1, tunnel_id=0), do(Output(2), table=1, tunnel_id=7))
    ) == [2]


# -- TTL ------------------------------------------------------------------------------------------


def aged(ttl: int) -> bytes:
    return bytes(ETHER / IP(src="10.0.0.1", dst="10.0.0.2", ttl=ttl) / UDP(sport=5, dport=53))


def test_a_ttl_is_counted_down_and_set() -> None:
    assert run(do(DecIpTtl(), Output(2)), frame=aged(2)).outputs == ((2, aged(1)),)
    assert run(do(SetIpTtl(200), Output(2)), frame=aged(2)).outputs == ((2, aged(200)),)
    label = do(PushMpls(), SetMplsTtl(9), DecMplsTtl(), goto=1)
    assert ports(run(label, do(Output(2), table=1, mpls_ttl=8), frame=aged(2))) == [2]


def test_ttls_are_copied_between_label_and_ip() -> None:
    copy = do(PushMpls(), SetMplsTtl(9), CopyTtlIn(), PopMpls(0x800), Output(2))
    assert run(copy, frame=aged(2)).outputs == ((2, aged(9)),)
    back = do(PushMpls(), SetMplsTtl(9), CopyTtlOut(), goto=1)
    assert ports(run(back, do(Output(2), table=1, mpls_ttl=2), frame=aged(2))) == [2]


@pytest.mark.parametrize("ttl", [0, 1])
def test_an_expired_ttl_ends_the_packet_and_is_told(ttl: int) -> None:
    flow = Flow(0, 1, Match(), Instructions(apply=(DecIpTtl(), Output(2)), write=(Output(3),)), cookie=7)
    outcome = run(flow, frame=aged(ttl))
    (sent,) = outcome.to_controller
    assert (ports(outcome), sent.reason, sent.cookie, sent.frame) == (
        [],
        PacketInReason.INVALID_TTL,
        7,
        aged(ttl),
    )
    unheard = SlowSwitch([flow], PORTS, tell_ttl=False).receive(1, aged(ttl), 0.0)
    assert (unheard.to_controller, unheard.drop) == ((), DropReason.TTL)


def test_what_has_no_ttl_is_not_counted_down() -> None:
    assert ports(run(do(DecMplsTtl(), DecIpTtl(), Output(2)), frame=bytes(ETHER / ARP()))) == [2]


# -- the order of an action set -------------------------------------------------------------------


def test_an_action_set_pops_pushes_counts_down_and_then_sets() -> None:
    first = written(SetField("vlan_pcp", 7), DecIpTtl(), PushVlan(0x88A8), PopVlan(), Output(2), goto=1)
    frame = bytes(ETHER / Dot1Q(vlan=10) / IP(src="10.0.0.1", dst="10.0.0.2", ttl=9) / UDP(sport=5, dport=53))
    wanted = bytes(
        ETHER / Dot1AD(vlan=0, prio=7) / IP(src="10.0.0.1", dst="10.0.0.2", ttl=8) / UDP(sport=5, dport=53)
    )
    assert run(first, do(table=1), frame=frame).outputs == ((2, wanted),)


def test_a_set_ttl_replaces_a_written_one_and_the_last_of_both_kinds_wins() -> None:
    for writes, ttl in (((SetIpTtl(3), SetField("nw_ttl", 4)), 4), ((SetField("nw_ttl", 4), SetIpTtl(3)), 3)):
        assert run(written(*writes, Output(2)), frame=aged(9)).outputs == ((2, aged(ttl)),)


def test_what_is_written_again_counts_as_written_last() -> None:
    writes = (SetIpTtl(3), SetField("nw_ttl", 4), SetIpTtl(5))
    assert run(written(*writes, Output(2)), frame=aged(9)).outputs == ((2, aged(5)),)


def test_what_says_how_to_read_on_is_set_first_whenever_it_was_written() -> None:
    writes = (
        SetField("tcp_dst", 7),
        SetField("udp_dst", 9),
        SetField("ip_proto", 17),
        SetField("eth_type", 0x800),
    )
    ((_, changed),) = run(written(*writes, Output(2)), frame=bytes(ETHER / IP4 / TCP(dport=80))).outputs
    assert packet.parse(changed).fields["udp_dst"] == 9
    hidden = SetField("ipv4_src", 1), SetField("eth_type", 0x88B5)
    assert run(written(*hidden, Output(2))).outputs == ((2, PLAIN[:12] + b"\x88\xb5" + PLAIN[14:]),)


def test_a_group_in_the_set_takes_the_place_of_output() -> None:
    switch = SlowSwitch([written(Output(2), ToGroup(1))], PORTS, groups=[group(GroupType.ALL, (Output(3),))])
    assert ports(switch.receive(1, PLAIN, 0.0)) == [3]


# -- groups ---------------------------------------------------------------------------------------


def group(kind: GroupType, *buckets: tuple[Action, ...], number: int = 1) -> Group:
    return Group(number, kind, tuple(Bucket(actions, weight=1) for actions in buckets))


def grouped(*groups: Group, frame: bytes = PLAIN, choose: Chooser = first) -> Outcome:
    switch = SlowSwitch([do(ToGroup(1), Output(4))], PORTS, groups=groups, choose=choose)
    return switch.receive(1, frame, 0.0)


def test_each_bucket_of_all_treats_a_copy_of_its_own() -> None:
    both = group(GroupType.ALL, (Output(2), PushVlan(), SetField("vlan_vid", 0x100A)), (Output(3),))
    outcome = grouped(both)
    assert ports(outcome) == [2, 3, 4]
    assert [frame == PLAIN for _, frame in outcome.outputs] == [False, True, True]


def test_a_select_group_takes_what_is_chosen_of_the_live_with_a_weight() -> None:
    offered: list[Sequence[int]] = []

    def last(_group: Group, live: Sequence[int], fields: Mapping[str, int]) -> int:
        offered.append(live)
        assert fields["udp_dst"] == 53
        return live[-1]

    buckets = (
        Bucket((Output(2),), weight=1),
        Bucket((Output(3),), weight=0),
        Bucket((Output(3),), weight=1, watch_port=5),
        Bucket((Output(3),), weight=9, watch_port=2),
    )
    assert ports(grouped(Group(1, GroupType.SELECT, buckets), choose=last)) == [3, 4]
    assert offered == [[0, 3]]


def test_fast_failover_takes_the_first_bucket_that_is_alive() -> None:
    watched = group(GroupType.ALL, (), number=2)
    dead = Group(3, GroupType.FAST_FAILOVER, (Bucket(watch_port=5),))
    for watch, expected in (
        ({"watch_port": 2}, [2, 4]),
        ({"watch_port": 5}, [3, 4]),
        ({"watch_port": 77}, [3, 4]),
    ):
        buckets = (Bucket((Output(2),), **watch), Bucket((Output(3),)))
        assert ports(grouped(Group(1, GroupType.FAST_FAILOVER, buckets))) == expected
    for number, expected in ((2, [2, 4]), (3, [3, 4])):
        buckets = (Bucket((Output(2),), watch_group=number), Bucket((Output(3),)))
        assert ports(grouped(Group(1, GroupType.FAST_FAILOVER, buckets), watched, dead)) == expected


def test_a_group_without_a_live_bucket_drops_for_that_reason_whatever_the_cookie_says() -> None:
    flow = Flow(0, 1, Match(), Instructions(apply=(ToGroup(1),)), cookie=cookie.make("x", DropReason.NO_DST))
    dead = Group(1, GroupType.FAST_FAILOVER, (Bucket((Output(2),), watch_port=5),))
    assert SlowSwitch([flow], PORTS, groups=[dead]).receive(1, PLAIN, 0.0).drop is DropReason.NO_BUCKET


def test_groups_may_name_groups_but_not_without_end() -> None:
    one, two = group(GroupType.INDIRECT, (ToGroup(2),)), group(GroupType.INDIRECT, (Output(2),), number=2)
    assert ports(grouped(one, two)) == [2, 4]
    endless = grouped(group(GroupType.INDIRECT, (ToGroup(1),)))
    assert (ports(endless), endless.failure) == ([4], DropReason.LOOP)


def test_an_expired_ttl_in_a_bucket_ends_that_copy_only() -> None:
    outcome = grouped(group(GroupType.ALL, (DecIpTtl(), Output(2)), (Output(3),)), frame=aged(1))
    assert ports(outcome) == [3, 4]
    assert [sent.reason for sent in outcome.to_controller] == [PacketInReason.INVALID_TTL]


# -- resubmit -------------------------------------------------------------------------------------


def test_resubmit_carries_out_another_table_and_goes_on() -> None:
    flows = (
        do(Resubmit(table=5), Output(2)),
        do(SetField("reg0", 1), Output(3), table=5, goto=6),
        do(table=6),
    )
    assert ports(run(*flows)) == [3, 2]


def test_resubmit_searches_with_another_port_that_actions_do_not_see() -> None:
    flows = (
        do(Resubmit(port=3), priority=1),
        do(Output(1), Output(Port.IN_PORT), priority=2, in_port=3),
    )
    assert ports(run(*flows)) == [1]


def test_a_miss_after_resubmit_ends_the_detour_alone() -> None:
    assert ports(run(do(Resubmit(table=5), Output(2)))) == [2]
    assert ports(run(do(Resubmit(table=5), Output(2)), do(Output(3), table=5, goto=6))) == [3, 2]


def test_what_a_resubmit_changes_stays_changed() -> None:
    flows = (
        do(Resubmit(table=5), goto=1),
        Flow(5, 1, Match(), Instructions(apply=(PushVlan(),), write=(Output(2),), metadata=(5, 0xF))),
        do(table=1, metadata=5, vlan_vid=0x1000),
    )
    assert ports(run(*flows)) == [2]


def test_after_a_resubmit_the_flow_is_the_one_it_was() -> None:
    flow = Flow(0, 1, Match(), Instructions(apply=(Resubmit(table=5), Output(Port.CONTROLLER))), cookie=9)
    (sent,) = run(flow, do(table=5)).to_controller
    assert (sent.table, sent.cookie) == (0, 9)


def test_resubmitting_to_itself_is_a_loop() -> None:
    assert run(do(Resubmit())).drop is DropReason.LOOP


# -- meters ---------------------------------------------------------------------------------------


def metered(band: Band | None) -> Outcome:
    flow = Flow(0, 1, Match(), Instructions(meter=4, apply=(Output(2),), write=(Output(3),)))
    seen: list[tuple[int, int, float]] = []

    def meters(meter: int, length: int, now_s: float) -> Band | None:
        seen.append((meter, length, now_s))
        return band

    frame = bytes(ETHER / IP(src="10.0.0.1", dst="10.0.0.2", tos=10 << 2) / UDP())
    outcome = SlowSwitch([flow], PORTS, meters=meters).receive(1, frame, 9.0)
    assert seen == [(4, len(frame), 9.0)]
    return outcome


def test_a_meter_passes_drops_or_remarks() -> None:
    assert ports(metered(None)) == [2, 3]
    assert metered(Band(BandType.DROP, 1)).drop is DropReason.RATE
    remarked = bytes(ETHER / IP(src="10.0.0.1", dst="10.0.0.2", tos=12 << 2) / UDP())
    assert metered(Band(BandType.DSCP_REMARK, 1, precedence=1)).outputs == ((2, remarked), (3, remarked))


# -- bridging -------------------------------------------------------------------------------------

ANSWER = bytes(Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01") / IP4)


def test_normal_floods_what_it_does_not_know_and_learns_who_spoke() -> None:
    switch = SlowSwitch([do(Output(Port.NORMAL))], PORTS)
    assert ports(switch.receive(1, PLAIN, 0.0)) == [2, 3]
    assert ports(switch.receive(3, ANSWER, 1.0)) == [1]
    assert ports(switch.receive(1, PLAIN, 2.0)) == [3]
    assert ports(switch.receive(1, TAGGED, 2.0)) == [2, 3]
    assert ports(switch.receive(1, PLAIN, 301.0)) == [2, 3]
    assert switch.receive(1, ANSWER, 302.0).drop is DropReason.SAME_PORT


def test_normal_floods_groups_and_keeps_reserved_ones() -> None:
    switch = SlowSwitch([do(Output(Port.NORMAL))], PORTS)
    assert ports(switch.receive(1, b"\x01\x00\x5e\x00\x00\x01" + PLAIN[6:], 0.0)) == [2, 3]
    assert switch.receive(1, b"\x01\x80\xc2\x00\x00\x0e" + PLAIN[6:], 0.0).drop is DropReason.RULE


# -- translation and labels -----------------------------------------------------------------------


def test_a_label_and_a_zone_from_a_register() -> None:
    flows = (
        do(
            SetField("reg1", 0x700),
            Conntrack(table=1, commit=True, label=(5 << 100, 7 << 100), zone_field=("reg1", 8, 8)),
        ),
        do(Output(2), table=1, ct_zone=7, ct_label=5 << 100),
    )
    assert ports(run(*flows)) == [2]


def test_ct_clear_forgets_state() -> None:
    flows = (
        do(Conntrack(table=1)),
        do(ConntrackClear(), table=1, goto=2),
        do(Output(2), table=2, ct_state=0),
    )
    assert ports(run(*flows)) == [2]


def test_a_translated_packet_comes_back_and_errors_too() -> None:
    nat = Nat(source=True, addresses=(0xC0000209, 0xC0000209), ports=(6000, 6000))
    switch = SlowSwitch(
        [
            do(Conntrack(zone=7, table=1, commit=True, nat=nat), in_port=1),
            do(Conntrack(zone=7, table=2, nat=Nat()), in_port=2),
            do(Output(2), table=1, ct_state=CtState.TRK | CtState.NEW | CtState.SNAT),
            do(Output(1), table=2, ct_state=CtState.TRK | CtState.EST | CtState.RPL | CtState.DNAT),
            do(Output(3), table=2, ct_state=CtState.TRK | CtState.REL | CtState.RPL | CtState.DNAT),
        ],
        PORTS,
    )
    outside = IP(src="192.0.2.9", dst="10.0.0.2") / UDP(sport=6000, dport=53)
    assert switch.receive(1, PLAIN, 0.0).outputs == ((2, bytes(ETHER / outside)),)
    answer = bytes(ETHER / IP(src="10.0.0.2", dst="192.0.2.9") / UDP(sport=53, dport=6000))
    inside = bytes(ETHER / IP(src="10.0.0.2", dst="10.0.0.1") / UDP(sport=53, dport=5))
    assert switch.receive(2, answer, 0.0).outputs == ((1, inside),)
    error = bytes(ETHER / IP(src="10.0.0.9", dst="192.0.2.9") / ICMP(type=3) / IP(bytes(outside)))
    told = bytes(ETHER / IP(src="10.0.0.9", dst="10.0.0.1") / ICMP(type=3) / IP(PLAIN[14:]))
    assert switch.receive(2, error, 0.0).outputs == ((3, told),)
