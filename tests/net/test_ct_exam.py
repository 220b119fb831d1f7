"""The connection tracking exam, title by title, on both switches; what is known to fail must fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest

from tests.exams.conntrack.exam import bodies
from tests.exams.conntrack.expected import SEEN, failures
from tests.exams.conntrack.switches import KINDS, Lab
from tests.exams.conntrack.titles import ALL
from tests.ovs import why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")

BODIES, FAILURES = bodies(), failures()


def _cases() -> Iterator[object]:
    for kind in KINDS:
        for title in ALL:
            why = FAILURES.get(kind, {}).get(title)
            marks = [pytest.mark.xfail(reason=why, strict=True)] if why else []
            yield pytest.param(kind, title, id=f"{kind}: {title}", marks=marks)


def test_every_known_failure_has_a_reason_in_words() -> None:
    reasons = {title: why for known in FAILURES.values() for title, why in known.items()}
    assert [title for title, why in reasons.items() if why.startswith(SEEN)] == []


def test_what_this_switch_fails_it_fails_by_design() -> None:
    assert [why for why in FAILURES["vnet"].values() if not why.startswith("by design: ")] == []


@pytest.fixture(scope="module")
def labs() -> Iterator[Callable[[str], Lab]]:
    """One lab of each kind, made when it is first asked for."""
    with ExitStack() as stack:
        yield cache(lambda kind: stack.enter_context(Lab(kind)))


@pytest.mark.parametrize(("kind", "title"), list(_cases()))
def test_it_does_what_the_title_says(labs: Callable[[str], Lab], kind: str, title: str) -> None:
    lab = labs(kind)
    lab.reset()
    BODIES[title](lab)
