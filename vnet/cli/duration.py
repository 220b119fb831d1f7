"""Time spans as people write them."""

from __future__ import annotations

import re

from vnet.base.errors import UsageError

_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smh]?)")
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str, option: str) -> float:
    """`120s`, `2m`, `1.5h`, or a plain number of seconds. Raises UsageError."""
    found = _SPAN.fullmatch(text)
    span_s = float(found[1]) * _SECONDS[found[2]] if found else 0.0
    if span_s <= 0:
        raise UsageError(f"{option} {text}: write a time such as 120s, 5m or 1h")
    return span_s
