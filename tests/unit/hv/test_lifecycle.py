from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnet.hv.lifecycle import SHOWN, TABLE, Action, Event, Phase, attempts, step
from vnet.hv.spec import GuestState

STARTING = [phase for phase, shown in SHOWN.items() if shown is GuestState.STARTING]
STARTING = [phase for phase in STARTING if phase not in (Phase.RESETTING, Phase.REJOINING)]
SAVING = {Phase.SAVING, Phase.SAVING_PAUSED}
UP = {Phase.RUNNING, Phase.PAUSING, Phase.PAUSED, Phase.RESUMING, Phase.RESETTING, Phase.REJOINING} | SAVING


def run(phase, *events):
    """The actions that a row of events leads to, and the phase at the end."""
    actions = []
    for event in events:
        phase, action = step(phase, event)
        actions.append(action)
    return phase, actions


def test_a_clone_is_launched_loaded_plugged_woken_and_configured():
    phase, actions = run(Phase.ABSENT, Event.START_CLONE, *[Event.DONE] * 6)
    assert phase is Phase.RUNNING
    assert actions == [
        Action.LAUNCH_CLONE,
        Action.LOAD,
        Action.PLUG,
        Action.AWAIT_AGENT,
        Action.CONFIGURE,
        Action.ANNOUNCE,
        Action.NOTHING,
    ]


def test_a_cold_boot_has_its_nics_from_the_start():
    phase, actions = run(Phase.ABSENT, Event.START_COLD, *[Event.DONE] * 4)
    assert phase is Phase.RUNNING
    assert Action.PLUG not in actions and Action.LOAD not in actions


@pytest.mark.parametrize("phase", STARTING)
@pytest.mark.parametrize("event", [Event.FAILED, Event.STOP])
def test_a_start_that_fails_or_is_broken_off_leaves_nothing(phase, event):
    assert run(phase, event, Event.DONE, Event.DONE) == (
        Phase.ABSENT,
        [Action.KILL, Action.CLEAN, Action.NOTHING],
    )


def test_a_guest_that_does_not_power_off_is_killed():
    assert run(Phase.RUNNING, Event.STOP, Event.FAILED, Event.DONE) == (
        Phase.ABSENT,
        [Action.POWER_DOWN, Action.KILL, Action.CLEAN],
    )


def test_a_guest_that_powers_off_is_not_killed():
    assert run(Phase.RUNNING, Event.STOP, Event.DONE, Event.DONE) == (
        Phase.ABSENT,
        [Action.POWER_DOWN, Action.QUIT, Action.CLEAN],
    )


def test_only_a_death_nobody_asked_for_is_a_crash():
    for phase in Phase:
        if (phase, Event.DIED) in TABLE:
            after, _ = step(phase, Event.DIED)
            assert (after is Phase.CRASHED) == (phase in UP)


def test_what_qemu_refuses_changes_nothing():
    for phase, asked in (
        (Phase.RUNNING, Event.PAUSE),
        (Phase.PAUSED, Event.RESUME),
        (Phase.RUNNING, Event.RESET),
    ):
        assert run(phase, asked, Event.FAILED)[0] is phase


def test_who_is_halted_for_a_disk_stands_still_and_is_watched():
    for phase in (Phase.RUNNING, Phase.PAUSED):
        assert run(phase, Event.HALTED, Event.DONE) == (Phase.PAUSED, [Action.ANNOUNCE, Action.NOTHING])


def test_who_boots_again_is_configured_again():
    for asked in (Event.RESET, Event.REBOOTED):
        phase, actions = run(Phase.RUNNING, asked, *[Event.DONE] * 4)
        assert phase is Phase.RUNNING
        assert actions[1:] == [Action.AWAIT_AGENT, Action.CONFIGURE, Action.ANNOUNCE, Action.NOTHING]


def test_a_saved_guest_is_loaded_and_stands_still_until_it_is_told_to_go_on():
    phase, actions = run(Phase.SUSPENDED, Event.START_SAVED, Event.DONE, Event.DONE)
    assert (phase, actions) == (Phase.LOADED, [Action.LAUNCH_SAVED, Action.LOAD_SAVED, Action.NOTHING])
    phase, actions = run(phase, Event.RESUME, *[Event.DONE] * 4)
    assert phase is Phase.RUNNING
    assert actions[:3] == [Action.CONTINUE, Action.AWAIT_AGENT, Action.CONFIGURE]


def test_who_goes_on_with_memory_that_is_nowhere_else_is_not_ended_for_an_agent_that_is_silent():
    phase, actions = run(Phase.LOADED, Event.RESUME, Event.DONE, Event.FAILED, Event.DONE)
    assert phase is Phase.RUNNING
    assert actions == [Action.CONTINUE, Action.AWAIT_AGENT, Action.ANNOUNCE, Action.NOTHING]
    assert run(Phase.LOADED, Event.RESUME, Event.FAILED)[1] == [Action.CONTINUE, Action.KILL]


def test_saving_leaves_a_guest_as_it_was():
    for phase in (Phase.RUNNING, Phase.PAUSED):
        assert run(phase, Event.SAVE, Event.SAVED) == (phase, [Action.NOTHING, Action.NOTHING])


def test_a_suspended_guest_stays_so_until_it_is_started_or_its_memory_is_gone():
    assert run(Phase.RUNNING, Event.SAVE, Event.SUSPEND, Event.DONE, Event.DONE) == (
        Phase.SUSPENDED,
        [Action.NOTHING, Action.QUIT, Action.CLEAN, Action.NOTHING],
    )
    assert step(Phase.SUSPENDED, Event.STOP) == (Phase.SUSPENDED, Action.NOTHING)
    assert step(Phase.SUSPENDED, Event.FORGOTTEN)[0] is Phase.ABSENT
    assert step(Phase.SUSPENDED, Event.START_COLD) == step(Phase.ABSENT, Event.START_COLD)


def test_a_crashed_guest_can_be_started_again():
    assert step(Phase.CRASHED, Event.START_CLONE) == step(Phase.ABSENT, Event.START_CLONE)


def test_every_phase_but_the_end_ones_can_be_stopped():
    assert {phase for phase in Phase if (phase, Event.STOP) in TABLE} == set(Phase)


def test_every_phase_has_something_to_show():
    assert set(SHOWN) == set(Phase)


def test_every_phase_and_action_is_reachable():
    reached, seen = {Phase.ABSENT}, set()
    for _ in Phase:
        reached |= {after for (before, _), (after, _) in TABLE.items() if before in reached}
    seen = {action for (before, _), (_, action) in TABLE.items() if before in reached}
    assert reached == set(Phase)
    assert seen == set(Action)


def test_every_action_can_be_done_and_those_that_wait_for_others_can_fail():
    for after, action in TABLE.values():
        if action is not Action.NOTHING:
            assert (after, Event.DONE) in TABLE, (after, action)
        if action not in (Action.NOTHING, Action.CLEAN):
            assert (after, Event.FAILED) in TABLE, (after, action)


@given(st.lists(st.sampled_from([Event.DONE, Event.FAILED, Event.DIED, Event.STOP]), max_size=30))
def test_whatever_happens_a_process_is_launched_only_when_there_is_none(events):
    phase, running = Phase.ABSENT, False
    for event in itertools.chain([Event.START_CLONE], events, [Event.STOP, Event.DONE, Event.DONE]):
        if (phase, event) not in TABLE:
            continue
        phase, action = step(phase, event)
        if action in (Action.LAUNCH_CLONE, Action.LAUNCH_COLD, Action.LAUNCH_SAVED):
            assert not running
            running = True
        if action is Action.CLEAN:
            running = False
    if phase in (Phase.ABSENT, Phase.CRASHED):
        assert not running


def test_a_clone_that_fails_is_booted_and_a_boot_is_tried_twice():
    assert attempts(template=True) == (Event.START_CLONE, Event.START_COLD)
    assert attempts(template=False) == (Event.START_COLD, Event.START_COLD)


def test_an_event_that_cannot_happen_is_a_bug():
    with pytest.raises(AssertionError, match="LOADING"):
        step(Phase.LOADING, Event.ADOPT)


def test_who_has_no_agent_runs_as_soon_as_it_is_launched_or_reset():
    phase, actions = run(Phase.ABSENT, Event.START_COLD, Event.DONE, Event.SILENT, Event.DONE)
    assert phase is Phase.RUNNING
    assert actions == [Action.LAUNCH_COLD, Action.AWAIT_AGENT, Action.ANNOUNCE, Action.NOTHING]
    for asked in (Event.RESET, Event.REBOOTED):
        phase, actions = run(Phase.RUNNING, asked, Event.DONE, Event.SILENT, Event.DONE)
        assert phase is Phase.RUNNING
        assert actions[1:] == [Action.AWAIT_AGENT, Action.ANNOUNCE, Action.NOTHING]
