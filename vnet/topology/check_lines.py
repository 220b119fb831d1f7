"""Checks of how fast NICs may be, and of what is to become of their packets."""

from __future__ import annotations

from vnet.topology import language_nics as lang
from vnet.topology.draft import Draft
from vnet.topology.reading import Reading
from vnet.topology.shape import Entry, Read

BURST_MAX_S = 60
"""The kernel counts a burst by the time that it takes at the rate, in 64 ns and 32 bits."""


def check(draft: Draft, reading: Reading) -> None:
    """Reports every fault of the rates and impairments to `reading`."""
    for nics in draft.nics.values():
        for nic in nics:
            if nic.rate is not None:
                _check_rate(nic.rate, nic.impair, reading)
            if nic.impair is not None:
                _check_impairment(nic.impair, reading)


def _check_rate(rate: Read[Entry], impair: Read[Entry] | None, reading: Reading) -> None:
    ways = [each.value for key in (lang.RATE_IN, lang.RATE_OUT) if (each := rate.value.get(key)) is not None]
    left = None if impair is None else impair.value.get(lang.IMPAIR_RATE)
    slowest, burst = min([*ways, *([left.value] if left else [])], default=0), rate.value.get(lang.RATE_BURST)
    if not ways and not rate.value.broken:
        hint = 'give "in", "out" or both, or leave "rate" out'
        reading.fault(rate.at, rate.path, "neither way has a rate", hint)
    elif ways and burst is not None and burst.value * 8 > slowest * BURST_MAX_S:
        problem = "the burst takes longer than a minute at this rate"
        reading.fault(burst.at, burst.path, problem, "give a smaller burst")


def _check_impairment(impair: Read[Entry], reading: Reading) -> None:
    entry = impair.value
    delay, jitter = entry.get(lang.IMPAIR_DELAY), entry.get(lang.IMPAIR_JITTER)
    if not entry.values and not entry.broken:
        reading.fault(impair.at, impair.path, "it impairs nothing", "give a delay, a loss or a rate")
    elif jitter is not None and not entry.given(lang.IMPAIR_DELAY):
        reading.fault(jitter.at, jitter.path, "there is no delay that could vary", 'give "delay" too')
    elif jitter is not None and delay is not None and jitter.value > delay.value:
        reading.fault(jitter.at, jitter.path, "it would vary by more than the delay", "give a larger delay")
