"""A loaded switch in a namespace of its own, with veth pairs as ports."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bpf.bench import Bench


@pytest.fixture
def bench() -> Iterator[Bench]:
    with Bench() as made:
        yield made
