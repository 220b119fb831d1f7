"""The table of OFPP_NORMAL."""

from __future__ import annotations

from vnet.openflow.fdb import Fdb

A, B, GROUP = 0x020000000001, 0x020000000002, 0x01005E000001


def test_an_address_is_where_it_was_seen_last_and_each_vlan_has_its_own() -> None:
    fdb = Fdb().learn(1, A, 3, 0.0).learn(2, A, 4, 0.0).learn(1, A, 5, 1.0)
    assert (fdb.find(1, A, 2.0), fdb.find(2, A, 2.0), fdb.find(3, A, 2.0)) == (5, 4, None)


def test_an_address_ages_from_when_it_was_heard_last() -> None:
    fdb = Fdb(ageing_s=300).learn(1, A, 3, 0.0).learn(1, A, 3, 100.0)
    assert fdb.find(1, A, 399.9) == 3
    assert fdb.find(1, A, 400.0) is None


def test_a_group_address_is_not_learnt() -> None:
    assert Fdb().learn(1, GROUP, 3, 0.0).entries == {}


def test_a_full_table_forgets_the_one_unheard_for_longest() -> None:
    fdb = Fdb(capacity=2).learn(1, A, 3, 0.0).learn(1, B, 3, 1.0).learn(1, A, 3, 2.0).learn(1, 4, 3, 3.0)
    assert set(fdb.entries) == {(1, A), (1, 4)}


def test_a_port_that_went_down_has_no_addresses() -> None:
    fdb = Fdb().learn(1, A, 3, 0.0).learn(1, B, 4, 0.0).without_port(3)
    assert set(fdb.entries) == {(1, B)}
