"""Marks each test by the folder it lies in, runs the quick kinds first, skips openly what needs root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from tests import leftovers

KINDS = {"unit": 120, "golden": 60, "wire": 60, "bpf": 300, "net": 300, "vm": 900}
"""The kinds in the order they run, with the seconds one test of them may take."""
NEED_ROOT = ("bpf", "net", "vm")
HERE = Path(__file__).parent

# The same examples in every run, so that a red test means a change; VNET_EXPLORE=1 looks for new ones.
# Without the phase that explains failures: it traces every line, before there is one (Python 3.11).
settings.register_profile(
    "vnet",
    derandomize=not os.environ.get("VNET_EXPLORE"),
    deadline=None,
    print_blob=True,
    phases=set(Phase) - {Phase.explain},
)
settings.load_profile("vnet")


def pytest_sessionstart() -> None:
    """A run that was killed may have left namespaces and pins: they go before this one makes its own."""
    if os.geteuid() == 0 and "PYTEST_XDIST_WORKER" not in os.environ:
        leftovers.sweep()


def _kind(item: pytest.Item) -> str | None:
    parts = item.path.relative_to(HERE).parts if item.path.is_relative_to(HERE) else ()
    return parts[0] if parts and parts[0] in KINDS else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Apply the marks and the order."""
    for item in items:
        kind = _kind(item)
        if kind is None:
            continue
        item.add_marker(kind)
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(KINDS[kind]))
        if kind in NEED_ROOT and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason=f"{kind} tests need root"))
    order = {kind: place for place, kind in enumerate(KINDS)}
    items.sort(key=lambda item: order.get(_kind(item) or "", len(order)))
