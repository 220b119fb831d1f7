"""The agent as conversations: greeting, liveness, roles, masks, ports, packets, refusals, fairness."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.switch.conversation import PORTS, Conversation, add, flow
from vnet.openflow.codec import HEADER, encode
from vnet.openflow.flow import Flow, Output, Port, SetField, match
from vnet.openflow.message import (
    ONF,
    AsyncMasks,
    BarrierReply,
    BarrierRequest,
    BundleControl,
    DescReply,
    DescRequest,
    EchoReply,
    EchoRequest,
    Error,
    Experimenter,
    FeaturesReply,
    FeaturesRequest,
    FlowRemoved,
    FlowStatsRequest,
    GetAsyncReply,
    GetAsyncRequest,
    GetConfigReply,
    GetConfigRequest,
    Hello,
    PacketIn,
    PacketOut,
    PortDescReply,
    PortDescRequest,
    PortReason,
    PortStatus,
    QueueGetConfigRequest,
    QueueStatsRequest,
    Role,
    RoleReply,
    RoleRequest,
    SetAsync,
    SetConfig,
    TableFeaturesReply,
    TableFeaturesRequest,
    TableMod,
)
from vnet.switch import connection
from vnet.switch.agent import DEAD_S, HELLO_S, IDLE_S, STALL_S
from vnet.switch.connection import State
from vnet.switch.datapath import SwitchPort
from vnet.switch.handlers import HANDLERS
from vnet.switch.stats import port_description

FRAME = bytes.fromhex("ffffffffffff02000000000108004500") + bytes(40)


# -- greeting -------------------------------------------------------------------------------------


def test_switch_greets_first():
    talk = Conversation()
    assert [message for _, message in talk.connect(greet=False).hears()] == [Hello(4, (4,))]


@pytest.mark.parametrize("hello", [Hello(4, ()), Hello(6, (1, 4, 6)), Hello(5, ())])
def test_peers_that_can_speak_1_3_are_welcome(hello):
    peer = Conversation().connect(greet=False)
    peer.says(hello)
    peer.hears()
    assert isinstance(peer.asks(FeaturesRequest()), FeaturesReply)


@pytest.mark.parametrize("hello", [Hello(1, ()), Hello(6, (6,)), Hello(3, (1, 3))])
def test_peers_that_cannot_speak_1_3_are_told_and_closed(hello):
    talk = Conversation()
    peer = talk.connect(greet=False)
    peer.says(hello, xid=3)
    xid, error = peer.hears()[-1]
    assert (xid, error.type, error.code) == (3, 0, 0)
    assert b"1.3" in error.data
    assert talk.closed == [peer.number]


def test_nothing_is_served_before_the_hello():
    talk = Conversation()
    peer = talk.connect(greet=False)
    peer.says(FeaturesRequest())
    assert isinstance(peer.hears()[-1][1], Error)
    assert talk.closed == [peer.number]


def test_a_peer_that_does_not_greet_is_closed():
    talk = Conversation()
    peer = talk.connect(greet=False)
    talk.wait(HELLO_S + 1)
    assert talk.closed == [peer.number]


# -- liveness -------------------------------------------------------------------------------------


def test_echo_returns_its_payload_and_xid():
    peer = Conversation().connect()
    peer.says(EchoRequest(b"are you there"), xid=9)
    assert peer.hears() == [(9, EchoReply(b"are you there"))]


def test_echo_is_answered_while_the_datapath_is_busy():
    talk = Conversation(held=True)
    peer = talk.connect()
    peer.says(add(flow()), BarrierRequest(), EchoRequest(b"x"), xid=5)
    assert peer.hears() == [(5, EchoReply(b"x"))]


def test_a_silent_peer_is_asked_for_an_echo_and_given_up_when_it_stays_silent():
    talk = Conversation()
    peer = talk.connect()
    talk.wait(IDLE_S + 1)
    assert [type(message) for _, message in peer.hears()] == [EchoRequest]
    talk.wait(DEAD_S - IDLE_S)
    assert talk.closed == [peer.number]


def test_a_peer_that_answers_echoes_lives_on():
    talk = Conversation()
    peer = talk.connect()
    for _ in range(10):
        talk.wait(IDLE_S + 1)
        for xid, _ in peer.hears():
            peer.says(EchoReply(), xid=xid)
    assert not talk.closed


def test_a_peer_that_does_not_read_is_given_up():
    talk = Conversation()
    peer = talk.connect()
    peer.says(DescRequest())
    talk.wait(STALL_S + 1)
    assert talk.closed == [peer.number]


# -- malformed ------------------------------------------------------------------------------------


def test_an_unknown_type_is_answered_and_the_connection_goes_on():
    peer = Conversation().connect()
    peer.sends(HEADER.pack(4, 99, 8, 12))
    assert peer.hears() == [(12, Error(1, 1, HEADER.pack(4, 99, 8, 12)))]
    assert isinstance(peer.asks(BarrierRequest()), BarrierReply)


def test_a_wrong_version_after_the_hello_is_answered():
    peer = Conversation().connect()
    peer.sends(HEADER.pack(1, 5, 8, 12))
    assert [(x, e.type, e.code) for x, e in peer.hears()] == [(12, 1, 0)]


def test_a_length_below_the_header_ends_the_connection_after_what_came_before():
    talk = Conversation()
    peer = talk.connect()
    peer.sends(encode(BarrierRequest(), 1) + HEADER.pack(4, 2, 4, 2) + encode(BarrierRequest(), 3))
    assert [(x, type(m)) for x, m in peer.hears()] == [(1, BarrierReply), (2, Error)]
    assert talk.closed == [peer.number]


def test_an_error_quotes_64_bytes_of_the_request():
    peer = Conversation().connect()
    request = encode(Experimenter(0x2320, 7, bytes(200)), 8)
    peer.sends(request)
    assert peer.hears() == [(8, Error(1, 3, request[:64]))]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=8), st.integers(0, 29))
def test_no_bytes_make_the_agent_raise(bodies, first):
    talk = Conversation()
    peer = talk.connect()
    for place, body in enumerate(bodies):
        peer.sends(HEADER.pack(4, (first + place) % 30, 8 + len(body), place) + body)
    peer.hears()


_REQUESTS = (
    EchoRequest(b"abc"),
    FeaturesRequest(),
    add(flow(5, match(eth_type=0x800))),
    BarrierRequest(),
    FlowStatsRequest(),
    DescRequest(),
    add(flow(6, table=40)),
    RoleRequest(Role.MASTER, 1),
)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_split_of_the_stream_gives_the_same_answers(data):
    stream = b"".join(encode(message, xid) for xid, message in enumerate(_REQUESTS))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=30)))
    whole, split = Conversation().connect(), Conversation().connect()
    whole.sends(stream)
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        split.sends(stream[start:end])
    # an echo may overtake what waits, so its place may differ
    assert sorted(map(repr, whole.hears())) == sorted(map(repr, split.hears()))


# -- what the switch is ---------------------------------------------------------------------------


def test_features_name_the_datapath_and_all_its_tables():
    assert Conversation().connect().asks(FeaturesRequest()) == FeaturesReply(0x42, 64, capabilities=15)


def test_configuration_is_kept_per_connection_and_fragment_handling_refused():
    peer = Conversation().connect()
    peer.says(SetConfig(0, 0xFFFF))
    assert peer.asks(GetConfigRequest()) == GetConfigReply(0, 0xFFFF)
    assert peer.is_refused(SetConfig(1, 128)) == (10, 0)


def test_description_and_ports_are_told():
    peer = Conversation().connect()
    desc = peer.asks(DescRequest())
    assert isinstance(desc, DescReply)
    assert (desc.manufacturer, desc.datapath) == ("vnet", "lab")
    ports = peer.asks(PortDescRequest())
    assert isinstance(ports, PortDescReply)
    assert [(port.number, port.name) for port in ports.ports] == [(1, "tap-web"), (2, "tap-db")]


def test_table_features_come_in_parts_that_fit_a_message():
    peer = Conversation().connect()
    peer.says(TableFeaturesRequest(), xid=4)
    replies = [message for _, message in peer.hears()]
    assert all(isinstance(reply, TableFeaturesReply) for reply in replies)
    assert [reply.more for reply in replies] == [True] * (len(replies) - 1) + [False]
    assert [table.table for reply in replies for table in reply.tables] == list(range(64))


def test_what_the_switch_has_none_of_is_refused_by_its_own_error():
    peer = Conversation().connect()
    assert peer.is_refused(TableMod(64)) == (8, 0)
    assert peer.is_refused(TableMod(0, 3)) == (8, 1)
    assert peer.is_refused(QueueGetConfigRequest(9)) == (9, 0)
    assert peer.is_refused(QueueStatsRequest(1, 3)) == (9, 1)
    assert peer.is_refused(Experimenter(ONF, 1870)) == (1, 4)


def test_every_ready_message_has_a_handler_that_greeting_refuses():
    ready = {message for state, message in HANDLERS if state is State.READY}
    assert {message for state, message in HANDLERS if state is State.GREETING} == ready


# -- roles and masks ------------------------------------------------------------------------------


def test_a_new_master_makes_the_old_one_a_slave():
    talk = Conversation()
    first, second = talk.connect(), talk.connect()
    assert first.asks(RoleRequest(Role.MASTER, 1)) == RoleReply(Role.MASTER, 1)
    assert second.asks(RoleRequest(Role.MASTER, 2)) == RoleReply(Role.MASTER, 2)
    assert first.asks(RoleRequest(Role.NOCHANGE)) == RoleReply(Role.SLAVE, 2)
    assert first.is_refused(add(flow())) == (1, 10)
    assert not talk.datapath.installed


def test_a_generation_that_nobody_has_told_is_the_greatest_number():
    peer = Conversation().connect()
    assert peer.asks(RoleRequest(Role.NOCHANGE)) == RoleReply(Role.EQUAL, (1 << 64) - 1)
    assert peer.asks(RoleRequest(Role.EQUAL, 9)) == RoleReply(Role.EQUAL, (1 << 64) - 1)
    assert peer.asks(RoleRequest(Role.MASTER, 0)) == RoleReply(Role.MASTER, 0)


def test_a_stale_generation_is_refused_even_across_the_wrap():
    talk = Conversation()
    peer = talk.connect()
    peer.asks(RoleRequest(Role.MASTER, (1 << 64) - 1))
    assert peer.is_refused(RoleRequest(Role.SLAVE, (1 << 64) - 2)) == (11, 0)
    assert peer.asks(RoleRequest(Role.SLAVE, 3)) == RoleReply(Role.SLAVE, 3)


def test_an_unknown_role_is_refused():
    assert Conversation().connect().is_refused(RoleRequest(9)) == (11, 2)


def test_a_slave_reads_but_does_not_write():
    peer = Conversation().connect()
    peer.asks(RoleRequest(Role.SLAVE, 1))
    assert peer.is_refused(PacketOut(Port.CONTROLLER, (Output(1),), FRAME)) == (1, 10)
    assert isinstance(peer.asks(DescRequest()), DescReply)


def test_masks_decide_who_hears_packet_ins():
    talk = Conversation()
    keen, deaf, slave = talk.connect(), talk.connect(), talk.connect()
    masks = AsyncMasks(packet_in=(0, 0))
    deaf.says(SetAsync(masks))
    assert deaf.asks(GetAsyncRequest()) == GetAsyncReply(masks)
    slave.asks(RoleRequest(Role.SLAVE, 1))
    packet = PacketIn(1, 3, 0x76, match(in_port=1), FRAME, len(FRAME))
    talk.agent.packet_in(packet, talk.now)
    assert keen.hears() == [(0, packet)]
    assert deaf.hears() == []
    assert slave.hears() == []


# -- ports and packets ----------------------------------------------------------------------------


def test_port_changes_are_told_as_they_are():
    talk = Conversation()
    peer = talk.connect()
    web_down = SwitchPort(1, "tap-web", PORTS[0].mac, False)
    new = SwitchPort(3, "tap-new", 5, True)
    talk.agent.ports_changed((web_down, new), talk.now)
    told = [(message.reason, message.port.number) for _, message in peer.hears()]
    assert told == [(PortReason.DELETE, 2), (PortReason.MODIFY, 1), (PortReason.ADD, 3)]
    assert len(peer.asks(PortDescRequest()).ports) == 2


def test_packet_out_reaches_the_datapath_before_the_barrier_reply():
    talk = Conversation(held=True)
    peer = talk.connect()
    peer.says(PacketOut(Port.CONTROLLER, (Output(2),), FRAME), BarrierRequest(), xid=6)
    assert peer.hears() == []
    talk.answer()
    assert peer.hears() == [(6, BarrierReply())]
    assert talk.datapath.sent == [(Port.CONTROLLER, (Output(2),), FRAME)]


@pytest.mark.parametrize(
    ("packet", "error"),
    [
        (PacketOut(Port.CONTROLLER, (Output(1),), b"", 5), (1, 8)),
        (PacketOut(Port.CONTROLLER, (Output(1),), b"short"), (1, 12)),
        (PacketOut(0, (Output(1),), FRAME), (1, 11)),
        (PacketOut(Port.CONTROLLER, (Output(0),), FRAME), (2, 4)),
    ],
)
def test_bad_packet_outs_are_refused(packet, error):
    assert Conversation().connect().is_refused(packet) == error


def test_packet_ins_are_dropped_and_counted_for_a_peer_that_does_not_read(monkeypatch):
    monkeypatch.setattr(connection, "OUTBOX_BYTES", 1000)
    talk = Conversation()
    slow, quick = talk.connect(), talk.connect()
    packet = PacketIn(1, 0, 0, match(in_port=1), FRAME, len(FRAME))
    for _ in range(100):
        talk.agent.packet_in(packet, talk.now)
        assert len(quick.hears()) == 1
    assert len(slow.hears()) < 15
    assert talk.agent.connections[slow.number].dropped_packet_ins > 85


# -- memory and fairness --------------------------------------------------------------------------


def test_a_flood_without_reading_answers_stops_being_read(monkeypatch):
    monkeypatch.setattr(connection, "OUTBOX_BYTES", 4000)
    monkeypatch.setattr(connection, "INBOX_BYTES", 4000)
    talk = Conversation()
    peer, other = talk.connect(), talk.connect()
    sent = 0
    while talk.agent.wants_data(peer.number):
        peer.says(DescRequest())
        sent += 1
        assert sent < 2000
    assert isinstance(other.asks(DescRequest()), DescReply)
    assert len(peer.hears()) == sent
    assert talk.agent.wants_data(peer.number)


def test_news_that_must_not_be_lost_close_a_peer_that_never_reads(monkeypatch):
    monkeypatch.setattr(connection, "OUTBOX_LIMIT_BYTES", 2000)
    talk = Conversation()
    peer = talk.connect()
    for turn in range(50):
        up = bool(turn % 2)
        talk.agent.ports_changed((SwitchPort(1, "tap-web", PORTS[0].mac, up),), talk.now)
    talk.settle()
    assert talk.closed == [peer.number]


def test_a_peer_with_many_requests_does_not_delay_another():
    talk = Conversation(held=True)
    greedy, modest = talk.connect(), talk.connect()
    for number in range(50):
        greedy.says(FlowStatsRequest(), BarrierRequest(), xid=number)
    modest.says(FlowStatsRequest(), xid=1)
    talk.answer()
    talk.settle()
    talk.answer()
    assert [x for x, _ in modest.hears()] == [1]


def test_what_a_peer_asked_before_it_left_is_still_done_and_nothing_is_wiped():
    talk = Conversation(flows=(flow(9),), held=True)
    peer = talk.connect()
    peer.says(add(flow(1)))
    peer.says(add(flow(2)))
    talk.agent.closed(peer.number, talk.now)
    talk.held = False
    talk.answer()
    assert {key[1] for key in talk.datapath.installed} == {9, 1, 2}


def test_the_actions_of_a_packet_out_reach_the_datapath_in_order():
    talk = Conversation()
    peer = talk.connect()
    packet = PacketOut(Port.CONTROLLER, (SetField("eth_src", 5), Output(1)), FRAME)
    peer.says(packet, BarrierRequest(), xid=2)
    assert peer.hears() == [(2, BarrierReply())]
    assert talk.datapath.sent[0][1] == packet.actions


def test_unknown_messages_of_a_controller_in_the_wrong_direction_are_refused():
    peer = Conversation().connect()
    assert peer.is_refused(BarrierReply()) == (1, 1)
    assert peer.is_refused(FlowRemoved(0, Flow(0, 1))) == (1, 1)
    assert peer.is_refused(PortStatus(0, port_description(PORTS[0]))) == (1, 1)
    assert peer.is_refused(BundleControl(1, 9)) == (0xFFFF, 2306)
