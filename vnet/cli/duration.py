"""Times and time spans as people write them."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime, time, timedelta

from vnet.base.errors import UsageError

_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)")
_DAYS = {"today": 0, "yesterday": 1}
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(text: str, option: str) -> float:
    """`120s`, `2m`, `1.5h`, `30d`, or a plain number of seconds. Raises UsageError."""
    found = _SPAN.fullmatch(text)
    span_s = float(found[1]) * _SECONDS[found[2]] if found else 0.0
    if span_s <= 0:
        raise UsageError(f"{option} {text}: write a time such as 120s, 5m or 1h")
    return span_s


def moment_ns(text: str, option: str, now: datetime) -> int:
    """Nanoseconds since 1970: `14:03` (the last time it was), `2026-11-28T14:03`, `yesterday 14:03`, `2h`.

    Times without a time zone are in that of `now`; if it has none, in local time as it was then, summer or
    winter. What is before 1970 is 1970. Raises UsageError.
    """
    if found := _SPAN.fullmatch(text):
        return round(max(0.0, now.timestamp() - float(found[1]) * _SECONDS[found[2]]) * 1e9)
    try:
        return round(max(0.0, _moment(text, option, now).timestamp()) * 1e9)
    except (ValueError, OverflowError):  # the year 1, in some time zones
        return 0


def _moment(text: str, option: str, now: datetime) -> datetime:
    try:
        today = datetime.combine(now.date(), time.fromisoformat(text), now.tzinfo)
        return today if today <= now else today - timedelta(days=1)
    except ValueError:
        pass
    day, _, hour = text.partition(" ")
    if day in _DAYS:
        with suppress(ValueError):
            then = now.date() - timedelta(days=_DAYS[day])
            return datetime.combine(then, time.fromisoformat(hour or "00:00"), now.tzinfo)
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{option} {text}: write a time such as 14:03, yesterday 14:03, 2026-11-28T14:03 or 2h"
        ) from None
    return given if given.tzinfo else given.replace(tzinfo=now.tzinfo)
