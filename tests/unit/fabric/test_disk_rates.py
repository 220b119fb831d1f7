"""What disks did between two moments."""

from __future__ import annotations

from tests.unit.fabric.numbers_samples import answers, vitals
from vnet.fabric.disk_rates import TELLING, DiskRate, disk_rates, slowest


def test_rates_are_over_the_time_between_answers_not_between_questions() -> None:
    (found,) = disk_rates(vitals(reads=10, told_at_s=1.0), vitals(reads=30, writes=8, told_at_s=3.0))
    assert (found.reads_ps, found.read_bytes_ps, found.writes_ps) == (10.0, 40960.0, 4.0)
    assert found.answers.count == 28


def test_an_answer_that_is_not_newer_tells_no_rate() -> None:
    assert disk_rates(vitals(reads=1), vitals(reads=1)) == ()


def test_a_disk_that_is_new_has_no_rate_yet() -> None:
    assert disk_rates(vitals(disks=()), vitals(reads=9, told_at_s=1.0)) == ()


def test_what_is_slow_is_told_by_the_longest_time_that_still_fits() -> None:
    rates = (DiskRate("a", reads=answers(95, 5)), DiskRate("b", writes=answers(90, 10)))
    found = slowest(rates, 0.05, 0.1)
    assert found is not None
    assert (found.disk, found.kind, found.share, found.least_s) == ("b", "writes", 0.1, 5.0)


def test_too_few_answers_tell_nothing() -> None:
    assert slowest((DiskRate("a", reads=answers(0, TELLING - 1)),), 0.05, 0.1) is None
    assert slowest((DiskRate("a", reads=answers(0, TELLING)),), 0.05, 0.1) is not None
    assert slowest((DiskRate("a", reads=answers(99, 1)),), 0.05, 0.1) is None
