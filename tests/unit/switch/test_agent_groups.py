"""Groups and meters as conversations: what can be, who uses them, what goes when they go."""

from __future__ import annotations

import pytest

from tests.unit.switch.conversation import Conversation, add, delete, flow
from vnet.openflow.flow import (
    Conntrack,
    Flow,
    FlowFlag,
    Instructions,
    Nat,
    Output,
    Port,
    SetField,
    ToGroup,
    match,
)
from vnet.openflow.group import (
    ALL_GROUPS,
    ALL_METERS,
    MAX_GROUP,
    Band,
    BandType,
    Bucket,
    Group,
    GroupType,
    Meter,
    MeterFlag,
)
from vnet.openflow.message import (
    BarrierReply,
    BarrierRequest,
    BundleAdd,
    BundleControl,
    BundleControlType,
    Error,
    FlowCommand,
    FlowMod,
    FlowRemoved,
    FlowRemovedReason,
    FlowStatsRequest,
    GroupCommand,
    GroupDescReply,
    GroupDescRequest,
    GroupFeaturesReply,
    GroupFeaturesRequest,
    GroupMod,
    GroupStats,
    GroupStatsReply,
    GroupStatsRequest,
    MeterCommand,
    MeterConfigReply,
    MeterConfigRequest,
    MeterFeaturesReply,
    MeterFeaturesRequest,
    MeterMod,
    MeterStats,
    MeterStatsReply,
    MeterStatsRequest,
    PacketOut,
    PortMod,
    Role,
    RoleRequest,
)
from vnet.switch import grouptable, metertable
from vnet.switch.datapath import Change, Counter, GroupCounter, MeterCounter

ALL, SELECT, INDIRECT, FAILOVER = GroupType
KBPS = MeterFlag.KBPS
FRAME = bytes(60)
BUCKET = Bucket((Output(1),))
DROP = Band(BandType.DROP, 100)


def group(number: int = 1, kind: GroupType = ALL, *buckets: Bucket) -> Group:
    return Group(number, kind, buckets or (BUCKET,))


def meter(number: int = 1, flags: MeterFlag = KBPS, *bands: Band) -> Meter:
    return Meter(number, flags, bands or (DROP,))


def new(value: Group | Meter) -> GroupMod | MeterMod:
    if isinstance(value, Group):
        return GroupMod(GroupCommand.ADD, value)
    return MeterMod(MeterCommand.ADD, value)


def changed(value: Group | Meter) -> GroupMod | MeterMod:
    if isinstance(value, Group):
        return GroupMod(GroupCommand.MODIFY, value)
    return MeterMod(MeterCommand.MODIFY, value)


def no_group(number: int = ALL_GROUPS) -> GroupMod:
    return GroupMod(GroupCommand.DELETE, Group(number, ALL))


def no_meter(number: int = ALL_METERS) -> MeterMod:
    return MeterMod(MeterCommand.DELETE, Meter(number, KBPS))


def grouped(priority: int, *groups: int, **rest) -> Flow:
    return Flow(0, priority, match(), Instructions(apply=tuple(map(ToGroup, groups))), **rest)


def metered(priority: int, number: int, **rest) -> Flow:
    return Flow(0, priority, match(), Instructions(apply=(Output(1),), meter=number), **rest)


def done(peer, *messages) -> None:
    """Say them all and hear nothing but that they are in force."""
    peer.says(*messages, BarrierRequest(), xid=5)
    assert peer.hears() == [(5, BarrierReply())]


def priorities(talk) -> set[int]:
    return {key[1] for key in talk.datapath.installed}


# -- what can be ----------------------------------------------------------------------------------

GOOD_GROUPS = (
    group(0, ALL, BUCKET, BUCKET),
    group(1, ALL, Bucket((SetField("eth_dst", 5), Output(7)))),
    Group(2, ALL),
    group(3, SELECT, Bucket((Output(1),), 3), Bucket((Output(2),), 0)),
    group(4, SELECT, Bucket((Output(1),), 3, watch_port=1)),
    group(5, INDIRECT),
    group(6, FAILOVER, Bucket((Output(1),), watch_port=1), Bucket((Output(9),), watch_port=9)),
    group(7, FAILOVER, Bucket((Output(1),), watch_group=6)),
    group(MAX_GROUP, ALL, *(BUCKET,) * grouptable.MAX_BUCKETS),
)


def test_groups_of_all_types_are_kept_and_told_as_they_were_given():
    talk = Conversation()
    peer = talk.connect()
    done(peer, *map(new, GOOD_GROUPS))
    assert tuple(talk.datapath.group_table.values()) == GOOD_GROUPS
    peer.says(GroupDescRequest(), xid=6)
    told = [reply for _, reply in peer.hears()]
    assert all(isinstance(reply, GroupDescReply) for reply in told)
    assert [reply.more for reply in told] == [True] * (len(told) - 1) + [False]
    assert tuple(group for reply in told for group in reply.groups) == GOOD_GROUPS


@pytest.mark.parametrize(
    ("mod", "code"),
    [
        (new(group(1)), 0),
        (new(group(2, INDIRECT, BUCKET, BUCKET)), 1),
        (new(Group(2, INDIRECT)), 1),
        (new(group(MAX_GROUP + 1)), 1),
        (new(group(2, ALL, Bucket(weight=1))), 1),
        (new(group(2, FAILOVER)), 1),
        (new(group(2, ALL, *(BUCKET,) * 65)), 4),
        (new(group(2, ALL, Bucket((ToGroup(1),)))), 5),
        (changed(group(1, ALL, Bucket((ToGroup(1),)))), 5),
        (new(group(2, ALL, Bucket(watch_port=1))), 6),
        (new(group(2, FAILOVER, Bucket(watch_group=2))), 7),
        (changed(group(1, SELECT, Bucket(watch_group=6))), 7),
        (changed(group(5)), 8),
        (changed(group(ALL_GROUPS)), 8),
        (new(group(2, FAILOVER, Bucket(watch_group=5))), 13),
        (new(group(2, FAILOVER, Bucket(watch_port=Port.CONTROLLER))), 13),
        (new(group(2, SELECT, Bucket(watch_port=0))), 13),
    ],
)
def test_groups_that_cannot_be_are_refused_with_their_own_code(mod, code):
    talk = Conversation()
    peer = talk.connect()
    done(peer, new(group(1)), new(group(6, FAILOVER, Bucket(watch_group=1))))
    assert peer.is_refused(mod) == (6, code)
    assert len(talk.datapath.group_table) == 2


def test_meters_are_kept_and_told_as_they_were_given():
    talk = Conversation()
    peer = talk.connect()
    meters = (
        meter(1, KBPS, DROP),
        meter(2, MeterFlag.PKTPS | MeterFlag.BURST | MeterFlag.STATS, Band(BandType.DSCP_REMARK, 9, 0, 1)),
        meter(3, KBPS | MeterFlag.BURST, Band(BandType.DROP, 9, 7), Band(BandType.DROP, 4, 0)),
        meter(0xFFFF0000, KBPS, *(Band(BandType.DROP, rate) for rate in range(1, metertable.MAX_BANDS + 1))),
    )
    done(peer, *map(new, meters))
    assert tuple(talk.datapath.meter_table.values()) == meters
    assert peer.asks(MeterConfigRequest()) == MeterConfigReply(meters)
    assert peer.asks(MeterConfigRequest(2)) == MeterConfigReply(meters[1:2])


@pytest.mark.parametrize(
    ("mod", "code"),
    [
        (new(meter(1)), 1),
        (new(meter(0)), 2),
        (new(meter(0xFFFF0001)), 2),
        (new(meter(0xFFFFFFFD)), 2),
        (changed(meter(2)), 3),
        (new(meter(2, MeterFlag(0))), 5),
        (new(meter(2, KBPS | MeterFlag.PKTPS)), 5),
        (new(meter(2, KBPS, Band(BandType.DROP, 0))), 6),
        (new(meter(2, KBPS, *(DROP,) * 9)), 11),
        (new(Meter(2, KBPS)), 11),
    ],
)
def test_meters_that_cannot_be_are_refused_with_their_own_code(mod, code):
    talk = Conversation()
    peer = talk.connect()
    done(peer, new(meter(1)))
    assert peer.is_refused(mod) == (12, code)
    assert len(talk.datapath.meter_table) == 1


@pytest.mark.parametrize("value", [group, meter])
def test_beyond_the_last_group_or_meter_none_fits(monkeypatch, value):
    monkeypatch.setattr(grouptable, "MAX_GROUPS", 3)
    monkeypatch.setattr(metertable, "MAX_METERS", 3)
    talk = Conversation()
    peer = talk.connect()
    done(peer, *(new(value(number)) for number in (1, 2, 3)))
    assert peer.is_refused(new(value(4))) == ((6, 3) if value is group else (12, 10))
    done(peer, no_group(2), no_meter(2))
    done(peer, new(value(4)))


def test_what_the_switch_can_do_is_announced():
    peer = Conversation().connect()
    actions = sum(1 << action for action in (0, 11, 12, 15, 16, 17, 18, 19, 20, 23, 24, 25))
    assert peer.asks(GroupFeaturesRequest()) == GroupFeaturesReply(0b1111, 0b11, (4095,) * 4, (actions,) * 4)
    assert peer.asks(MeterFeaturesRequest()) == MeterFeaturesReply(4095, 0b110, 0b1111, 8)


# -- what uses them -------------------------------------------------------------------------------


def test_flows_and_packets_to_a_group_that_is_not_there_are_refused():
    peer = Conversation().connect()
    written = Flow(0, 1, match(), Instructions(write=(ToGroup(1),)))
    assert peer.is_refused(add(grouped(1, 1))) == (2, 9)
    assert peer.is_refused(add(written)) == (2, 9)
    assert peer.is_refused(PacketOut(Port.CONTROLLER, (ToGroup(1),), FRAME)) == (2, 9)
    done(peer, new(group(1)))
    done(peer, add(grouped(1, 1)), add(written), PacketOut(Port.CONTROLLER, (ToGroup(1),), FRAME))
    assert peer.is_refused(FlowMod(FlowCommand.MODIFY, grouped(1, 2))) == (2, 9)


def test_flows_with_a_meter_that_is_not_there_are_refused_as_open_vswitch_does():
    peer = Conversation().connect()
    assert peer.is_refused(add(metered(1, 7))) == (12, 2)
    done(peer, new(meter(7)))
    done(peer, add(metered(1, 7)))


def test_out_group_selects_flows_to_delete_and_to_tell():
    talk = Conversation()
    peer = talk.connect()
    done(peer, new(group(1)), new(group(2)), add(grouped(1, 1)), add(grouped(2, 1, 2)), add(grouped(3, 2)))
    (reply,) = (peer.asks(FlowStatsRequest(out_group=1)),)
    assert {stats.flow.priority for stats in reply.flows} == {1, 2}
    done(peer, delete(out_group=2))
    assert priorities(talk) == {1}


def test_deleting_a_group_deletes_the_flows_that_send_to_it_and_tells_why():
    talk = Conversation()
    peer = talk.connect()
    done(peer, new(group(1)), new(group(2)))
    done(peer, add(grouped(1, 1, flags=FlowFlag.SEND_FLOW_REM)), add(grouped(2, 2)), add(flow(3)))
    talk.datapath.counted[(0, 1, match())] = Counter(4, 400)
    peer.says(no_group(1), BarrierRequest(), xid=5)
    (_, removed), barrier = peer.hears()
    assert barrier == (5, BarrierReply())
    assert isinstance(removed, FlowRemoved)
    assert (removed.reason, removed.flow.priority) == (FlowRemovedReason.GROUP_DELETE, 1)
    assert (removed.packets, removed.bytes) == (4, 400)
    assert priorities(talk) == {2, 3}
    assert len(talk.datapath.changes) == 3
    done(peer, no_group())
    assert priorities(talk) == {3}
    assert talk.datapath.group_table == {}


def test_deleting_a_meter_deletes_the_flows_that_must_pass_it():
    talk = Conversation()
    peer = talk.connect()
    done(peer, new(meter(1)), new(meter(2)))
    done(peer, add(metered(1, 1, flags=FlowFlag.SEND_FLOW_REM)), add(metered(2, 2)))
    peer.says(no_meter(1))
    ((_, removed),) = peer.hears()
    assert (removed.reason, removed.flow.priority) == (FlowRemovedReason.DELETE, 1)
    assert priorities(talk) == {2}


def test_a_group_can_be_put_whether_it_is_there_or_not():
    talk = Conversation()
    peer = talk.connect()
    for kind in (ALL, SELECT):
        done(peer, GroupMod(GroupCommand.ADD_OR_MODIFY, group(1, kind)))
        assert talk.datapath.group_table[1].kind is kind
    assert peer.is_refused(GroupMod(GroupCommand.ADD_OR_MODIFY, group(MAX_GROUP + 1))) == (6, 1)


def test_a_failing_kernel_is_told_in_the_words_of_the_request():
    talk = Conversation()
    talk.datapath.broken = True
    peer = talk.connect()
    assert peer.is_refused(new(group(1))) == (6, 14)
    assert peer.is_refused(new(meter(1))) == (12, 0)
    assert peer.asks(GroupDescRequest()) == GroupDescReply()


def test_deleting_what_is_not_there_changes_nothing():
    talk = Conversation()
    done(talk.connect(), no_group(9), no_group(), no_group(0xFFFFFFFF), no_meter(9), no_meter())
    assert talk.datapath.changes == []


def test_a_flow_that_no_longer_uses_a_group_outlives_it():
    talk = Conversation()
    peer = talk.connect()
    done(peer, new(group(1)), new(meter(1)), add(grouped(1, 1)), add(metered(2, 1)))
    done(peer, add(flow(1)), add(flow(2)), no_group(1), no_meter(1))
    assert priorities(talk) == {1, 2}


def test_a_group_that_is_deleted_and_added_again_starts_anew_and_one_that_is_modified_does_not():
    talk = Conversation()
    peer = talk.connect()
    done(peer, new(group(1)), new(meter(1)))
    talk.wait(5)
    done(peer, changed(group(1, SELECT)), changed(meter(1, MeterFlag.PKTPS)))
    assert talk.datapath.changes[-1] == Change(
        put_groups=(group(1, SELECT),), put_meters=(meter(1, MeterFlag.PKTPS),)
    )
    assert peer.asks(GroupStatsRequest()).groups[0].duration_ns == 5_000_000_000
    done(peer, no_group(1), new(group(1, SELECT)), no_meter(1), new(meter(1)))
    assert talk.datapath.changes[-1] == Change((), (), (group(1, SELECT),), (1,), (meter(1),), (1,))
    assert peer.asks(GroupStatsRequest()).groups[0].duration_ns == 0
    assert peer.asks(MeterStatsRequest()).meters[0].duration_ns == 0


def test_a_modification_that_changes_nothing_does_not_trouble_the_datapath():
    talk = Conversation()
    peer = talk.connect()
    done(peer, new(group(1)), new(meter(1)))
    done(peer, changed(group(1)), changed(meter(1)))
    assert len(talk.datapath.changes) == 1


# -- statistics -----------------------------------------------------------------------------------


def test_group_statistics_count_buckets_and_the_flows_that_send_there():
    talk = Conversation()
    peer = talk.connect()
    done(peer, new(group(1, ALL, BUCKET, BUCKET)), new(group(2)), add(grouped(1, 1)), add(grouped(2, 1)))
    talk.datapath.group_counts[1] = GroupCounter(Counter(9, 900), (Counter(4, 400), Counter(5, 500)))
    talk.wait(2.5)
    one = GroupStats(1, 2, 9, 900, 2_500_000_000, ((4, 400), (5, 500)))
    two = GroupStats(2, 0, 0, 0, 2_500_000_000, ((0, 0),))
    assert peer.asks(GroupStatsRequest()) == GroupStatsReply((one, two))
    assert peer.asks(GroupStatsRequest(2)) == GroupStatsReply((two,))
    assert peer.asks(GroupStatsRequest(77)) == GroupStatsReply()


def test_meter_statistics_count_bands_and_the_flows_that_must_pass():
    talk = Conversation()
    peer = talk.connect()
    done(peer, new(meter(1, KBPS, DROP, DROP)), new(meter(2)), add(metered(1, 1)))
    talk.datapath.meter_counts[1] = MeterCounter(Counter(9, 900), (Counter(4, 400), Counter(5, 500)))
    talk.wait(2.5)
    one = MeterStats(1, 1, 9, 900, 2_500_000_000, ((4, 400), (5, 500)))
    two = MeterStats(2, 0, 0, 0, 2_500_000_000, ((0, 0),))
    assert peer.asks(MeterStatsRequest()) == MeterStatsReply((one, two))
    assert peer.asks(MeterStatsRequest(2)) == MeterStatsReply((two,))
    assert peer.is_refused(MeterStatsRequest(77)) == (12, 3)
    assert peer.is_refused(MeterConfigRequest(77)) == (12, 3)


def test_the_most_and_largest_of_everything_fit_their_answers():
    talk = Conversation()
    peer = talk.connect()
    full = (BUCKET,) * grouptable.MAX_BUCKETS
    many = range(1, 200)
    bands = (DROP,) * metertable.MAX_BANDS
    done(
        peer,
        *(new(group(n, ALL, *full)) for n in many),
        *(new(meter(n, KBPS, *bands)) for n in range(1, 900)),
    )
    for question, wanted in (
        (GroupStatsRequest(), 199),
        (GroupDescRequest(), 199),
        (MeterStatsRequest(), 899),
        (MeterConfigRequest(), 899),
    ):
        peer.says(question)
        replies = [reply for _, reply in peer.hears()]
        told = [getattr(r, "groups", None) or getattr(r, "meters", ()) for r in replies]
        assert sum(map(len, told)) == wanted
        assert [reply.more for reply in replies] == [True] * (len(replies) - 1) + [False]


LONGEST = Conntrack(
    0,
    2,
    True,
    mark=(1, 1),
    label=(1, 1),
    nat=Nat(True, 6, (1, 2), (3, 4)),
    zone_field=("reg1", 0, 16),
)


def test_what_is_told_of_the_longest_flow_and_group_fits_a_message():
    peer = Conversation().connect()
    ip = match(eth_type=0x86DD, ipv6_src=(1, 1), ipv6_dst=(1, 1))
    for n_actions, fits in ((384, True), (385, False)):
        longest = Flow(0, 1, ip, Instructions(apply=(LONGEST,) * 100, write=(Output(1),) * (n_actions - 100)))
        widest = group(n_actions, ALL, Bucket((LONGEST,) * 380), Bucket((Output(1),) * (n_actions - 380)))
        if fits:
            done(peer, add(longest), new(widest))
            assert peer.asks(FlowStatsRequest()).flows[0].flow == longest
            assert peer.asks(GroupDescRequest()).groups == (widest,)
        else:
            assert peer.is_refused(add(longest)) == (2, 7)
            assert peer.is_refused(new(widest)) == (2, 7)


# -- together -------------------------------------------------------------------------------------


def test_a_group_the_datapath_refuses_is_told_and_the_flows_that_need_it_are_too():
    talk = Conversation()
    talk.datapath.refused_groups[2] = (2, 0)
    peer = talk.connect()
    mods = (new(group(1)), new(group(2)), add(grouped(1, 1)), add(grouped(2, 2)))
    for xid, mod in enumerate(mods, 1):
        talk.held = True
        peer.says(mod, xid=xid)
    talk.held = False
    talk.answer()
    peer.says(BarrierRequest(), xid=9)
    told = [(xid, getattr(m, "type", None), getattr(m, "code", None)) for xid, m in peer.hears()]
    assert told == [(2, 2, 0), (4, 2, 9), (9, None, None)]
    assert priorities(talk) == {1}
    assert set(talk.datapath.group_table) == {1}


def test_a_meter_the_datapath_refuses_is_told_and_nothing_has_changed():
    talk = Conversation()
    talk.datapath.refused_meters[1] = (12, 8)
    peer = talk.connect()
    assert peer.is_refused(new(meter(1))) == (12, 8)
    assert peer.is_refused(add(metered(1, 1))) == (12, 2)
    assert peer.asks(MeterConfigRequest()) == MeterConfigReply()


def control(step: BundleControlType) -> BundleControl:
    return BundleControl(1, step, 3)


def bundle(peer, *messages):
    """Open, fill and commit; what the switch says to that."""
    peer.asks(control(BundleControlType.OPEN_REQUEST))
    peer.says(*(BundleAdd(1, message, 3) for message in messages), xid=70)
    refused = [answer for _, answer in peer.hears()]
    peer.says(control(BundleControlType.COMMIT_REQUEST), xid=71)
    return refused + [answer for _, answer in peer.hears()]


def test_a_bundle_of_groups_meters_and_flows_is_one_change():
    talk = Conversation()
    peer = talk.connect()
    both = Flow(0, 1, match(), Instructions(apply=(ToGroup(1),), meter=1))
    answers = bundle(peer, new(group(1)), new(meter(1)), add(both))
    assert answers == [control(BundleControlType.COMMIT_REPLY)]
    assert talk.datapath.changes == [Change(put=(both,), put_groups=(group(1),), put_meters=(meter(1),))]


@pytest.mark.parametrize(
    ("last", "error"), [(add(grouped(9, 5)), (2, 9)), (new(group(1)), (6, 0)), (new(meter(7)), (12, 8))]
)
def test_a_bundle_with_one_fault_leaves_groups_meters_and_flows_as_they_were(last, error):
    talk = Conversation()
    talk.datapath.refused_meters[7] = (12, 8)
    peer = talk.connect()
    done(peer, new(group(1)), new(meter(1)), add(grouped(1, 1)), add(metered(2, 1)))
    before = (talk.datapath.installed, talk.datapath.group_table, talk.datapath.meter_table)
    own, whole = bundle(peer, no_meter(), no_group(1), new(group(1, SELECT)), last)
    assert isinstance(own, Error)
    assert (own.type, own.code) == error
    assert (whole.type, whole.code) == (0xFFFF, 2313)
    assert (talk.datapath.installed, talk.datapath.group_table, talk.datapath.meter_table) == before
    assert len(peer.asks(FlowStatsRequest()).flows) == 2
    assert peer.asks(GroupDescRequest()) == GroupDescReply((group(1),))
    assert peer.asks(MeterConfigRequest()) == MeterConfigReply((meter(1),))
    done(peer, no_meter(), no_group())  # and they still know which flows used them
    assert priorities(talk) == set()


def test_a_flow_that_a_bundle_adds_and_takes_away_was_never_there():
    talk = Conversation()
    peer = talk.connect()
    done(peer, new(group(1)))
    fleeting = add(grouped(1, 1, flags=FlowFlag.SEND_FLOW_REM))
    assert bundle(peer, fleeting, no_group(1)) == [control(BundleControlType.COMMIT_REPLY)]
    assert talk.datapath.changes[-1] == Change(remove_groups=(1,))


def test_port_mods_are_refused_in_bundles():
    peer = Conversation().connect()
    refused, failed = bundle(peer, PortMod(1, 0))
    assert (refused.type, refused.code) == (0xFFFF, 2310)
    assert (failed.type, failed.code) == (0xFFFF, 2313)


def test_a_slave_changes_neither_groups_nor_meters():
    peer = Conversation().connect()
    peer.asks(RoleRequest(Role.SLAVE, 1))
    assert peer.is_refused(new(group(1))) == (1, 10)
    assert peer.is_refused(new(meter(1))) == (1, 10)


def test_a_change_under_way_is_told_whole_or_not_at_all():
    talk = Conversation(held=True)
    busy, curious = talk.connect(), talk.connect()
    busy.says(new(group(1)))
    curious.says(GroupDescRequest())
    assert curious.hears() == []
    talk.datapath.refused_groups[1] = (6, 3)
    talk.answer()
    assert [reply for _, reply in curious.hears()] == [GroupDescReply()]
