"""The connection tracking exam is complete: each title has a body or a reason, and the page says so."""

from __future__ import annotations

from tests.exams.conntrack.exam import bodies
from tests.exams.conntrack.expected import PAGE, failures, page
from tests.exams.conntrack.titles import ALL, TITLES, slug


def test_every_title_that_applies_has_a_body_named_after_it() -> None:
    assert {title: body.__name__ for title, body in bodies().items()} == {t: slug(t) for t in ALL}


def test_every_other_title_has_a_reason_in_words() -> None:
    assert len(TITLES) == 192
    assert all(len(reason.split()) > 3 for reason in TITLES.values() if reason)


def test_only_titles_that_are_run_are_expected_to_fail() -> None:
    for kind, reasons in failures().items():
        assert set(reasons) <= set(ALL), kind
        assert all(reasons.values()), kind


def test_the_page_tells_what_is_expected() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m tests.exams.conntrack --record"
