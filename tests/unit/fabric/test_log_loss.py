"""What flows have counted and nobody was told."""

from vnet.fabric.log_loss import Losses

A, B = 1, 2


def test_what_was_told_is_not_missing():
    losses = Losses()
    losses.tell(A)
    assert losses.settle({A: 1}) == {}
    assert not losses.is_open


def test_what_is_missing_twice_is_lost_once():
    losses = Losses()
    losses.tell(A)
    assert losses.settle({A: 5, B: 1}) == {}
    assert losses.is_open
    assert losses.settle({A: 5, B: 1}) == {A: 4, B: 1}
    assert losses.settle({A: 5, B: 1}) == {}
    assert not losses.is_open


def test_a_report_that_was_on_its_way_is_not_lost():
    losses = Losses()
    assert losses.settle({A: 2}) == {}
    losses.tell(A)
    losses.tell(A)
    assert losses.settle({A: 2}) == {}
    assert losses.settle({A: 2}) == {}


def test_only_what_was_missing_before_is_lost_while_more_comes():
    losses = Losses()
    assert losses.settle({A: 10}) == {}
    assert losses.settle({A: 30}) == {A: 10}
    assert losses.settle({A: 30}) == {A: 20}
    assert losses.settle({A: 30}) == {}


def test_a_report_that_overtakes_the_counters_is_made_good_later():
    losses = Losses()
    losses.tell(A, 3)
    assert losses.settle({A: 1}) == {}
    assert losses.settle({A: 3}) == {}
    assert losses.settle({A: 4}) == {}
    assert losses.settle({A: 4}) == {A: 1}


def test_what_was_counted_before_is_not_asked_for():
    losses = Losses()
    losses.tell(A)
    losses.begin({A: 100})
    assert losses.settle({A: 103}) == {}
    assert losses.settle({A: 103}) == {A: 2}


def test_flows_that_go_take_their_counts_with_them():
    losses = Losses()
    losses.tell(A, 100)
    assert losses.settle({A: 100}) == {}
    assert losses.settle({A: 40}) == {}
    losses.tell(A)
    assert losses.settle({A: 41}) == {}
    assert losses.settle({A: 43}) == {}
    assert losses.settle({A: 43}) == {A: 2}
