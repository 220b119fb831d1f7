"""Slots and ranges of the dataplane's arrays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnet.switch.pool import Full, Numbers, Ranges


def test_numbers_run_out() -> None:
    numbers = Numbers(1, 3)
    assert [numbers.take(), numbers.take()] == [1, 2]
    with pytest.raises(Full):
        numbers.take()
    numbers.give_back(1)
    assert numbers.take() == 1


def test_adopted_numbers_are_not_given_again() -> None:
    numbers = Numbers(1, 10)
    numbers.claim({2, 5})
    assert sorted(numbers.take() for _ in range(7)) == [1, 3, 4, 6, 7, 8, 9]


def taken_by(held: dict[int, int]) -> set[int]:
    return {number for start, length in held.items() for number in range(start, start + length)}


@given(st.lists(st.integers(0, 9) | st.tuples(st.just("free"), st.integers(0, 50)), max_size=60))
def test_ranges_never_overlap_and_come_together_again(steps: list[int | tuple[str, int]]) -> None:
    ranges, held = Ranges(64), dict[int, int]()
    for step in steps:
        if isinstance(step, tuple):
            if held:
                start = sorted(held)[step[1] % len(held)]
                ranges.give_back(start, held.pop(start))
            continue
        try:
            start = ranges.take(step)
        except Full:
            continue
        assert not taken_by(held) & set(range(start, start + step))
        if step:
            held[start] = step
    again = Ranges(64)
    again.claim(list(held.items()))
    for pool in (ranges, again):
        rest = sorted(pool.take(1) for _ in range(64 - sum(held.values())))
        assert rest == sorted(set(range(64)) - taken_by(held)), "all that is not held can be had"
        with pytest.raises(Full):
            pool.take(1)
        for number in rest:
            pool.give_back(number, 1)
        for start, length in held.items():
            pool.give_back(start, length)
        assert pool.take(64) == 0
