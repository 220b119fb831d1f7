"""The controller's session against a scripted switch: bytes and time only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.scripted_switch import ScriptedSwitch
from vnet.openflow import cookie, message
from vnet.openflow.codec import encode
from vnet.openflow.flow import (
    Conntrack,
    Flow,
    FlowFlag,
    Instructions,
    Move,
    Output,
    OutputField,
    PopVlan,
    PushVlan,
    SetField,
    match,
)
from vnet.openflow.message import BundleControlType, FlowCommand
from vnet.policy.difference import diff
from vnet.policy.session import (
    TRANSITIONS,
    Applied,
    Event,
    FlowsRead,
    Lost,
    Ready,
    Refusal,
    Refused,
    Seen,
    Session,
    State,
    Timing,
    Whose,
)

MINE = cookie.make("test")


def flow(table: int, priority: int, port: int = 1, owner: int = MINE, **wanted: int) -> Flow:
    return Flow(table, priority, match(**wanted), Instructions(apply=(Output(port),)), cookie=owner)


FLOWS = (flow(0, 1, in_port=1), flow(0, 2, in_port=2), flow(1, 7, eth_type=0x800), flow(1, 7, eth_type=0x806))
FOREIGN = (flow(0, 9, owner=0x5, in_port=9), flow(3, 1, owner=0))


def talk(session: Session, switch: ScriptedSwitch, now_s: float = 0.0) -> list[Event]:
    """Carry bytes both ways until nobody says anything more; returns the session's events."""
    happened: list[Event] = []
    while True:
        there, back = session.to_send(), switch.to_send()
        switch.receive(there)
        if back:
            session.receive(back, now_s)
        happened += session.events()
        if not there and not back:
            return happened


def ready(switch: ScriptedSwitch) -> Session:
    session = Session(0.0)
    switch.connect()
    assert talk(session, switch) == [Ready(0x42, 8)]
    return session


def apply(
    session: Session, switch: ScriptedSwitch, flows: Iterable[Flow], generation: int = 1
) -> list[Event]:
    switch.heard.clear()
    session.apply(flows, generation, 0.0)
    return talk(session, switch)


def flows_of(switch: ScriptedSwitch) -> set[Flow]:
    return set(switch.flows.values())


def test_flows_of_an_empty_switch_are_all_added() -> None:
    switch = ScriptedSwitch()
    assert apply(ready(switch), switch, FLOWS) == [Applied(1, added=4)]
    assert flows_of(switch) == set(FLOWS)


def test_only_the_difference_is_sent() -> None:
    switch = ScriptedSwitch.holding(FLOWS)
    wanted = (FLOWS[0], flow(0, 2, port=5, in_port=2), FLOWS[2], flow(2, 1))
    assert apply(ready(switch), switch, wanted, 7) == [Applied(7, added=1, changed=1, removed=1)]
    assert [mod.command for mod in switch.heard_mods()] == [
        FlowCommand.ADD,
        FlowCommand.MODIFY_STRICT,
        FlowCommand.DELETE_STRICT,
    ]
    assert flows_of(switch) == set(wanted)


def test_no_difference_sends_nothing_but_the_reading() -> None:
    switch = ScriptedSwitch.holding(FLOWS)
    assert apply(ready(switch), switch, reversed(FLOWS)) == [Applied(1)]
    assert [type(what) for what in switch.heard] == [message.FlowStatsRequest]


def test_a_new_cookie_replaces_the_flow_which_counts_anew() -> None:
    switch = ScriptedSwitch.holding(FLOWS)
    wanted = (replace(FLOWS[0], cookie=cookie.make("other")), *FLOWS[1:])
    assert apply(ready(switch), switch, wanted) == [Applied(1, changed=1)]
    (mod,) = switch.heard_mods()
    assert (mod.command, mod.flow.flags) == (FlowCommand.ADD, FlowFlag.RESET_COUNTS)
    assert flows_of(switch) == set(wanted)


def test_flows_of_other_cookies_are_left_alone() -> None:
    switch = ScriptedSwitch.holding(FLOWS + FOREIGN)
    session = ready(switch)
    assert apply(session, switch, ()) == [Applied(1, removed=4)]
    assert flows_of(switch) == set(FOREIGN)
    session.read_flows(0.0)
    assert talk(session, switch) == [FlowsRead(())]


def test_a_removal_spares_a_flow_that_changed_hands_meanwhile() -> None:
    switch = ScriptedSwitch.holding(FLOWS[:1])
    session = ready(switch)
    session.apply((), 1, 0.0)
    switch.receive(session.to_send())
    theirs = replace(FLOWS[0], cookie=0x5)
    switch.flows = {theirs.key: theirs}
    talk(session, switch)
    assert flows_of(switch) == {theirs}


def test_the_bundle_is_opened_filled_and_committed_between_barriers() -> None:
    switch = ScriptedSwitch()
    apply(ready(switch), switch, FLOWS[:1])
    words = [what.type if isinstance(what, message.BundleControl) else type(what) for what in switch.heard]
    assert words == [
        message.FlowStatsRequest,
        BundleControlType.OPEN_REQUEST,
        message.BundleAdd,
        message.BarrierRequest,
        BundleControlType.COMMIT_REQUEST,
        message.BarrierRequest,
    ]


def test_a_flow_the_switch_refuses_discards_the_whole_bundle() -> None:
    error = message.Error(message.ErrorType.BAD_ACTION, message.BadAction.BAD_OUT_PORT)
    switch = ScriptedSwitch(refuse=lambda mod: error if mod.flow.priority == 2 else None)
    session = ready(switch)
    refused = Refusal(message.ErrorType.BAD_ACTION, message.BadAction.BAD_OUT_PORT, FLOWS[1])
    assert apply(session, switch, FLOWS) == [Refused(1, (refused,))]
    assert str(refused) == "OpenFlow error BAD_ACTION code 4 (table 0, priority 2)"
    assert not switch.flows
    assert not switch.bundles
    assert session.state is State.READY


def test_a_refused_commit_is_told() -> None:
    switch = ScriptedSwitch(refuse_commit=message.Error(65535, 2313, experimenter=message.ONF))
    session = ready(switch)
    assert apply(session, switch, FLOWS) == [Refused(1, (Refusal(65535, 2313, None, message.ONF),))]
    switch.refuse_commit = None
    assert apply(session, switch, FLOWS, 2) == [Applied(2, added=4)]


def test_a_switch_without_bundles_refuses() -> None:
    switch = ScriptedSwitch(knows_bundles=False)
    session = ready(switch)
    assert apply(session, switch, FLOWS[:1]) == [
        Refused(1, (Refusal(1, 3, None), Refusal(1, 3, FLOWS[0]))),
    ]
    assert session.state is State.READY


def test_what_was_asked_before_the_handshake_is_done_after_it_in_order() -> None:
    switch, session = ScriptedSwitch(), Session(0.0)
    session.apply(FLOWS[:2], 1, 0.0)
    session.read_flows(0.0)
    session.apply((), 2, 0.0)
    switch.connect()
    assert talk(session, switch) == [
        Ready(0x42, 8),
        Applied(1, added=2),
        FlowsRead(FLOWS[:2]),
        Applied(2, removed=2),
    ]


def test_a_flow_without_vnets_cookie_is_not_accepted() -> None:
    with pytest.raises(ValueError, match="cookie 0x5 is not vnet's"):
        Session(0.0).apply(FOREIGN[:1], 1, 0.0)


def test_two_flows_of_one_key_are_not_accepted() -> None:
    with pytest.raises(ValueError, match="two flows of table 0, priority 1 with the same match"):
        Session(0.0).apply((flow(0, 1, port=1), flow(0, 1, port=2)), 1, 0.0)


@given(st.lists(st.integers(1, 60), max_size=60))
def test_any_split_of_the_stream_gives_the_same_events(cuts: list[int]) -> None:
    switch, session = ScriptedSwitch.holding(FLOWS), Session(0.0)
    switch.connect()
    session.apply(FLOWS[1:], 1, 0.0)
    happened: list[Event] = []
    while data := switch.to_send():
        for piece in _split(data, cuts):
            session.receive(piece, 0.0)
        happened += session.events()
        switch.receive(session.to_send())
    assert happened == [Ready(0x42, 8), Applied(1, removed=1)]


def _split(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    pieces = []
    for cut in cuts:
        pieces.append(data[:cut])
        data = data[cut:]
    return [piece for piece in (*pieces, data) if piece]


@given(st.binary(min_size=1, max_size=200))
def test_bad_bytes_never_raise(data: bytes) -> None:
    switch = ScriptedSwitch()
    session = ready(switch)
    session.receive(data, 0.0)
    assert session.state in (State.READY, State.LOST)


def test_bad_bytes_end_the_session_once() -> None:
    session = Session(0.0)
    session.receive(b"GET / HTTP/1.1\r\n\r\n" * 2000, 0.0)
    session.receive(b"more", 0.0)
    (lost,) = session.events()
    assert isinstance(lost, Lost)
    assert session.next_timer() is None


def test_a_switch_of_another_version_is_told_and_left() -> None:
    switch = ScriptedSwitch(hello=message.Hello(version=1, versions=()), silent=(message.Hello,))
    switch.connect()
    session = Session(0.0)
    assert talk(session, switch) == [Lost("the switch does not speak OpenFlow 1.3 (its version is 0x1)")]
    assert message.Error(message.ErrorType.HELLO_FAILED, 0) in switch.heard


def test_a_closed_socket_ends_the_session() -> None:
    session = ready(ScriptedSwitch())
    session.apply(FLOWS, 1, 0.0)
    session.receive(b"", 1.0)
    assert session.events() == (Lost("the switch closed the connection"),)


def test_an_idle_switch_is_asked_for_an_echo_and_lives_by_its_answer() -> None:
    switch, session = ScriptedSwitch(), Session(0.0, Timing(echo_s=5, dead_s=15))
    switch.connect()
    talk(session, switch, 1.0)
    for second in range(2, 100):
        session.tick(float(second))
        assert talk(session, switch, float(second)) == []
    asked = [what for what in switch.heard if isinstance(what, message.EchoRequest)]
    assert len(asked) == 19


def test_a_silent_switch_is_given_up_when_the_dead_timer_ends() -> None:
    switch, session = ScriptedSwitch(silent=(message.EchoRequest,)), Session(0.0, Timing(echo_s=5, dead_s=15))
    switch.connect()
    talk(session, switch, 0.0)
    times = []
    while (timer := session.next_timer()) is not None:
        times.append(timer)
        session.tick(timer)
        talk(session, switch, timer)
    assert times == [5, 10, 15]


def test_a_switch_that_answers_echoes_but_no_requests_is_given_up_too() -> None:
    switch = ScriptedSwitch(silent=(message.FlowStatsRequest,))
    session = ready(switch)
    session.apply(FLOWS, 1, 0.0)
    happened: list[Event] = []
    while (timer := session.next_timer()) is not None:
        session.tick(timer)
        happened += talk(session, switch, timer)
    assert happened == [Lost("no answer in 60 s while reading")]


def test_an_echo_request_is_answered_with_its_data_and_xid() -> None:
    session = ready(ScriptedSwitch())
    session.receive(encode(message.EchoRequest(b"ping"), 77), 0.0)
    assert session.to_send() == encode(message.EchoReply(b"ping"), 77)


def test_an_answer_nobody_asked_for_is_passed_over() -> None:
    switch = ScriptedSwitch()
    session = ready(switch)
    session.apply(FLOWS, 1, 0.0)
    session.receive(encode(message.FlowStatsReply(), 9999), 0.0)
    session.receive(encode(message.BarrierReply(), 2), 0.0)
    session.receive(encode(message.Error(1, 1), 12345), 0.0)
    assert talk(session, switch) == [Applied(1, added=4)]


def test_a_flow_reads_back_equal_whatever_way_it_was_written() -> None:
    written = Flow(
        0,
        1,
        match(eth_type=0x800, vlan_vid=0x100A),
        Instructions(
            apply=(
                SetField("reg0", 0x1F, 0xFFFFFFFF),
                SetField("reg1", 0xFF, 0x0F),
                Move("reg0", "reg3", 16),
                Conntrack(zone=10, commit=True),
                PopVlan(),
                PushVlan(),
                SetField("vlan_vid", 0x100B),
                Output(3, max_len=128),
                OutputField("reg2"),
            ),
            goto=4,
        ),
        cookie=MINE,
        flags=FlowFlag.RESET_COUNTS,
    )
    switch = ScriptedSwitch()
    session = ready(switch)
    assert apply(session, switch, (written,)) == [Applied(1, added=1)]
    assert apply(session, switch, (written,), 2) == [Applied(2)]


def test_the_table_of_transitions_covers_every_state_that_waits() -> None:
    assert {state for state, _ in TRANSITIONS} == set(State) - {State.READY, State.LOST}


def test_a_packet_for_the_controller_is_an_event_whatever_is_being_done() -> None:
    switch = ScriptedSwitch()
    session = ready(switch)
    packet = message.PacketIn(1, 50, MINE, match(in_port=3, reg8=7), b"frame", 60)
    session.read_flows(0.0)
    session.receive(encode(packet, 0), 0.0)
    assert session.events() == (Seen(packet),)
    assert talk(session, switch) == [FlowsRead(())]


def test_only_flows_that_are_to_be_logged_are_read_when_asked_for() -> None:
    logged = replace(FLOWS[0], cookie=cookie.make("logged", log=True))
    switch = ScriptedSwitch.holding((logged, *FLOWS[1:], *FOREIGN))
    session = ready(switch)
    session.read_flows(0.0, Whose.LOGGED)
    assert talk(session, switch) == [FlowsRead((logged,))]


# -- a change that is known beforehand ----------------------------------------------------------


def test_a_known_change_is_made_without_reading() -> None:
    switch = ScriptedSwitch()
    session = ready(switch)
    apply(session, switch, FLOWS[:3])
    switch.heard.clear()
    session.change(diff(FLOWS[:1], FLOWS[3:]), 2, 0.0)
    assert talk(session, switch) == [Applied(2, 1, 0, 1)]
    assert not any(isinstance(heard, message.FlowStatsRequest) for heard in switch.heard)
    session.read_flows(0.0)
    (read,) = talk(session, switch)
    assert isinstance(read, FlowsRead)
    assert set(read.flows) == {*FLOWS[1:]}
