"""How the daemon's log is written: as text, logfmt or JSON, on standard error.

Under systemd each line begins with its priority, which journald takes off and keeps; the time is journald's.
Neither what requests carry nor what is typed into guests or read from them is ever logged.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TextIO


class LogFormat(StrEnum):
    """What `--log-format` takes."""

    TEXT = "text"
    LOGFMT = "logfmt"
    JSON = "json"


_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.DEBUG, 7))
"""Python's levels as syslog's (sd-daemon(3))."""
_BARE = re.compile(r"[^\s\"=\\\x00-\x1f\x7f]+")


def about(**fields: str) -> dict[str, Mapping[str, str]]:
    """What a message is about, as `extra` of a logging call: `fabric`, `kind`, `subject`."""
    return {"about": {name: value for name, value in fields.items() if value}}


class LineFormatter(logging.Formatter):
    """One message in the form that was asked for; only as text it may be several lines."""

    def __init__(self, form: LogFormat, journal: bool = False) -> None:
        super().__init__()
        self._form, self._journal = form, journal

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        text: str = _FORMS[self._form](self._fields(record))
        if not self._journal:
            return text
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
        return "\n".join(f"<{priority}>{line}" for line in text.split("\n"))

    def _fields(self, record: logging.LogRecord) -> dict[str, str]:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        time = {} if self._journal else {"time": when.replace("+00:00", "Z")}
        more: Mapping[str, str] = getattr(record, "about", {})
        trace = {"trace": self.formatException(record.exc_info)} if record.exc_info else {}
        named = {"level": record.levelname.lower(), "logger": record.name}
        return {**time, **named, "msg": record.getMessage(), **more, **trace}


def _text(fields: Mapping[str, str]) -> str:
    head = " ".join(filter(None, (fields.get("time", ""), fields["level"], fields.get("fabric", ""))))
    trace = f"\n{fields['trace']}" if "trace" in fields else ""
    return f"{head}: {fields['msg']}{trace}"


def _logfmt(fields: Mapping[str, str]) -> str:
    return " ".join(f"{name}={_quoted(value)}" for name, value in fields.items())


def _quoted(value: str) -> str:
    return value if _BARE.fullmatch(value) else json.dumps(value, ensure_ascii=False)


def _json(fields: Mapping[str, str]) -> str:
    return json.dumps(fields, ensure_ascii=False)


_FORMS: Mapping[LogFormat, Any] = {
    LogFormat.TEXT: _text,
    LogFormat.LOGFMT: _logfmt,
    LogFormat.JSON: _json,
}


class Counting(logging.Handler):
    """Counts messages by level."""

    def __init__(self, counts: Counter[str]) -> None:
        super().__init__(logging.INFO)
        self._counts = counts

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        self._counts[record.levelname.lower()] += 1


def is_journal(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Whether what is written there goes to journald, which says so by device and inode (systemd.exec(5))."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def set_up(stream: TextIO, form: LogFormat, verbose: bool, journal: bool) -> Counter[str]:
    """Write everything that is logged to the stream from now on; returns the counts by level, which go on."""
    counts: Counter[str] = Counter()
    writing = logging.StreamHandler(stream)
    writing.setFormatter(LineFormatter(form, journal))
    root = logging.getLogger()
    root.handlers[:] = [writing, Counting(counts)]
    root.setLevel(logging.INFO)
    logging.getLogger("vnet").setLevel(logging.DEBUG if verbose else logging.INFO)
    return counts
