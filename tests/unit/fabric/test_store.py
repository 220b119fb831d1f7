"""The store keeps what it is given, across a reopening, and explains what stops it."""

from dataclasses import replace
from ipaddress import ip_interface

import pytest

from vnet.base.errors import HostError
from vnet.fabric.live.store import SqliteStore
from vnet.fabric.state import Guest, GuestNic, Port
from vnet.fabric.store import Pending, Record, Source
from vnet.topology.inventory import Assignment

ASSIGNED = Assignment(3, 0x525400123456, (ip_interface("10.0.0.1/24"), ip_interface("fd00::1/64")))
RECORD = Record(
    "shop",
    Source("shop.vnet.yaml", "name: shop\n", {"SIZE": "1"}, {"part.yaml": "vms: {}\n"}),
    2,
    1,
    "boot",
    {"web.eth0": ASSIGNED},
    frozenset({"db"}),
    {0x76 << 56 | 5: {"policy": "p", "at": "shop.vnet.yaml:3"}},
)
GUEST = Guest(
    "web", "micro", 1, 96 << 20, (GuestNic("eth0", Port(3, "web.eth0"), 0x525400123456, ("10.0.0.1/24",)),)
)


@pytest.fixture
def store(tmp_path):
    made = SqliteStore(tmp_path / "state" / "vnet.db")
    yield made
    made.close()


def test_a_record_and_its_guests_survive_a_reopening(store):
    store.save(RECORD)
    store.save_guest("shop", GUEST)
    store.close()
    again = SqliteStore(store.path)
    assert again.fabrics() == ("shop",)
    assert again.load("shop") == RECORD
    assert again.guests("shop") == (GUEST,)


@pytest.mark.parametrize("before", [None, replace(RECORD, provenance={})], ids=["new", "changed"])
def test_what_waits_for_confirmation_survives_a_reopening_until_it_is_confirmed(store, before):
    pending = Pending("boot", 12.5, before, frozenset({"web", "db"}), frozenset({"old"}))
    waiting = replace(RECORD, generation=3, pending=pending)
    store.save(waiting)
    store.close()
    again = SqliteStore(store.path)
    assert again.load("shop") == waiting
    again.save_pending(replace(waiting, pending=None))
    assert again.load("shop") == replace(waiting, pending=None)
    again.close()


def test_what_is_in_force_is_noted_alone(store):
    store.save(RECORD)
    store.save_enforced("shop", 2)
    assert store.load("shop") == replace(RECORD, enforced=2)


def test_saving_a_fabric_again_keeps_its_guests(store):
    store.save(RECORD)
    store.save_guest("shop", GUEST)
    store.save(replace(RECORD, generation=3, assignments={}))
    assert store.guests("shop") == (GUEST,)
    assert store.load("shop").assignments == {}


def test_a_removed_fabric_takes_its_guests_along(store):
    store.save(RECORD)
    store.save_guest("shop", GUEST)
    store.remove("shop")
    assert store.load("shop") is None
    assert store.guests("shop") == ()


def test_a_database_of_the_first_version_is_brought_up_to_date(store):
    store.save(RECORD)
    store._db.executescript(
        "DROP TABLE pending; ALTER TABLE fabric DROP COLUMN included; PRAGMA user_version=1;"
    )
    store.close()
    again = SqliteStore(store.path)
    assert again.load("shop") == replace(RECORD, source=replace(RECORD.source, included={}))
    again.save(RECORD)
    assert again.load("shop") == RECORD
    again.close()


def test_a_database_of_another_version_is_refused_with_a_way_out(store):
    store._db.execute("PRAGMA user_version=99")
    store.close()
    with pytest.raises(HostError, match=r"schema version 99.*vnet down"):
        SqliteStore(store.path)


def test_a_full_disk_says_what_to_free(store):
    store._db.execute("PRAGMA max_page_count=1")
    big = replace(RECORD, source=Source("f", "x" * 10_000_000))
    with pytest.raises(HostError, match="free space on the file system of"):
        store.save(big)
    assert store.load("shop") is None


def test_a_file_that_is_no_database_is_explained(tmp_path):
    path = tmp_path / "vnet.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(HostError, match="damaged"):
        SqliteStore(path)


def test_an_unknown_guest_is_refused_by_the_schema(store):
    with pytest.raises(HostError):
        store.save_guest("nowhere", GUEST)


def test_only_root_reads_what_is_stored(tmp_path):
    path = tmp_path / "vnet.db"
    path.touch(mode=0o644)
    SqliteStore(path).close()
    assert {each.stat().st_mode & 0o777 for each in tmp_path.iterdir()} == {0o600}


def test_whoever_only_reads_sees_what_is_there_and_can_change_nothing(store):
    store.save(RECORD)
    reader = SqliteStore.reading(store.path)
    assert reader.load("shop") == RECORD
    with pytest.raises(HostError, match="readonly"):
        reader.remove("shop")
    reader.close()


def test_a_file_of_another_version_is_not_converted_by_reading_it(store):
    store._db.execute("PRAGMA user_version=1")
    with pytest.raises(HostError, match="schema version 1"):
        SqliteStore.reading(store.path)
    assert store._db.execute("PRAGMA user_version").fetchone() == (1,)
