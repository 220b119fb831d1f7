from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnet.base.errors import InputError
from vnet.hv import snapshot as s
from vnet.hv.disk import Disk
from vnet.hv.snapshot import Build, Consistency, Saved, SavedDisk, Shape, Snapshot
from vnet.hv.spec import GuestSpec

DAY_S = 86400
BUILD = Build("QEMU 7.2", "kvm", "cpu")
SHAPE = Shape(1, 96 << 20, (0x525400000001,), ("data",), "abc")
SAVED = Saved("db", Consistency.MEMORY, (SavedDisk("data", "qcow2", 1 << 30),), "", BUILD, SHAPE, 4096, 0.01)


def snapshot(id_: str, created_s: float = 0.0, parent: str = "", vms: tuple[str, ...] = ("db",)) -> Snapshot:
    members = tuple(replace(SAVED, vm=vm, parent=parent) for vm in vms)
    return Snapshot(id_, "lab", f"name-{id_}", created_s, members, "what for")


def test_what_is_written_is_read_again() -> None:
    off = Saved("b", Consistency.OFF, ())
    made = replace(snapshot("1", 7.5), members=(SAVED, off))
    assert s.from_json(s.to_json(made)) == made


def test_what_is_no_snapshot_is_refused() -> None:
    for text in ("", "[]", "{}", '{"members": [{}]}'):
        with pytest.raises((ValueError, KeyError, TypeError)):
            s.from_json(text)


@pytest.mark.parametrize("name", ["", ".", "-x", "a/b", "a b", "x" * 64, "../x", "ä"])
def test_names_that_could_mean_something_else_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="is no name"):
        s.check_name(name)


def test_usual_names_are_accepted() -> None:
    for name in ("a", "before-upgrade", "2026-11-29_1.2", "x" * 63):
        s.check_name(name)


def test_a_raw_disk_is_told_beforehand_with_what_to_do() -> None:
    disks = (Disk("data", 1 << 20), Disk("logs", 1 << 20, "raw"))
    with pytest.raises(InputError, match=r"logs\. Declare `format: qcow2`"):
        s.refuse_raw(GuestSpec("lab", "db", "micro", 1, 1, (), disks))


def test_a_name_is_taken_for_the_vms_that_have_it_only() -> None:
    known = (snapshot("1", vms=("db", "web")),)
    with pytest.raises(InputError, match="web has a snapshot name-1 already"):
        s.refuse_taken("name-1", ["app", "web"], known)
    s.refuse_taken("name-1", ["app"], known)
    s.refuse_taken("name-2", ["web"], known)


def test_the_same_machine_loads_its_memory() -> None:
    assert s.obstacles(SAVED, BUILD, SHAPE) == ()
    assert s.obstacles(replace(SAVED, build=None), BUILD, SHAPE) == ("its memory was not saved",)


@pytest.mark.parametrize(
    ("build", "shape", "words"),
    [
        (replace(BUILD, qemu="QEMU 8"), SHAPE, "saved by QEMU 7.2, this is QEMU 8"),
        (replace(BUILD, accel="tcg"), SHAPE, "saved under kvm, this host runs VMs under tcg"),
        (replace(BUILD, cpu="other"), SHAPE, "another model of CPU"),
        (BUILD, replace(SHAPE, cpus=2, words="d"), "had 1 CPUs, it is declared with 2"),
        (BUILD, replace(SHAPE, memory_bytes=128 << 20), "had 96M of memory, it is declared with 128M"),
        (BUILD, replace(SHAPE, macs=()), "had 1 NICs"),
        (BUILD, replace(SHAPE, disks=()), "had the disks data, it is declared with none"),
        (BUILD, replace(SHAPE, words="d"), "put together otherwise"),
    ],
)
def test_another_machine_is_refused_and_it_is_said_why(build: Build, shape: Shape, words: str) -> None:
    (why,) = s.obstacles(SAVED, build, shape)
    assert words in why


def test_those_after_a_removed_one_descend_from_the_one_before_it() -> None:
    first, second = snapshot("1"), snapshot("2", 1, "1", ("db", "web"))
    third, other = snapshot("3", 2, "2", ("db", "web")), snapshot("4", 3, "1")
    (changed,) = s.adopted((first, second, third, other), second, "db")
    assert (changed.id, changed.of("db").parent, changed.of("web").parent) == ("3", "1", "2")


def ages(*days: float) -> tuple[Snapshot, ...]:
    return tuple(snapshot(str(each), -each * DAY_S) for each in days)


@pytest.mark.parametrize(
    ("keep_last", "older_than_days", "gone"),
    [
        (1, None, ["50", "40", "10"]),
        (None, 30, ["50", "40"]),
        (3, 30, ["50"]),
        (9, 30, []),
        (0, 5, ["50", "40", "10"]),
        (0, None, ["50", "40", "10", "1"]),
    ],
)
def test_what_is_old_goes_but_not_the_newest(keep_last, older_than_days, gone) -> None:
    older_s = None if older_than_days is None else older_than_days * DAY_S
    found = s.to_prune(ages(10, 50, 1, 40), "db", 0.0, keep_last, older_s)
    assert [each.id for each in found] == gone


@given(st.lists(st.floats(0, 100), unique=True), st.integers(0, 5), st.floats(0, 100))
def test_pruning_twice_removes_nothing_more_and_never_the_newest(days, keep_last, older_than_days) -> None:
    known = ages(*days)
    gone = s.to_prune(known, "db", 0.0, keep_last, older_than_days * DAY_S)
    left = tuple(each for each in known if each not in gone)
    assert s.to_prune(left, "db", 0.0, keep_last, older_than_days * DAY_S) == ()
    assert len(left) >= min(keep_last, len(known))


def test_a_month_is_old() -> None:
    old, young = ages(31, 29)
    assert s.is_old(old, 0.0)
    assert not s.is_old(young, 0.0)
