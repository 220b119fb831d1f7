"""Flow_mods, barriers, bundles, statistics and timeouts as conversations."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.switch.conversation import Conversation, add, delete, flow
from vnet.openflow.codec import HEADER, encode
from vnet.openflow.flow import Conntrack, Flow, FlowFlag, Instructions, Output, Port, match
from vnet.openflow.message import (
    ONF,
    AggregateReply,
    AggregateRequest,
    BarrierReply,
    BarrierRequest,
    BundleAdd,
    BundleControl,
    BundleControlType,
    BundleFailed,
    Error,
    FlowCommand,
    FlowMod,
    FlowRemoved,
    FlowRemovedReason,
    FlowStatsReply,
    FlowStatsRequest,
    PortStatsReply,
    PortStatsRequest,
    Role,
    RoleRequest,
    TableStatsReply,
    TableStatsRequest,
)
from vnet.switch import handle_bundles
from vnet.switch.datapath import Counter, PortCounter, TableCounter
from vnet.switch.handle_bundles import MAX_BUNDLES

WEB = match(eth_type=0x0800, ip_proto=6, tcp_dst=80)
IP = match(eth_type=0x0800)


def dump(peer, request=None):
    peer.says(request or FlowStatsRequest(), xid=55)
    replies = [message for _, message in peer.hears()]
    assert all(isinstance(reply, FlowStatsReply) for reply in replies), replies
    return [stats for reply in replies for stats in reply.flows]


# -- barriers -------------------------------------------------------------------------------------


def test_barrier_reply_waits_for_the_dataplane():
    talk = Conversation(held=True)
    peer = talk.connect()
    peer.says(add(flow()), xid=1)
    peer.says(BarrierRequest(), xid=2)
    assert peer.hears() == []
    talk.answer()
    assert peer.hears() == [(2, BarrierReply())]


def test_barrier_does_not_wait_for_another_connection():
    talk = Conversation(held=True)
    busy, free = talk.connect(), talk.connect()
    busy.says(add(flow()))
    free.says(BarrierRequest(), xid=3)
    assert free.hears() == [(3, BarrierReply())]


def test_errors_come_before_the_barrier_reply():
    talk = Conversation()
    talk.datapath.refusals[0xBAD] = (5, 1)
    peer = talk.connect()
    data = [encode(add(flow(n, cookie=0xBAD if n == 2 else 0)), n) for n in range(1, 4)]
    peer.sends(b"".join(data) + encode(BarrierRequest(), 9))
    assert [(x, type(m)) for x, m in peer.hears()] == [(2, Error), (9, BarrierReply)]
    assert {key[1] for key in talk.datapath.installed} == {1, 3}


def test_flow_mods_that_arrive_together_are_one_commit():
    talk = Conversation()
    talk.connect().sends(b"".join(encode(add(flow(n)), n) for n in range(500)))
    assert len(talk.datapath.changes) == 1
    assert len(talk.datapath.installed) == 500


def test_a_malformed_flow_mod_between_good_ones_is_refused_alone():
    talk = Conversation()
    peer = talk.connect()
    broken = bytearray(encode(add(flow(2)), 2))
    broken[25] = 9  # command
    peer.sends(
        encode(add(flow(1)), 1) + bytes(broken) + encode(add(flow(3)), 3) + encode(BarrierRequest(), 4)
    )
    assert [(x, getattr(m, "code", None)) for x, m in peer.hears()] == [(2, 6), (4, None)]
    assert {key[1] for key in talk.datapath.installed} == {1, 3}


def test_a_full_table_refuses_what_does_not_fit_and_keeps_the_rest():
    talk = Conversation()
    talk.datapath.capacity = 3
    peer = talk.connect()
    peer.sends(b"".join(encode(add(flow(n)), n) for n in range(1, 6)))
    assert [(x, e.type, e.code) for x, e in peer.hears()] == [(4, 5, 1), (5, 5, 1)]
    assert len(talk.datapath.installed) == len(dump(peer)) == 3


def test_a_failing_kernel_is_told_to_the_sender_and_changes_nothing():
    talk = Conversation(flows=(flow(9),))
    talk.datapath.broken = True
    peer = talk.connect()
    assert peer.is_refused(add(flow(1))) == (5, 0)
    assert len(dump(peer)) == 1


# -- what flow_mods mean --------------------------------------------------------------------------


def test_add_replaces_the_flow_with_the_same_match_and_priority():
    talk = Conversation()
    peer = talk.connect()
    peer.says(add(flow(1, WEB, port=1)))
    talk.datapath.counted[(0, 1, WEB)] = Counter(5, 500)
    peer.says(add(flow(1, WEB, port=2)))
    (stats,) = dump(peer)
    assert stats.flow.instructions.apply == (Output(2),)
    assert (stats.packets, stats.bytes) == (5, 500)


def test_reset_counts_starts_from_zero():
    talk = Conversation()
    peer = talk.connect()
    peer.says(add(flow(1, WEB)))
    talk.datapath.counted[(0, 1, WEB)] = Counter(5, 500)
    peer.says(add(flow(1, WEB, flags=FlowFlag.RESET_COUNTS)))
    (stats,) = dump(peer)
    assert stats.packets == 0


def test_an_add_that_changes_nothing_does_not_trouble_the_datapath():
    talk = Conversation(flows=(flow(1, WEB),))
    talk.connect().says(add(flow(1, WEB)))
    assert talk.datapath.changes == []


def test_modify_changes_narrower_flows_and_keeps_cookie_and_counters():
    talk = Conversation(flows=(flow(1, WEB, cookie=7), flow(2, IP), flow(3, match(eth_type=0x86DD))))
    talk.datapath.counted[(0, 1, WEB)] = Counter(5, 500)
    peer = talk.connect()
    peer.says(FlowMod(FlowCommand.MODIFY, flow(0, IP, port=9, cookie=99)))
    found = {stats.flow.priority: stats for stats in dump(peer)}
    assert {p: s.flow.instructions.apply[0].port for p, s in found.items()} == {1: 9, 2: 9, 3: 1}
    assert (found[1].flow.cookie, found[1].packets) == (7, 5)


def test_modify_strict_changes_exactly_one_and_never_adds():
    talk = Conversation(flows=(flow(1, WEB), flow(2, WEB)))
    peer = talk.connect()
    peer.says(FlowMod(FlowCommand.MODIFY_STRICT, flow(2, WEB, port=9)))
    peer.says(FlowMod(FlowCommand.MODIFY_STRICT, flow(3, WEB, port=9)))
    assert {s.flow.priority: s.flow.instructions.apply[0].port for s in dump(peer)} == {1: 1, 2: 9}


def test_modify_looks_at_the_cookie_under_the_mask():
    talk = Conversation(flows=(flow(1, cookie=0x10), flow(2, cookie=0x20)))
    peer = talk.connect()
    peer.says(FlowMod(FlowCommand.MODIFY, flow(0, port=9, cookie=0x20), cookie_mask=0xF0))
    assert {s.flow.priority: s.flow.instructions.apply[0].port for s in dump(peer)} == {1: 1, 2: 9}


@pytest.mark.parametrize(
    ("deletion", "left"),
    [
        (delete(), set()),
        (delete(Flow(0, 0)), {3}),
        (delete(Flow(0xFF, 0, IP)), {1, 3}),
        (delete(Flow(0xFF, 0, cookie=0x30), cookie_mask=0xFF), {1, 2}),
        (delete(out_port=2), {1, 3}),
        (delete(out_group=5), {1, 2, 3}),
        (FlowMod(FlowCommand.DELETE_STRICT, Flow(0, 2, WEB)), {1, 3}),
        (FlowMod(FlowCommand.DELETE_STRICT, Flow(0, 1, WEB)), {1, 2, 3}),
    ],
)
def test_deletions_take_what_they_name(deletion, left):
    flows = (flow(1), flow(2, WEB, port=2), flow(3, table=4, cookie=0x30))
    talk = Conversation(flows=flows)
    talk.connect().says(deletion)
    assert {key[1] for key in talk.datapath.installed} == left


def test_overlap_is_refused_when_it_is_to_be_checked():
    peer = Conversation(flows=(flow(5, IP), flow(6, match(eth_type=0x0806)))).connect()
    assert peer.is_refused(add(flow(5, WEB, flags=FlowFlag.CHECK_OVERLAP))) == (5, 3)
    peer.says(add(flow(4, WEB, flags=FlowFlag.CHECK_OVERLAP)))
    peer.says(add(flow(6, WEB, flags=FlowFlag.CHECK_OVERLAP)))
    assert peer.hears() == []


def test_a_flow_does_not_overlap_with_the_one_it_replaces():
    peer = Conversation(flows=(flow(5, IP, port=1),)).connect()
    peer.says(add(flow(5, IP, port=2, flags=FlowFlag.CHECK_OVERLAP)))
    (stats,) = dump(peer)
    assert stats.flow.instructions.apply == (Output(2),)


def test_all_flags_that_a_flow_was_added_with_are_told_also_after_a_restart():
    talk = Conversation()
    peer, every = talk.connect(), sum(FlowFlag)
    peer.says(add(flow(5, flags=every)))
    peer.says(replace(add(flow(5, port=2)), command=FlowCommand.MODIFY))
    assert [stats.flow.flags for stats in dump(peer)] == [every]
    assert [stats.flow.flags for stats in dump(Conversation(talk.datapath.flows()).connect())] == [every]


@pytest.mark.parametrize(
    ("mod", "error"),
    [
        (add(flow(table=64)), (5, 2)),
        (add(flow(table=0xFF)), (5, 2)),
        (replace(add(flow(table=0xFF)), command=FlowCommand.MODIFY), (5, 2)),
        (replace(add(flow(table=0xFF)), command=FlowCommand.MODIFY_STRICT), (5, 2)),
        (delete(Flow(64, 0)), (5, 2)),
        (add(Flow(5, 1, instructions=Instructions(goto=5))), (3, 2)),
        (add(Flow(5, 1, instructions=Instructions(goto=64))), (3, 2)),
        (add(Flow(5, 1, IP, Instructions(apply=(Conntrack(1, 64),)))), (2, 5)),
        (FlowMod(FlowCommand.ADD, flow(), buffer_id=3), (1, 8)),
    ],
)
def test_impossible_flow_mods_are_refused(mod, error):
    assert Conversation().connect().is_refused(mod) == error


# -- bundles --------------------------------------------------------------------------------------


def control(kind, bundle=1, flags=3):
    return BundleControl(bundle, kind, flags)


OPEN, CLOSE = control(BundleControlType.OPEN_REQUEST), control(BundleControlType.CLOSE_REQUEST)
COMMIT, DISCARD = control(BundleControlType.COMMIT_REQUEST), control(BundleControlType.DISCARD_REQUEST)


def test_a_bundle_is_put_in_force_at_once_by_its_commit():
    talk = Conversation(flows=(flow(9),))
    peer = talk.connect()
    peer.asks(OPEN)
    for n in range(1, 4):
        peer.says(BundleAdd(1, add(flow(n)), 3))
    peer.says(BundleAdd(1, FlowMod(FlowCommand.DELETE_STRICT, Flow(0, 9)), 3))
    peer.says(BarrierRequest(), xid=8)
    assert peer.hears() == [(8, BarrierReply())]
    assert talk.datapath.changes == []
    assert peer.asks(CLOSE) == control(BundleControlType.CLOSE_REPLY)
    assert peer.asks(COMMIT) == control(BundleControlType.COMMIT_REPLY)
    assert len(talk.datapath.changes) == 1
    assert {key[1] for key in talk.datapath.installed} == {1, 2, 3}


def test_commit_is_confirmed_only_when_the_dataplane_has_it():
    talk = Conversation(held=True)
    peer = talk.connect()
    peer.asks(OPEN)
    peer.says(BundleAdd(1, add(flow(1)), 3))
    peer.says(COMMIT, xid=5)
    assert peer.hears() == []
    talk.answer()
    assert peer.hears() == [(5, control(BundleControlType.COMMIT_REPLY))]


def test_a_bundle_with_a_refused_flow_changes_nothing_and_says_which():
    talk = Conversation(flows=(flow(9),))
    talk.datapath.refusals[0xBAD] = (2, 0)
    peer = talk.connect()
    peer.asks(OPEN)
    peer.says(BundleAdd(1, delete(), 3), xid=20)
    peer.says(BundleAdd(1, add(flow(1, cookie=0xBAD)), 3), xid=21)
    peer.says(COMMIT, xid=22)
    assert [(x, e.type, e.code, e.experimenter) for x, e in peer.hears()] == [
        (21, 2, 0, 0),
        (22, 0xFFFF, 2313, ONF),
    ]
    assert [s.flow.priority for s in dump(peer)] == [9]
    assert {key[1] for key in talk.datapath.installed} == {9}


def test_a_malformed_message_in_a_bundle_is_answered_and_the_commit_fails():
    talk = Conversation()
    peer = talk.connect()
    peer.asks(OPEN)
    peer.says(BundleAdd(1, add(flow(1)), 3))
    broken = bytearray(encode(BundleAdd(1, add(flow(2)), 3), 30))
    broken[24 + 25] = 9  # command of the flow_mod inside
    peer.sends(bytes(broken))
    assert [(x, e.type, e.code) for x, e in peer.hears()] == [(30, 5, 6)]
    peer.says(COMMIT, xid=31)
    assert [(x, e.code) for x, e in peer.hears()] == [(31, 2313)]
    assert talk.datapath.changes == []


def test_malformed_messages_open_no_more_bundles_than_there_may_be():
    talk = Conversation()
    peer = talk.connect()
    for number in range(2 * MAX_BUNDLES):
        broken = bytearray(encode(BundleAdd(number, add(flow(2)), 3), 30))
        broken[24 + 25] = 9
        peer.sends(bytes(broken))
    assert len(talk.agent.connections[peer.number].bundles) == MAX_BUNDLES


def test_bundles_of_a_connection_hold_so_many_bytes_and_no_more(monkeypatch):
    one = BundleAdd(1, add(flow(1)), 3)
    monkeypatch.setattr(handle_bundles, "MAX_BUNDLE_BYTES", 3 * len(encode(one, 1)))
    peer = Conversation().connect()
    peer.says(one, one, replace(one, bundle_id=2))
    assert peer.hears() == []
    assert peer.is_refused(replace(one, bundle_id=2)) == (0xFFFF, BundleFailed.MSG_TOO_MANY)
    assert peer.asks(DISCARD) == control(BundleControlType.DISCARD_REPLY)
    peer.says(replace(one, bundle_id=3))
    assert peer.hears() == []


def test_later_messages_of_a_bundle_see_the_earlier_ones():
    talk = Conversation()
    peer = talk.connect()
    peer.asks(OPEN)
    for mod in (
        add(flow(1, WEB)),
        FlowMod(FlowCommand.MODIFY, flow(0, IP, port=7)),
        add(flow(2)),
        delete(Flow(0, 0, WEB)),
    ):
        peer.says(BundleAdd(1, mod, 3))
    assert peer.asks(COMMIT) == control(BundleControlType.COMMIT_REPLY)
    assert {key[1] for key in talk.datapath.installed} == {2}


def test_a_discarded_bundle_and_one_of_a_lost_connection_do_nothing():
    talk = Conversation()
    peer = talk.connect()
    peer.asks(OPEN)
    peer.says(BundleAdd(1, add(flow(1)), 3))
    assert peer.asks(DISCARD) == control(BundleControlType.DISCARD_REPLY)
    peer.asks(OPEN)
    peer.says(BundleAdd(1, add(flow(1)), 3))
    talk.agent.closed(peer.number, talk.now)
    talk.settle()
    assert talk.datapath.changes == []


@pytest.mark.parametrize(
    ("before", "message", "code"),
    [
        ((), COMMIT, 2302),
        ((), DISCARD, 2302),
        ((OPEN,), OPEN, 2303),
        ((OPEN, CLOSE), CLOSE, 2304),
        ((OPEN, CLOSE), BundleAdd(1, add(flow()), 3), 2304),
        ((), control(11), 2306),
        ((), control(BundleControlType.OPEN_REQUEST, flags=0x10), 2307),
        ((OPEN,), BundleAdd(1, add(flow()), 0), 2307),
        ((OPEN,), control(BundleControlType.COMMIT_REQUEST, flags=1), 2307),
        ((OPEN,), BundleAdd(1, BarrierRequest(), 3), 2310),
    ],
)
def test_misused_bundles_are_refused(before, message, code):
    peer = Conversation().connect()
    for step in before:
        peer.asks(step)
    assert peer.is_refused(message) == (0xFFFF, code)


def test_the_message_in_a_bundle_must_bear_the_same_xid():
    peer = Conversation().connect()
    peer.asks(OPEN)
    raw = bytearray(encode(BundleAdd(1, add(flow()), 3), 30))
    raw[24 + 7] = 31
    peer.sends(bytes(raw))
    assert [(x, e.type, e.code) for x, e in peer.hears()] == [(30, 0xFFFF, 2309)]


def test_a_controller_that_became_a_slave_cannot_commit():
    talk = Conversation()
    first, second = talk.connect(), talk.connect()
    first.asks(RoleRequest(Role.MASTER, 1))
    first.asks(OPEN)
    first.says(BundleAdd(1, add(flow()), 3))
    second.asks(RoleRequest(Role.MASTER, 2))
    assert first.is_refused(COMMIT) == (1, 10)
    assert talk.datapath.changes == []


# -- statistics -----------------------------------------------------------------------------------


def test_flow_stats_are_cut_into_messages_and_made_as_they_are_read():
    flows = tuple(flow(n, match(eth_type=0x800, ipv4_src=n)) for n in range(3000))
    talk = Conversation(flows=flows)
    peer = talk.connect()
    peer.says(FlowStatsRequest(), xid=4)
    replies = [message for _, message in peer.hears()]
    assert [reply.more for reply in replies] == [True] * (len(replies) - 1) + [False]
    assert sorted(s.flow.priority for reply in replies for s in reply.flows) == list(range(3000))


def test_flow_stats_filter_as_asked():
    talk = Conversation(
        flows=(flow(1, WEB, cookie=1), flow(2, table=3, port=2), flow(3, match(eth_type=0x806)))
    )
    peer = talk.connect()

    def priorities(**wanted):
        return {s.flow.priority for s in dump(peer, FlowStatsRequest(**wanted))}

    assert priorities(table=3) == {2}
    assert priorities(match=IP) == {1}
    assert priorities(cookie=1, cookie_mask=1) == {1}
    assert priorities(out_port=2) == {2}


def test_ages_and_sums_are_told():
    talk = Conversation(flows=(flow(1, WEB), flow(2)))
    talk.datapath.counted = {(0, 1, WEB): Counter(2, 200), (0, 2, match()): Counter(3, 300)}
    peer = talk.connect()
    talk.wait(2.5)
    assert {s.duration_ns for s in dump(peer)} == {2_500_000_000}
    assert peer.asks(AggregateRequest()) == AggregateReply(5, 500, 2)
    assert peer.asks(AggregateRequest(match=IP)) == AggregateReply(2, 200, 1)


def test_tables_and_ports_are_counted():
    talk = Conversation(flows=(flow(1, table=4),))
    talk.datapath.tables = {4: TableCounter(10, 7)}
    talk.datapath.port_counts = {2: PortCounter(Counter(1, 60), Counter(2, 120), 3)}
    peer = talk.connect()
    tables = peer.asks(TableStatsRequest())
    assert isinstance(tables, TableStatsReply)
    four = tables.tables[4]
    assert (four.active, four.lookups, four.matched) == (1, 10, 7)
    ports = peer.asks(PortStatsRequest())
    assert isinstance(ports, PortStatsReply)
    two = ports.ports[1]
    assert (two.port, two.rx_packets, two.tx_bytes, two.rx_dropped) == (2, 1, 120, 3)
    assert len(peer.asks(PortStatsRequest(2)).ports) == 1
    assert peer.is_refused(PortStatsRequest(77)) == (1, 11)


def test_statistics_come_after_the_changes_before_them():
    talk = Conversation(held=True)
    peer = talk.connect()
    peer.says(add(flow(1)))
    peer.says(AggregateRequest(), xid=6)
    peer.says(add(flow(2)))
    for _ in range(3):
        talk.answer()
        talk.settle()
    assert peer.hears() == [(6, AggregateReply(0, 0, 1))]


# -- removal --------------------------------------------------------------------------------------


def removed(peer):
    return [(m.reason, m.flow.priority, m.packets) for _, m in peer.hears() if isinstance(m, FlowRemoved)]


def test_deletion_is_told_with_final_counters_to_all_who_want_it():
    talk = Conversation()
    peer, other = talk.connect(), talk.connect()
    peer.says(add(flow(1, WEB, flags=FlowFlag.SEND_FLOW_REM)))
    talk.datapath.counted[(0, 1, WEB)] = Counter(8, 800)
    peer.says(delete())
    assert removed(peer) == removed(other) == [(FlowRemovedReason.DELETE, 1, 8)]


def test_a_replaced_flow_is_not_told_as_removed():
    peer = Conversation().connect()
    peer.says(add(flow(1, WEB, flags=FlowFlag.SEND_FLOW_REM)))
    peer.says(add(flow(1, WEB, port=3, flags=FlowFlag.SEND_FLOW_REM)))
    assert removed(peer) == []


def test_hard_timeout_removes_the_flow_whatever_its_traffic():
    talk = Conversation()
    peer = talk.connect()
    peer.says(add(flow(1, WEB, hard_timeout_s=5, flags=FlowFlag.SEND_FLOW_REM)))
    for _ in range(4):
        talk.datapath.counted[(0, 1, WEB)] = Counter(int(talk.now), 1)
        talk.wait(1)
    assert talk.datapath.installed
    talk.wait(2)
    assert not talk.datapath.installed
    assert [(r, p) for r, p, _ in removed(peer)] == [(FlowRemovedReason.HARD_TIMEOUT, 1)]
    assert talk.agent.expiry.due_s is None


def test_idle_timeout_waits_for_the_last_packet():
    talk = Conversation()
    peer = talk.connect()
    peer.says(add(flow(1, WEB, idle_timeout_s=3, flags=FlowFlag.SEND_FLOW_REM)))
    for packets in range(1, 7):
        talk.datapath.counted[(0, 1, WEB)] = Counter(packets, 60 * packets)
        talk.wait(1)
        peer.hears()
    assert talk.datapath.installed
    talk.wait(5)
    assert removed(peer) == [(FlowRemovedReason.IDLE_TIMEOUT, 1, 6)]


def test_output_to_the_controller_keeps_its_length():
    peer = Conversation().connect()
    wanted = Flow(0, 0, match(), Instructions(apply=(Output(Port.CONTROLLER, 128),)))
    peer.says(add(wanted))
    assert dump(peer)[0].flow == wanted


def test_a_short_flow_mod_is_a_bad_length():
    peer = Conversation().connect()
    peer.sends(HEADER.pack(4, 14, 16, 3) + bytes(8))
    assert [(x, e.type, e.code) for x, e in peer.hears()] == [(3, 1, 6)]
