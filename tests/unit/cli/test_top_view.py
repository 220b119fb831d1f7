"""Keys, sparklines and amounts of `vnet top`."""

import json

import pytest

from tests.golden.test_top import seen
from vnet.cli.output import amount
from vnet.cli.top_form import Sort, View, shortened
from vnet.cli.top_json import sample
from vnet.cli.top_keys import Quit, keys, press
from vnet.cli.top_view import BARS, chosen, spark


def pressed(view, *names, count=200, room=17):
    for name in names:
        view = press(view, name, count, room)
    return view


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        (b"sq", ("s", "q")),
        (b"\x1b[A\x1b[B\x1bOA", ("up", "down", "up")),
        (b"\x1b[5~\x1b[6~", ("page up", "page down")),
        (b"\x1b", ("escape",)),
        (b"\x1b[1;5Cq", ("q",)),
        (b"\x1b[200~", ()),
        ("ä/".encode(), ("/",)),
        (b"\x7f\r", ("backspace", "enter")),
    ],
)
def test_bytes_become_keys(typed, found):
    assert keys(typed) == found


@pytest.mark.parametrize(
    "typed", [bytes([n]) for n in range(256)] + [b"\x1b[" + bytes([n]) for n in range(256)]
)
def test_no_byte_is_one_too_many(typed):
    for key in keys(typed):
        press(View(), key, 3, 2)
        press(View(typing=""), key, 3, 2)


def test_scrolling_ends_at_both_ends():
    assert pressed(View(), "up").offset == 0
    assert pressed(View(), "down", "down", "up").offset == 1
    assert pressed(View(), "end").offset == 183
    assert pressed(View(), "end", "down").offset == 183
    assert pressed(View(), "end", "page up").offset == 166
    assert pressed(View(), "page down", "home").offset == 0
    assert pressed(View(), "down", count=3).offset == 0


def test_scrolling_goes_on_from_what_is_shown_when_vms_have_gone():
    assert pressed(View(offset=183), "up", count=50).offset == 32


def test_the_filter_is_typed_kept_and_cleared():
    assert pressed(View(), "/", "d", "x", "backspace", "b", "enter") == View(filter="db")
    assert pressed(View(filter="db"), "/", "escape") == View()
    assert pressed(View(filter="db"), "escape") == View()
    assert pressed(View(), "/", "q").typing == "q"
    assert pressed(View(filter="db"), "/").typing == "db"


def test_q_quits_and_other_keys_do_what_help_says():
    assert pressed(View(), "q") == Quit()
    assert pressed(View(), *"s" * len(Sort)) == View()
    assert pressed(View(), "p").paused and not pressed(View(), "p", " ").paused
    assert pressed(View(), "?").help and not pressed(View(), "?", "q").help
    assert pressed(View(offset=3), "c") == View(connections=True)
    assert pressed(View(connections=True), "m") == View(resources=True)
    assert pressed(View(resources=True), "c") == View(connections=True)
    assert pressed(View(), "x", "\x00") == View()


def test_a_filter_looks_at_names_states_and_reasons():
    def names(text):
        return [row.vm.name for row in chosen(seen("shop"), View(filter=text))]

    assert names("WEB") == ["web-1"]
    assert names("crashed") == ["app"]
    assert names("refusal") == ["intruder"]
    assert names("shop/") == ["web-1", "intruder", "app", "db"]
    assert names("nobody") == []


def test_each_order_puts_the_most_first():
    def first(sort):
        return chosen(seen("shop"), View(sort))[0].vm.name

    assert [first(sort) for sort in (Sort.TRAFFIC, Sort.CPU, Sort.DROPS, Sort.NAME)] == [
        "web-1",
        "web-1",
        "intruder",
        "app",
    ]


def test_a_sparkline_shows_all_that_is_not_nothing():
    assert spark((0.0, 1.0, 500.0, 1000.0), 6) == "   ▁▄█"
    assert spark((1.0, 2.0, 3.0), 2) == "▅█"
    assert spark((), 3) == "   "
    assert spark((0.0, 0.0), 2) == "  "
    assert spark((5.0,), 0) == ""
    assert set(spark(tuple(map(float, range(100))), 100)) == set(BARS)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0, "0"), (0.04, "0.0"), (0.5, "0.5"), (0.97, "1"), (7, "7"), (999.4, "999"), (999.6, "1.0k")),
        *((1234, "1.2k"), (38e6, "38M"), (9.96e9, "10G"), (999.7e12, "1.0P")),
    ],
)
def test_amounts_are_short(value, text):
    assert amount(value) == text
    assert len(text) <= 5


def test_memory_is_counted_as_topologies_write_it():
    assert amount(96 << 20, 1024) == "96M"


def test_a_long_name_keeps_its_beginning_and_its_end():
    assert shortened("a-very-long-name-17", 10) == "a-ver…e-17"
    assert shortened("short", 10) == "short"
    assert shortened("longer", 5, unicode=False) == "lo~er"


def test_a_sample_for_programs_says_what_the_screen_says():
    found = json.loads(json.dumps(sample(seen("shop"), View())))
    assert found["span_s"] == 2.0 and found["ready"]
    first = found["vms"][0]
    assert (first["vm"], first["cpu_percent"]) == ("web-1", 62.5)
    assert first["sent_bytes_ps"] == 2_000_000
    assert found["drops_pps"] == {"REFUSAL_QUOTA": 350.0, "POLICY": 50.0, "MTU": 0.0}
