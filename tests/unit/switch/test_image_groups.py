"""Groups and meters in the map image: entries that stay, slots that turn, room that is given back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.switch.maps import Maps
from vnet.openflow.flow import Flow, Instructions, Match, Output, PopVlan, SetField, ToGroup, match
from vnet.openflow.group import Band, BandType, Bucket, Group, GroupType, Meter, MeterFlag
from vnet.openflow.message import BadAction, ErrorType, FlowModFailed, GroupModFailed, MeterModFailed
from vnet.switch import abi, room
from vnet.switch.datapath import Change, GroupKey, MeterKey, Refused
from vnet.switch.image import Image
from vnet.switch.lower import ALWAYS
from vnet.switch.lower_actions import GroupRef, MeterRef
from vnet.switch.placed import Staged
from vnet.switch.staging import stage

PORTS = (1, 2, 5)
TABLE_FULL = FlowModFailed.TABLE_FULL


def group(number: int, *ports: int) -> Group:
    return Group(number, GroupType.ALL, tuple(Bucket((Output(port),)) for port in ports))


def meter(number: int, rate: int = 10) -> Meter:
    return Meter(number, MeterFlag.KBPS, (Band(BandType.DROP, rate),))


IN_PORT = match(in_port=1)


def flow(priority: int = 1, to: int | None = None, by: int | None = None, wanted: Match = IN_PORT) -> Flow:
    apply = (ToGroup(to),) if to else (Output(1),)
    return Flow(0, priority, wanted, Instructions(apply, meter=by))


def change(*values: Flow | Group | Meter, gone: tuple[Flow | Group | Meter, ...] = ()) -> Change:
    return Change(
        tuple(v for v in values if isinstance(v, Flow)),
        tuple(v.key for v in gone if isinstance(v, Flow)),
        tuple(v for v in values if isinstance(v, Group)),
        tuple(v.number for v in gone if isinstance(v, Group)),
        tuple(v for v in values if isinstance(v, Meter)),
        tuple(v.number for v in gone if isinstance(v, Meter)),
    )


def done(image: Image, change: Change) -> Staged:
    staged = stage(image, change)
    image.finish(staged)
    return staged


def refusal(image: Image, change: Change) -> tuple[int, int, object]:
    """What a change is refused with; nothing that others see has changed."""

    def state() -> tuple[object, ...]:
        entries = dict(image.references.groups), dict(image.references.meters)
        values = dict(image.placed), dict(image.groups), dict(image.meters)
        return image.version, entries, values, dict(image.classifier.masks), image.classifier.reads

    before = state()
    with pytest.raises(Refused) as refused:
        stage(image, change)
    assert state() == before
    return refused.value.error_type, refused.value.code, refused.value.key


# -- entries and slots ----------------------------------------------------------------------------


def test_a_group_keeps_its_entry_and_rules_refer_to_that() -> None:
    image = Image()
    first = done(image, change(group(7, 1), flow(to=7)))
    second = done(image, change(group(7, 2, 5)))
    ((one,), (other,)) = first.groups, second.groups
    assert one.entry == other.entry == second.references.groups[7]
    assert second.retired_groups == (one,)
    assert one.slot != other.slot
    assert second.rules == (), "the flow is as it was"


def test_what_a_group_held_is_used_again_only_after_the_grace_period() -> None:
    image = Image()
    (one,) = done(image, change(group(7, 1, 2))).groups
    second = stage(image, change(group(7, 1, 2)))
    (other,) = second.groups
    assert not {*one.rules} & {*other.rules}
    assert one.first_bucket + 2 <= other.first_bucket
    image.finish(second)
    (third,) = done(image, change(group(7, 1, 2))).groups
    assert third.slot == one.slot
    assert third.first_bucket == one.first_bucket


def test_an_entry_is_used_again_only_after_the_grace_period() -> None:
    image = Image()
    (one,) = done(image, change(group(7, 1))).groups
    gone = stage(image, change(gone=(group(7),)))
    ((entry, variant, shown, version),) = [(w.entry, w.variant, w.rule, w.version) for w in gone.entries]
    assert (entry, shown, version) == (one.entry, 0, gone.version)
    assert variant == 1, "the variant that packets do not read"
    image.finish(gone)
    assert image.references.groups == {}
    assert done(image, change(group(9, 1))).groups[0].entry == one.entry


def test_a_meter_turns_between_two_slots() -> None:
    image = Image()
    slots = [done(image, change(meter(4, rate))).meters[0].slot for rate in (1, 2, 3, 4)]
    assert len(set(slots[:2])) == 2
    assert slots[:2] == slots[2:]
    gone = done(image, change(gone=(meter(4),)))
    assert [placed.slot for placed in gone.retired_meters] == [slots[3]]
    assert [(w.map, w.rule) for w in gone.entries] == [("meter_entries", 0)]


def test_of_two_groups_with_one_number_the_last_is_put() -> None:
    image = Image()
    staged = done(image, change(group(7, 1), group(7, 2)))
    assert [placed.group for placed in staged.groups] == [group(7, 2)]


# -- refusals -------------------------------------------------------------------------------------


def test_what_flows_refer_to_must_be_there_after_the_change() -> None:
    image = Image()
    done(image, change(group(1, 1), meter(1)))
    no_group = (ErrorType.BAD_ACTION, BadAction.BAD_OUT_GROUP)
    no_meter = (ErrorType.METER_MOD_FAILED, MeterModFailed.UNKNOWN_METER)
    assert refusal(image, change(flow(to=2))) == (*no_group, flow().key)
    assert refusal(image, change(flow(by=2))) == (*no_meter, flow().key)
    assert refusal(image, change(flow(to=1), gone=(group(1),)))[:2] == no_group
    assert refusal(image, change(flow(by=1), gone=(meter(1),)))[:2] == no_meter
    done(image, change(flow(1, to=2, by=2), group(2, 1), meter(2)))
    done(image, change(flow(2, to=1, by=1), group(1, 2), meter(1, 2), gone=(group(1), meter(1))))


def test_what_buckets_refer_to_must_be_there_after_the_change() -> None:
    image = Image()
    chained = Group(2, GroupType.ALL, (Bucket((ToGroup(1),)),))
    no_group = (ErrorType.BAD_ACTION, BadAction.BAD_OUT_GROUP, GroupKey(2))
    assert refusal(image, change(chained)) == no_group
    done(image, change(chained, group(1, 1)))
    assert refusal(image, change(chained, gone=(group(1),))) == no_group


def test_a_controllers_packet_refers_to_what_is_there() -> None:
    image = Image()
    done(image, change(group(1, 1), meter(1)))
    image.check_references((GroupRef(1), MeterRef(1)), None)
    for record in (GroupRef(2), MeterRef(2)):
        with pytest.raises(Refused):
            image.check_references((record,), None)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Image:
    """An image with room for little: 3 groups, 2 meters, 9 rules, 8 actions, 5 masks, a list of two ports."""
    few = {"GROUPS": 3, "METERS": 2, "RULES": 10, "MASKS": 5, "OUTPUTS": room.FIRST_LIST + 3}
    for name, value in few.items():
        monkeypatch.setattr(abi, name, value)
    monkeypatch.setattr(room, "FLOW_ACTIONS", 8)
    return Image()


def test_a_group_or_meter_too_many_is_refused_by_its_number(small: Image) -> None:
    done(small, change(*(group(n, 1) for n in (1, 2, 3)), meter(1), meter(2)))
    out_of_groups = (ErrorType.GROUP_MOD_FAILED, GroupModFailed.OUT_OF_GROUPS, GroupKey(9))
    assert refusal(small, change(group(1, 2), group(9, 1))) == out_of_groups
    out_of_meters = (ErrorType.METER_MOD_FAILED, MeterModFailed.OUT_OF_METERS, MeterKey(9))
    assert refusal(small, change(group(1, 2), meter(9))) == out_of_meters
    done(small, change(gone=(group(2), meter(2))))
    done(small, change(group(9, 1), meter(9)))


def test_a_refused_change_gives_all_back_that_it_had_taken(small: Image) -> None:
    """Else a few refusals would fill the switch: after many, as much fits as before."""
    done(small, change(group(1, 1), meter(1)))
    long = Bucket((SetField("ipv6_src", 1), SetField("ipv6_dst", 1), Output(1)))
    wide = Group(3, GroupType.ALL, (long, long))
    for _ in range(20):
        assert refusal(small, change(flow(), group(1, 2), group(2, 1), meter(2), wide))[2] == GroupKey(3)
        assert refusal(small, change(group(2, 1, 2, 5), meter(2), *map(flow, range(5))))[1] == TABLE_FULL
        assert refusal(small, change(meter(2), meter(3)))[2] == MeterKey(3)
    done(small, change(group(2, 1, 2), meter(2), *map(flow, range(2))))
    assert refusal(small, change(group(3, 1, 2)))[2] == GroupKey(3)
    done(small, change(group(3, 1)))
    done(small, change(meter(2, 5)))


def test_lists_that_do_not_fit_leave_the_actions_where_they_were(small: Image) -> None:
    several = (Output(1), Output(2), PopVlan(), Output(1), Output(2))
    for _ in range(20):
        assert refusal(small, change(Flow(0, 1, instructions=Instructions(several))))[1] == TABLE_FULL
    done(small, change(Flow(0, 1, instructions=Instructions(several[:2]))))


def test_what_comes_and_goes_leaves_nothing_behind(small: Image) -> None:
    for number in range(20):
        everything = (
            group(number, 1, 2),
            meter(number),
            *(flow(1, wanted=match(eth_dst=(0, 1 << n))) for n in range(4)),
        )
        done(small, change(*everything))
        done(small, change(gone=everything))


# -- banks ----------------------------------------------------------------------------------------


def test_the_list_of_all_ports_is_written_to_both_banks_and_then_no_more() -> None:
    image = Image(ports=(5, 1, 2))
    lists = [done(image, change(flow(n))).lists for n in range(4)]
    assert lists == [((0, PORTS),), ((abi.PORTS, PORTS),), (), ()]
    image.ports = (1, 2)
    assert [done(image, Change()).lists for _ in range(3)] == [((0, (1, 2)),), ((abi.PORTS, (1, 2)),), ()]


def test_what_rules_read_is_written_to_both_banks_and_then_no_more() -> None:
    image = Image()
    first = done(image, Change()).reads
    assert (first, done(image, Change()).reads, done(image, Change()).reads) == (ALWAYS, ALWAYS, None)
    told = [
        done(image, change(Flow(0, 1, match(eth_dst=(1, 1))))).reads,
        *(done(image, Change()).reads for _ in "12"),
    ]
    assert told[0] == told[1] != ALWAYS
    assert told[2] is None


def test_output_lists_of_flows_and_buckets_lie_behind_those_of_all_ports() -> None:
    several = Flow(0, 1, instructions=Instructions((Output(1), Output(2))))
    staged = done(Image(), change(several, group(1, 1)))
    ((start, ports),) = staged.lists[1:]
    assert (start, ports) == (room.FIRST_LIST, (1, 2))
    assert staged.rules[0].actions.lists == ((room.FIRST_LIST, 3),)


# -- everything together --------------------------------------------------------------------------

numbers = st.integers(1, 3)
writing = st.builds(
    lambda number: Group(number, GroupType.ALL, (Bucket((SetField("eth_dst", 5), Output(1))),)), numbers
)
groups = st.builds(group, numbers, numbers) | st.builds(group, numbers, numbers, numbers) | writing
meters = st.builds(meter, st.integers(1, 2), st.integers(1, 3))
matches = st.sampled_from([IN_PORT, match(in_port=2), match(eth_src=1), match(eth_src=(2, 3)), match()])
flows = st.builds(flow, numbers, st.none() | numbers, st.none() | st.integers(1, 2), matches)
values = st.lists(groups | meters | flows, max_size=5)


@settings(max_examples=150)
@given(st.lists(st.tuples(values, values, st.booleans()), max_size=10))
def test_packets_meet_old_or_new_groups_and_meters_and_an_agent_that_starts_anew_goes_on(
    steps: list[tuple[list[Flow | Group | Meter], list[Flow | Group | Meter], bool]],
) -> None:
    image, maps = Image(ports=PORTS), Maps()
    flows_, groups_, meters_ = {}, dict[int, Group](), dict[int, Meter]()
    for put, gone, restarted in steps:
        wanted = change(*put, gone=tuple(gone))
        before = seen(image, maps)
        try:
            staged = stage(image, wanted)
        except Refused:
            assert seen(image, maps) == before
            continue
        maps.write(staged)
        assert maps.visible() == before[0]
        image.finish(staged)
        maps.finish(staged)
        flows_ = {key: value for key, value in flows_.items() if key not in wanted.remove}
        flows_ |= {value.key: value for value in wanted.put}
        groups_ = {n: value for n, value in groups_.items() if n not in wanted.remove_groups}
        groups_ |= {value.number: value for value in wanted.put_groups}
        meters_ = {n: value for n, value in meters_.items() if n not in wanted.remove_meters}
        meters_ |= {value.number: value for value in wanted.put_meters}
        if restarted:
            image = maps.adopted(PORTS)
        assert set(image.flows) == set(flows_.values())
        best: dict[Match, Flow] = {}
        for one in sorted(flows_.values(), key=lambda one: one.priority):
            best[one.match] = one
        assert seen(image, maps) == (set(best.values()), groups_, meters_)
        assert maps.reads[maps.version & 1] == image.classifier.reads


def seen(image: Image, maps: Maps) -> tuple[set[Flow], dict[int, Group], dict[int, Meter]]:
    groups, meters = image.references.groups, image.references.meters
    return maps.visible(), maps.visible_groups(dict(groups)), maps.visible_meters(dict(meters))
