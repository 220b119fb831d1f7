"""vCPUs that nobody uses."""

from __future__ import annotations

from vnet.fabric import idle
from vnet.fabric.idle import PATIENCE_S
from vnet.fabric.numbers import DaemonNumbers, FabricNumbers, Numbers, VmNumbers
from vnet.fabric.rates import Rates, TrafficRate, VmRate


def numbers(clock_s: float, *, uptime_s: float = 0.0, cpus: int = 4) -> Numbers:
    vm = VmNumbers("web", "ready", cpus, 96 << 20, uptime_s=uptime_s or clock_s + 100)
    return Numbers(0, clock_s, DaemonNumbers("1", 1), (FabricNumbers("shop", 1, 1, (vm,)),))


def used(cpus: float) -> Rates:
    return Rates(10.0, {("shop", "web"): VmRate("shop", "web", TrafficRate(), cpus)})


def advised(now: Numbers, peaks: idle.Peaks) -> list[str]:
    return [each.text for each in idle.advice(idle.told(now, peaks).fabrics[0])]


def watched(*shares: float, cpus: int = 4, until_s: float = PATIENCE_S) -> list[str]:
    """The advice about a VM that used so much, one after the other, and then nothing more."""
    peaks: idle.Peaks = {}
    for second, share in enumerate(shares):
        peaks = idle.follow(numbers(float(second), cpus=cpus), used(share), peaks)
    now = numbers(until_s, cpus=cpus)
    return advised(now, idle.follow(now, used(0.0), peaks))


def test_who_uses_less_than_it_has_is_told_what_would_do() -> None:
    assert watched(0.0, 1.6, 0.2) == [
        "of its 4 vCPUs it used 1.6 at most in 1 h: 2 would do, and others would wait less; lower `cpus`"
    ]


def test_who_needs_them_once_keeps_them() -> None:
    assert watched(0.0, 3.9) == []
    assert watched(0.0, 0.8, cpus=1) == []


def test_nothing_is_said_before_an_hour_has_passed() -> None:
    assert watched(0.0, 0.1, until_s=PATIENCE_S - 1) == []


def test_who_sleeps_needs_one_nevertheless() -> None:
    (text,) = watched(0.0, cpus=2)
    assert ": 1 would do" in text


def test_a_vm_that_was_started_anew_is_watched_anew() -> None:
    peaks = idle.follow(numbers(0.0), used(0.1), {})
    again = idle.follow(numbers(3000.0, uptime_s=5.0), used(0.1), peaks)
    now = numbers(PATIENCE_S, uptime_s=605.0)
    assert advised(now, idle.follow(now, used(0.1), again)) == []


def test_who_does_not_run_is_not_watched() -> None:
    stopped = Numbers(
        0, 1.0, DaemonNumbers("1", 1), (FabricNumbers("shop", 1, 1, (VmNumbers("web", "stopped", 4, 1),)),)
    )
    assert idle.follow(stopped, Rates(), {("shop", "web"): idle.Peak(0.0)}) == {}
