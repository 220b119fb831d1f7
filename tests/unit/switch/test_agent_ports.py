"""Configuration of ports and of tables, and packet-ins that no action sent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.switch.conversation import PORTS, Conversation
from vnet.openflow.flow import match
from vnet.openflow.message import (
    AsyncMasks,
    BarrierReply,
    BarrierRequest,
    PacketIn,
    PacketInReason,
    PortConfig,
    PortDescRequest,
    PortMod,
    PortReason,
    PortState,
    PortStatus,
    Role,
    RoleRequest,
    SetAsync,
    SetConfig,
    TableFeatures,
    TableFeaturesReply,
    TableFeaturesRequest,
)
from vnet.switch.jobs import ConfigurePort
from vnet.switch.stats import table_features

MAC = PORTS[0].mac
DOWN, NO_RECV, NO_FWD, NO_PACKET_IN = PortConfig


# -- ports ----------------------------------------------------------------------------------------


def test_a_port_mod_is_in_force_before_the_barrier_reply_and_told_to_all():
    talk = Conversation(held=True)
    peer, other = talk.connect(), talk.connect()
    peer.says(PortMod(1, MAC, NO_RECV | NO_FWD, NO_RECV | NO_FWD), BarrierRequest(), xid=3)
    assert peer.hears() == []
    talk.answer()
    assert talk.datapath.attached[0].config == NO_RECV | NO_FWD
    (_, status), barrier = peer.hears()
    assert barrier == (3, BarrierReply())
    assert isinstance(status, PortStatus)
    assert (status.reason, status.port.number) == (PortReason.MODIFY, 1)
    assert status.port.config == NO_RECV | NO_FWD
    assert other.hears() == [(0, status)]


def test_only_bits_under_the_mask_change():
    talk = Conversation()
    peer = talk.connect()
    peer.says(PortMod(1, MAC, NO_RECV | NO_FWD, NO_RECV | NO_FWD))
    peer.says(PortMod(1, MAC, NO_PACKET_IN, NO_RECV | NO_PACKET_IN))
    assert talk.datapath.attached[0].config == NO_FWD | NO_PACKET_IN
    peer.hears()
    assert peer.asks(PortDescRequest()).ports[0].config == NO_FWD | NO_PACKET_IN


def test_a_port_mod_that_changes_nothing_asks_nothing_of_the_datapath():
    talk = Conversation(held=True)
    peer = talk.connect()
    peer.says(PortMod(1, MAC, DOWN, 0), PortMod(1, MAC, 0, DOWN))
    assert talk.asked == []


def test_a_port_switched_off_and_on_is_told_once_each_time_with_the_state_that_it_has():
    talk = Conversation()
    peer = talk.connect()
    for config, state in ((DOWN, PortState.LINK_DOWN), (0, PortState.LIVE)):
        peer.says(PortMod(1, MAC, config, DOWN))
        talk.agent.ports_changed(talk.datapath.ports(), talk.now)
        ((_, status),) = peer.hears()
        assert (status.port.config, status.port.state) == (config, state)


@pytest.mark.parametrize(
    ("mod", "code"),
    [
        (PortMod(9, MAC, 1, 1), 0),
        (PortMod(1, 0x020000000099, 1, 1), 1),
        (PortMod(1, MAC, 2, 2), 2),
        (PortMod(1, MAC, 0, 1 << 4), 2),
        (PortMod(1, MAC, 0, 0, advertise=64), 3),
    ],
)
def test_port_mods_that_cannot_be_are_refused_with_their_own_code(mod, code):
    talk = Conversation()
    assert talk.connect().is_refused(mod) == (7, code)
    assert talk.datapath.attached == PORTS


def test_what_the_datapath_does_not_do_is_told_and_the_port_is_as_it_was(monkeypatch):
    talk = Conversation()
    monkeypatch.setattr(talk.datapath, "configure_port", lambda number, config: 1 / 0)
    peer = talk.connect()
    assert peer.is_refused(PortMod(1, MAC, DOWN, DOWN)) == (7, 4)
    assert peer.asks(PortDescRequest()).ports[0].config == 0


def test_a_port_that_goes_while_it_is_configured_stays_away():
    talk = Conversation(held=True)
    peer = talk.connect()
    peer.says(PortMod(1, MAC, DOWN, DOWN))
    assert [type(event) for event in talk.asked] == [ConfigurePort]
    talk.agent.ports_changed(PORTS[1:], talk.now)
    talk.answer()
    assert [port.number for port in peer_ports(peer)] == [2]


def peer_ports(peer):
    peer.hears()
    return peer.asks(PortDescRequest()).ports


# -- tables ---------------------------------------------------------------------------------------


def answered(peer, request: TableFeaturesRequest) -> list[TableFeatures]:
    peer.says(request, xid=8)
    replies = [reply for _, reply in peer.hears()]
    assert all(isinstance(reply, TableFeaturesReply) for reply in replies), replies
    return [table for reply in replies for table in reply.tables]


def test_what_was_read_can_be_asked_for_even_in_parts():
    peer = Conversation().connect()
    there = tuple(answered(peer, TableFeaturesRequest()))
    for start in range(0, len(there) - 16, 16):
        peer.says(TableFeaturesRequest(there[start : start + 16], more=True), xid=8)
        assert peer.hears() == []
    assert tuple(answered(peer, TableFeaturesRequest(there[-16:]))) == there


def test_less_than_there_is_is_granted_and_the_answer_tells_what_is_in_force():
    peer = Conversation().connect()
    wanted = TableFeatures(3, "acl", 10, match_fields=("eth_dst",), instructions=(4,), actions=(0,))
    told = answered(peer, TableFeaturesRequest((wanted,)))
    assert told == list(table_features({3: "acl"}))
    assert answered(peer, TableFeaturesRequest())[3].name == "acl"


THERE = table_features({})[3]


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ((replace(THERE, table=64),), 0),
        ((THERE, THERE), 0),
        ((replace(THERE, max_entries=THERE.max_entries + 1),), 4),
        ((replace(THERE, instructions=(9,)),), 4),
        ((replace(THERE, actions=(26,)),), 4),
        ((replace(THERE, set_fields=("ip_frag",)),), 4),
        ((replace(THERE, next_tables=(3,)),), 4),
    ],
)
def test_more_than_there_is_is_refused_with_its_own_code(wanted, code):
    peer = Conversation().connect()
    assert peer.is_refused(TableFeaturesRequest(tuple(replace(t, name="new") for t in wanted))) == (13, code)
    assert [table.name for table in answered(peer, TableFeaturesRequest())][3] == "table 3"


def test_only_one_request_in_parts_is_kept_at_a_time():
    peer = Conversation().connect()
    peer.says(TableFeaturesRequest((THERE,), more=True), xid=1)
    assert peer.is_refused(TableFeaturesRequest((THERE,), more=True)) == (1, 13)


def test_a_slave_reads_table_features_but_does_not_ask_for_others():
    peer = Conversation().connect()
    peer.asks(RoleRequest(Role.SLAVE, 1))
    assert peer.is_refused(TableFeaturesRequest((THERE,))) == (1, 10)
    assert len(answered(peer, TableFeaturesRequest())) == 64


# -- packets for controllers ----------------------------------------------------------------------


def test_packets_whose_ttl_ran_out_go_to_who_asked_whole_whatever_its_miss_send_len():
    talk = Conversation()
    keen, deaf = talk.connect(), talk.connect()
    keen.says(SetAsync(AsyncMasks(packet_in=(0b111, 0))), SetConfig(0, 40))
    packet = PacketIn(PacketInReason.INVALID_TTL, 0, 0, match(in_port=1), bytes(100), 100)
    talk.agent.packet_in(packet, talk.now)
    assert keen.hears() == [(0, packet)]
    assert deaf.hears() == []
