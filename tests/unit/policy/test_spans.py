"""Services as spans, spans as masks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.generators import service
from vnet.policy.spans import EVERYTHING, Span, covers, masks, matches, packed, spans

ranges = st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)).map(sorted)


@given(ranges)
def test_masks_take_exactly_the_range_and_no_port_twice(ports: list[int]) -> None:
    low, high = ports
    blocks = sorted((value, 0xFFFF - mask + 1) for value, mask in masks(low, high))
    expected = low
    for value, size in blocks:
        assert value == expected
        assert value % size == 0
        expected = value + size
    assert expected == high + 1
    assert len(blocks) <= 48


def test_block_sizes_are_powers_of_four() -> None:
    assert {0xFFFF - mask + 1 for _, mask in masks(1, 0xFFFE)} == {4**n for n in range(8)}


def test_all_ports_are_one_mask() -> None:
    assert list(masks(0, 0xFFFF)) == [(0, 0)]


def test_services_are_joined_and_sorted() -> None:
    listed = [service(text) for text in ("443/tcp", "80-90/tcp", "85-100/tcp", "101/tcp", "icmp")]
    assert spans(listed) == (Span(1), Span(6, 80, 101), Span(6, 443, 443))


def test_no_service_and_any_mean_everything() -> None:
    assert spans(()) == spans([service("80/tcp"), service("any")]) == EVERYTHING


def test_a_service_covers_what_lies_within_it() -> None:
    wide, narrow = spans([service("80-90/tcp")]), spans([service("85/tcp")])
    assert covers(wide, narrow)
    assert not covers(narrow, wide)
    assert covers(EVERYTHING, wide)
    assert not covers(wide, EVERYTHING)
    assert not covers(wide, spans([service("85/udp")]))


def test_the_protocol_is_in_the_upper_half_of_the_register() -> None:
    assert list(matches(Span(6, 80, 80))) == [(packed(6, 80), 0xFFFFFFFF)]
    assert list(matches(Span(1))) == [(packed(1), 0xFFFF0000)]
    assert list(matches(Span(None))) == [None]
