"""Which changes of a guest are made while it runs, in which steps, and how they are taken back."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface, ip_address

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.hv.machines import MIB, nic, spec
from vnet.base.boot import Boot, ImageSource
from vnet.hv import changing
from vnet.hv.built import Places, built_for, places_at_start, unchangeable
from vnet.hv.changing import How
from vnet.hv.disk import Disk
from vnet.hv.identity import change_lines

WEB = spec()
BUILT = built_for(1, 96 * MIB, 1, "tcg")
DATA = Disk("data", 64 * MIB)


def told(new, built=BUILT, old=WEB):
    return [f"{each.what} ({each.how})" for each in changing.differences(old, new, built)]


def test_more_cpus_and_memory_are_live_as_far_as_the_machine_was_built_for_them():
    assert told(replace(WEB, cpus=4, memory_bytes=256 * MIB)) == [
        "cpus 1 → 4 (live)",
        "memory 96M → 256M (live)",
    ]
    assert told(replace(WEB, cpus=5, memory_bytes=2048 * MIB)) == [
        "cpus 1 → 5 (restart)",
        "memory 96M → 2048M (restart)",
    ]


def test_what_was_added_can_be_taken_away_again_but_nothing_of_what_a_guest_was_started_with():
    grown = replace(WEB, cpus=2, memory_bytes=256 * MIB)
    assert told(WEB, old=grown) == ["cpus 2 → 1 (restart)", "memory 256M → 96M (live)"]
    assert told(replace(grown, memory_bytes=80 * MIB), old=grown) == ["memory 256M → 80M (restart)"]


def test_memory_comes_in_blocks():
    assert told(replace(WEB, memory_bytes=97 * MIB)) == ["memory 96M → 97M (restart)"]


def test_under_tcg_a_guest_with_several_cpus_gets_more_only_by_a_restart():
    two = replace(WEB, cpus=2)
    assert told(replace(two, cpus=3), built_for(2, 96 * MIB, 1, "tcg"), two) == ["cpus 2 → 3 (restart)"]
    assert told(replace(two, cpus=3), built_for(2, 96 * MIB, 1, "kvm"), two) == ["cpus 2 → 3 (live)"]


def test_nics_and_disks_come_and_go_live_as_long_as_there_are_slots():
    more = replace(spec(2), disks=(DATA,))
    assert told(more) == ["eth1 is new (live)", "disk data is new (live)"]
    assert told(WEB, old=more) == ["eth1 goes (live)", "disk data goes, and is kept (live)"]
    assert told(spec(8))[-1] == "8 NICs and disks need more slots than there are (restart)"
    assert told(spec(7))[-1] == "eth6 is new (live)"


def test_a_guest_of_an_earlier_version_grows_by_a_restart():
    old = unchangeable(1, 96 * MIB)
    assert {each.how for each in changing.differences(WEB, replace(spec(2), cpus=2), old)} >= {How.RESTART}


def test_another_image_is_another_guest_and_so_is_what_nobody_knows_how_to_change():
    assert told(replace(WEB, image="debian")) == ["image micro → debian (re-create)"]
    assert told(replace(WEB, name="other")) == ["it is made otherwise (re-create)"]


def test_a_guest_without_vnet_s_agent_is_not_told_and_the_plan_says_so():
    debian = Boot(ImageSource("debian"))
    one, two = (replace(spec(count), image="debian", boot=debian) for count in (1, 2))
    built = built_for(1, 96 * MIB, 1, "tcg", grows=False)
    assert told(two, built, one) == ["eth1 is new, which its guest has to configure itself (live)"]
    assert told(replace(one, memory_bytes=128 * MIB), built, one) == ["memory 96M → 128M (restart)"]
    assert [type(step) for step in changing.steps(one, two)] == [changing.AttachNic]


def test_a_disk_that_takes_its_room_at_once_grows_by_a_restart():
    full = replace(DATA, is_full=True)
    old, new = (replace(WEB, disks=(replace(full, size_bytes=size * MIB),)) for size in (64, 96))
    assert told(new, old=old) == ["disk data 64M → 96M (restart)"]


def test_a_change_takes_as_much_as_the_field_that_takes_most():
    new = replace(WEB, cpus=9, memory_bytes=128 * MIB)
    assert changing.most(changing.differences(WEB, new, BUILT)) is How.RESTART
    assert changing.most(()) is How.LIVE


# -- steps --------------------------------------------------------------------------------------------

NICS = [nic(n) for n in range(3)]
NICS += [replace(nic(1), mac=0x525400AAAAAA), replace(nic(1), addresses=(IPv4Interface("10.9.9.9/24"),))]
DISKS = [DATA, replace(DATA, size_bytes=96 * MIB), Disk("data", 64 * MIB, "raw"), Disk("logs", 32 * MIB)]


@st.composite
def specs(draw):
    nics = draw(st.lists(st.sampled_from(NICS), max_size=3, unique_by=lambda each: each.interface))
    disks = draw(st.lists(st.sampled_from(DISKS), max_size=2, unique_by=lambda each: each.name))
    memory, cpus = draw(st.sampled_from([96, 128, 160])), draw(st.integers(1, 3))
    return replace(WEB, cpus=cpus, memory_bytes=memory * MIB, nics=tuple(nics), disks=tuple(disks))


def alike(one, other):
    """In whatever order their devices are named."""
    return (one.cpus, one.memory_bytes, set(one.nics), set(one.disks)) == (
        other.cpus,
        other.memory_bytes,
        set(other.nics),
        set(other.disks),
    )


@given(specs(), specs())
def test_the_steps_lead_from_the_one_guest_to_the_other(old, new):
    new = replace(new, cpus=max(old.cpus, new.cpus))
    guest = old
    for step in changing.steps(old, new):
        guest = changing.done(step, guest)
    assert alike(guest, new)


@given(specs())
def test_no_step_is_taken_where_nothing_differs(one):
    assert changing.steps(one, one) == ()


@given(specs(), specs(), st.integers(0, 10))
def test_a_change_is_taken_back_from_wherever_it_has_ended(old, new, count):
    new = replace(new, cpus=max(old.cpus, new.cpus))
    guest = old
    for step in [each for each in changing.steps(old, new) if not isinstance(each, changing.AddCpus)][:count]:
        guest = changing.done(step, guest)
    for step in changing.steps_from(guest, old, told=new):
        guest = changing.done(step, guest)
    assert alike(guest, old)


@given(specs(), specs(), st.integers(0, 10))
def test_a_change_is_completed_from_wherever_it_was_broken_off(old, new, count):
    """By what the machine has: what its guest was told, nobody knows."""
    new = replace(new, cpus=max(old.cpus, new.cpus))
    guest, steps = old, changing.steps(old, new)
    for step in steps[:count]:
        guest = changing.done(step, guest)
    nics = tuple((each.interface, each.mac) for each in guest.nics)
    has = changing.Has(guest.cpus, nics, tuple(each.file for each in guest.disks))
    found = changing.standing(old, new, has, guest.memory_bytes)
    rest = changing.steps_from(found, new, told=old)
    for step in rest:
        found = changing.done(step, found)
    assert alike(found, new)
    repeated = changing.Tell | changing.AddCpus | changing.ResizeDisk
    assert {each for each in steps if isinstance(each, repeated)} <= set(rest)
    assert [each for each in rest if not isinstance(each, repeated)] == [
        each for each in steps[count:] if not isinstance(each, repeated)
    ]


@given(specs(), specs())
def test_a_guest_is_told_once_what_it_has_after_its_devices_have_changed(old, new):
    steps = changing.steps(old, replace(new, cpus=max(old.cpus, new.cpus)))
    tells = [number for number, step in enumerate(steps) if isinstance(step, changing.Tell)]
    devices = [
        number
        for number, step in enumerate(steps)
        if isinstance(step, changing.AttachNic | changing.DetachNic | changing.AttachDisk)
    ]
    assert len(tells) <= 1
    assert not devices or devices[-1] < tells[0]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), max_size=12))
def test_no_two_devices_have_the_same_place(changes):
    places = places_at_start(["eth0", "eth1"], ["d0", "d1"])
    for is_nic, number in changes:
        name = f"{'eth' if is_nic else 'd'}{number}"
        there = name in [each[0] for each in (places.nics if is_nic else places.disks)]
        if is_nic:
            places = places.without_nic(name) if there else places.with_nic(name)
        else:
            places = places.without_disk(name) if there else places.with_disk(name)
    slots = [slot for _, slot in places.nics] + [slot for *_, slot in places.disks]
    assert len(set(slots)) == len(slots)
    assert len({index for _, index, _ in places.disks}) == len(places.disks)
    assert not slots or max(slots) < len(slots) + 4


def test_a_place_that_is_free_again_is_the_next_to_be_taken():
    places = places_at_start(["eth0", "eth1"], ["data"]).without_nic("eth0").with_disk("logs")
    assert places == Places((("eth1", 1),), (("data", 0, 2), ("logs", 1, 0)))


# -- what the guest is told ---------------------------------------------------------------------------


def lines(old, new):
    return change_lines(old, new).decode().splitlines()


def test_a_nic_in_another_network_forgets_what_it_was_given_and_others_are_left_alone():
    old = spec(2)
    moved = replace(nic(1), addresses=(IPv4Interface("10.20.20.5/24"),))
    new = replace(old, nics=(nic(0), moved))
    found = lines(old, new)
    assert found[0] == "forget eth1"
    assert "address eth1 10.20.20.5/24" in found
    assert "forget eth0" not in found


def test_an_address_more_or_less_breaks_no_connection_of_the_others():
    v4, v6 = nic().addresses
    old, new = spec(), replace(spec(), nics=(replace(nic(), addresses=(v4,)),))
    assert lines(old, new)[0] == f"unaddress eth0 {v6}"
    assert not any(line.startswith("forget") for line in lines(old, new) + lines(new, old))


def test_a_gateway_that_is_no_more_is_taken_out():
    through = replace(spec(), nics=(replace(nic(), gateways=(ip_address("10.10.10.1"),)),))
    assert lines(through, spec())[0] == "ungateway eth0 10.10.10.1"


def test_a_nic_that_is_gone_and_a_disk_that_is_gone_are_forgotten():
    assert lines(replace(spec(2), disks=(DATA,)), spec())[:2] == ["forget eth1", "undisk data"]
