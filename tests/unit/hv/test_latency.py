"""Counts by time, against the times themselves."""

from __future__ import annotations

from bisect import bisect_right

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnet.hv.latency import BOUNDS_NS, BOUNDS_S, NONE, Latencies

TIMES = st.lists(st.floats(0.00001, 4.9), min_size=1, max_size=60)


def counted(times: list[float]) -> Latencies:
    """As QEMU does it: a bin has what is at least its lower bound and less than its upper one."""
    bins = [0] * (len(BOUNDS_S) + 1)
    for each in times:
        bins[bisect_right(BOUNDS_S, each)] += 1
    return Latencies(tuple(bins), sum(times))


@given(TIMES, st.sampled_from([50, 95, 99]))
def test_a_percentile_lies_in_the_bin_of_the_true_one(times: list[float], percent: int) -> None:
    true = sorted(times)[max(0, -(-len(times) * percent // 100) - 1)]
    at = bisect_right(BOUNDS_S, true)
    low, high = BOUNDS_S[at - 1] if at else 0.0, BOUNDS_S[at]
    assert low <= counted(times).percentile_s(percent) <= high


@given(TIMES, st.sampled_from(BOUNDS_S))
def test_the_share_of_slow_answers_is_exact(times: list[float], bound: float) -> None:
    assert counted(times).share_from(bound) == pytest.approx(
        sum(each >= bound for each in times) / len(times)
    )


@given(TIMES, TIMES)
def test_what_came_since_is_what_was_added(earlier: list[float], later: list[float]) -> None:
    found = counted(earlier + later).since(counted(earlier))
    assert found.bins == counted(later).bins
    assert found.total_s == pytest.approx(sum(later))


def test_counts_that_began_anew_are_all_new() -> None:
    assert counted([0.3]).since(counted([0.001, 0.001])) == counted([0.3])


def test_of_nothing_there_is_no_percentile_and_of_what_takes_longest_a_lower_bound() -> None:
    assert NONE.percentile_s(95) == NONE.share_from(0.1) == 0.0
    assert counted([60.0]).percentile_s(50) == BOUNDS_S[-1]


def test_bounds_are_whole_nanoseconds_and_ascend() -> None:
    assert list(BOUNDS_NS) == sorted(set(BOUNDS_NS))
    assert [bound / 1e9 for bound in BOUNDS_NS] == list(BOUNDS_S)
