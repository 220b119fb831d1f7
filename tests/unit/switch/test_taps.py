"""Taps as values: what is written for them is what is read back."""

from __future__ import annotations

import struct

import pytest

from vnet.base.errors import InputError
from vnet.capture.live.libpcap import compile_filter
from vnet.switch import abi
from vnet.switch.abi import Point, PortFlag
from vnet.switch.taps import Tap, TapCount, bits, check, tap_count, tap_of

PROGRAM = struct.pack("=HBBI", 0x28, 0, 0, 12) + struct.pack("=HBBI", 0x16, 0, 0, 0)


def test_a_tap_is_read_back_as_it_was_written() -> None:
    tap = Tap(frozenset({2, 9}), PROGRAM, frozenset({Point.GUEST}), 128, True, 50, 7)
    assert tap_of(tap.cell(), tap.ports, PROGRAM + bytes(64)) == tap
    assert tap_of(Tap(frozenset({1})).cell(), {1}, b"") == Tap(frozenset({1}))


def test_each_port_has_a_bit_for_each_tap_that_wants_it() -> None:
    taps = {0: Tap(frozenset({1, 2})), 5: Tap(frozenset({2, 3}))}
    assert bits(taps) == {1: 1, 2: 33, 3: 32}


def test_who_wants_only_what_is_lost_does_not_slow_down_what_passes() -> None:
    assert Tap(frozenset()).port_flag is PortFlag.CAPTURE
    assert Tap(frozenset(), dropped=True).port_flag is PortFlag.CAPTURE_DROPS


def test_counters_of_all_processors_are_added() -> None:
    raw = bytes(abi.TapCounter(10, 4, 1)) + bytes(abi.TapCounter(5, 2, 0))
    assert tap_count(raw) == TapCount(15, 6, 1)


@pytest.mark.parametrize("expression", ["inbound", "outbound", "tcp and not inbound"])
def test_a_filter_on_more_than_bytes_is_refused_since_it_would_match_nothing(expression: str) -> None:
    with pytest.raises(InputError, match="inbound and outbound"):
        check(compile_filter(expression))


def test_filters_on_bytes_are_taken() -> None:
    for expression in ("vlan 7 and tcp port 22", "len > 100 and ip6", "ip[0xfff] == 1"):
        check(compile_filter(expression))
