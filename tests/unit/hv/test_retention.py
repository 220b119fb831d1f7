"""Retention: what is kept, by the rules one by one, and what must hold of any backups and rules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from vnet.hv.retention import Keep, Point, children, decide

MONDAY = datetime(2026, 11, 30, 12, tzinfo=UTC)


def days(*ages: float) -> list[Point]:
    """A full backup of each of so many days ago, named by its age."""
    return [Point(f"{age:g}", MONDAY - timedelta(days=age)) for age in ages]


def kept(points: list[Point], keep: Keep) -> list[str]:
    return [each.id for each in decide(points, keep) if each.is_kept]


def test_the_last_ones_are_kept() -> None:
    assert kept(days(0, 1, 2, 3), Keep(last=2)) == ["0", "1"]


def test_of_a_day_the_last_one_is_kept() -> None:
    assert kept(days(0, 0.1, 0.2, 1, 1.1, 2), Keep(daily=2)) == ["0", "1"]


def test_days_without_a_backup_are_not_counted() -> None:
    assert kept(days(0, 40, 41), Keep(daily=2)) == ["0", "40"]


def test_weeks_begin_on_monday() -> None:
    assert kept(days(0, 1, 2, 8), Keep(weekly=2)) == ["0", "1"]


def test_months_are_those_of_the_calendar() -> None:
    assert kept(days(0, 29, 30, 31), Keep(monthly=2)) == ["0", "30"]


def test_rules_add_up_and_say_which_they_were() -> None:
    verdicts = {each.id: each.reasons for each in decide(days(0, 1, 10), Keep(last=1, weekly=2))}
    assert verdicts == {"0": ("last", "weekly"), "1": ("weekly",), "10": ()}


def test_a_day_is_one_of_the_time_zone_that_the_times_are_in() -> None:
    late = datetime(2026, 11, 30, 23, 30, tzinfo=UTC)
    points = [Point("late", late), Point("later", late + timedelta(hours=1))]
    assert kept(points, Keep(daily=9)) == ["later", "late"]
    east = [Point(each.id, each.taken_at + timedelta(hours=2)) for each in points]
    assert kept(east, Keep(daily=9)) == ["later"]


def test_what_an_increment_needs_is_kept_and_says_so() -> None:
    points = [Point("full", MONDAY), Point("a", MONDAY + timedelta(1), "full")]
    points.append(Point("b", MONDAY + timedelta(2), "a"))
    verdicts = {each.id: each.reasons for each in decide(points, Keep(last=1))}
    assert verdicts == {"b": ("last",), "a": ("needed by b",), "full": ("needed by b",)}


def test_of_two_of_one_second_the_increment_is_the_last() -> None:
    points = [Point("z", MONDAY), Point("a", MONDAY, "z")]
    assert [each.id for each in decide(points, Keep(last=1)) if "last" in each.reasons] == ["a"]


def test_what_would_be_lost_with_a_parent_is_named() -> None:
    points = [Point("full", MONDAY), Point("a", MONDAY, "full"), Point("b", MONDAY, "a"), Point("c", MONDAY)]
    assert children(frozenset({"full"}), points) == ("a", "b")
    assert children(frozenset({"full", "a", "b"}), points) == ()


@st.composite
def histories(draw: st.DrawFn) -> list[Point]:
    """Backups at any times, each full or an increment of any earlier one."""
    ages = draw(st.lists(st.integers(0, 2000), max_size=25))
    points: list[Point] = []
    for number, hours in enumerate(sorted(ages, reverse=True)):
        parent = draw(st.none() | st.sampled_from(points)) if points else None
        points.append(Point(f"b{number}", MONDAY - timedelta(hours=hours), parent.id if parent else None))
    return draw(st.permutations(points))


RULES = st.builds(Keep, *[st.integers(0, 6)] * 4)


@given(histories(), RULES)
def test_nothing_that_is_kept_lacks_its_parent(points: list[Point], keep: Keep) -> None:
    remaining = set(kept(points, keep))
    assert all(each.parent is None or each.parent in remaining for each in points if each.id in remaining)


@given(histories(), RULES)
def test_the_last_ones_are_always_kept(points: list[Point], keep: Keep) -> None:
    newest = [each.id for each in decide(points, keep)][: keep.last]
    assert set(newest) <= set(kept(points, keep))


@given(histories(), RULES)
def test_no_rule_takes_more_than_it_may(points: list[Point], keep: Keep) -> None:
    verdicts = decide(points, keep)
    for rule in ("last", "daily", "weekly", "monthly"):
        assert sum(rule in each.reasons for each in verdicts) <= getattr(keep, rule)


@given(histories(), RULES)
def test_thinning_out_twice_removes_nothing_more(points: list[Point], keep: Keep) -> None:
    once = set(kept(points, keep))
    assert set(kept([each for each in points if each.id in once], keep)) == once


@given(histories(), RULES)
def test_every_backup_gets_one_verdict_the_newest_first(points: list[Point], keep: Keep) -> None:
    verdicts = decide(points, keep)
    assert sorted(each.id for each in verdicts) == sorted(each.id for each in points)
    times = {each.id: each.taken_at for each in points}
    assert [times[each.id] for each in verdicts] == sorted(times.values(), reverse=True)


@given(histories(), RULES)
def test_without_rules_nothing_is_kept_and_that_can_be_told_before(points: list[Point], keep: Keep) -> None:
    assert keep.is_anything or not kept(points, keep)
