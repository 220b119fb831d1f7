"""What one port may fill of the log, and that nothing of the rest is silent."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from vnet.fabric.log_rate import BURST, PERIOD_S, RATE_PER_S, SUMS, Rates
from vnet.fabric.logged import End, LogRecord, Rule, Verdict

RULE = Rule(Verdict.DENY, "p", "ingress 1", "f:1")


def record(service=80, port=1000):
    return LogRecord(0, RULE, End("a", None, port), End("b", None, service), "tcp")


def counted(records):
    return sum(each.count for each in records)


def test_a_burst_is_told_one_by_one():
    rates = Rates()
    told = [rates.take(1, record(port=n), 0.0) for n in range(BURST)]
    assert [each.client.port for each in told] == list(range(BURST))
    assert list(rates.due(PERIOD_S, 0)) == []


def test_what_is_beyond_is_summed_up_by_what_is_alike():
    rates = Rates()
    for n in range(BURST + 50):
        rates.take(1, record(80 + n % 2, port=n), 0.0)
    assert list(rates.due(PERIOD_S - 1, 0)) == []
    assert list(rates.due(PERIOD_S, 0)) == [
        replace(record(80, BURST), count=25),
        replace(record(81, BURST + 1), count=25),
    ]
    assert list(rates.due(2 * PERIOD_S, 0)) == []


def test_what_is_beyond_the_sums_is_counted_by_rule_and_client():
    rates = Rates()
    for service in range(BURST + SUMS + 7):
        rates.take(1, record(service), 0.0)
    *sums, lost = rates.due(PERIOD_S, 5)
    assert len(sums) == SUMS
    assert lost == LogRecord(5, RULE, End("a"), count=7, is_lost=True)


def test_one_port_takes_nothing_from_another():
    rates = Rates()
    for service in range(1000):
        rates.take(1, record(service), 0.0)
    assert rates.take(2, record(), 0.0) == record()


def test_the_bucket_fills_again():
    rates = Rates()
    for service in range(BURST):
        rates.take(1, record(service), 0.0)
    assert rates.take(1, record(), 0.4 / RATE_PER_S) is None
    assert rates.take(1, record(service=7), 1.5 / RATE_PER_S) == record(service=7)


def test_what_is_being_summed_up_stays_so_until_its_period_is_over():
    """Else the line that sums up would tell of fewer packets before than there were."""
    rates = Rates()
    for n in range(BURST + 1):
        rates.take(1, record(port=n), 0.0)
    assert rates.take(1, record(), PERIOD_S / 2) is None
    assert [each.count for each in rates.due(PERIOD_S, 0)] == [2]


def test_at_the_end_everything_is_told():
    rates = Rates()
    for n in range(BURST + 3):
        rates.take(1, record(port=n), 0.0)
    assert counted(rates.due(0.1, 0, end=True)) == 3


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 40), st.floats(0, 2)), max_size=600))
def test_every_packet_is_told_summed_up_or_counted(arrivals):
    rates, now_s, told = Rates(), 0.0, []
    for port, service, pause_s in arrivals:
        now_s += pause_s
        told += filter(None, [rates.take(port, record(service), now_s)])
        told += rates.due(now_s, 0)
    told += rates.due(now_s, 0, end=True)
    assert counted(told) == len(arrivals)
    assert len(told) <= 3 * (BURST + RATE_PER_S * now_s + (SUMS + 1) * (1 + now_s / PERIOD_S))
