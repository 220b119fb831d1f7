"""A step of a long operation is told of in one place: begun, how far it is, ended."""

from __future__ import annotations

import pytest

from vnet.base.errors import HostError
from vnet.fabric.live.telling import notes, telling


def told(seen):
    return [(each.what, each.status.value, each.detail) for each in seen]


def test_how_far_a_step_is_is_told_of_the_step_itself():
    seen = []
    with telling(seen.append, 1, "export web", 1) as remark:
        remark.moved("disk data: 10 %")
        notes(seen.append)("it takes its time")
        remark.text = "12 MiB"
    assert told(seen) == [
        ("export web", "started", ""),
        ("export web", "moved", "disk data: 10 %"),
        ("it takes its time", "note", ""),
        ("export web", "done", "12 MiB"),
    ]


def fails(report):
    with telling(report, 1, "export web", 1) as remark:
        remark.text = "12 MiB"
        raise HostError("no room")


def test_a_step_that_fails_says_why():
    seen = []
    with pytest.raises(HostError):
        fails(seen.append)
    assert told(seen)[-1] == ("export web", "failed", "no room")
