"""Shows the progress of a long operation on standard error.

`plain` writes one line for each step that ended, `json` each message as it comes, `quiet` nothing,
`auto` keeps the running steps on the last line of a terminal and is `plain` elsewhere.
"""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from vnet.cli import plan_text
from vnet.cli.output import colour_wanted

Message = dict[str, Any]


class Style(StrEnum):
    """What `--progress` takes."""

    AUTO = "auto"
    PLAIN = "plain"
    JSON = "json"
    QUIET = "quiet"


_MARKS = {"done": ("✓", "32"), "failed": ("✗", "31"), "note": ("·", "33")}
SILENCE_S = 2
"""From then on it is told how long what runs has run."""
TICK_S = 1.0
TOLD_EVERY_S = 0.5
_ERASE = "\r\x1b[2K"


def reporter(style: Style) -> Callable[[Message], None]:
    """The function to hand each progress message to."""
    if style is Style.QUIET:
        return lambda message: None
    if style is Style.JSON:
        return _json
    if style is Style.AUTO and sys.stderr.isatty():
        return _Live()
    return _plain


def _json(message: Message) -> None:
    if message["type"] == "end":
        return
    sys.stderr.write(json.dumps(message) + "\n")
    sys.stderr.flush()


def _plain(message: Message) -> None:
    if message["type"] == "plan":
        _plan(message)
    elif message.get("status") in _MARKS:
        sys.stderr.write(line(message, colour_wanted(sys.stderr)) + "\n")
        sys.stderr.flush()


def _plan(message: Message) -> None:
    for text in plan_text.lines(message, colour_wanted(sys.stderr)):
        sys.stderr.write(text + "\n")
    sys.stderr.flush()


def line(message: Message, coloured: bool) -> str:
    """A step that ended, in one line: `✓ start web-1 (2.1 s): warm clone`."""
    mark, code = _MARKS[message["status"]]
    if coloured:
        mark = f"\x1b[{code}m{mark}\x1b[0m"
    elapsed = f" ({message['elapsed_s']:.1f} s)" if message.get("elapsed_s", 0) >= 0.05 else ""
    detail = f": {message['detail']}" if message.get("detail") else ""
    return f"{mark} {message['what']}{elapsed}{detail}"


@dataclass(frozen=True, slots=True)
class Running:
    """Steps that run, each with the time it began at; how many have ended, of how many (0: not known)."""

    began_s: Mapping[str, float] = field(default_factory=dict)
    ended: int = 0
    of: int = 0
    details: Mapping[str, str] = field(default_factory=dict)
    """How far they are, of those that tell."""


def running_line(running: Running, now_s: float, columns: int) -> str:
    """The last line of the terminal while something runs: `… 12 of 205 done, 8 s: start web-9, …`."""
    if not running.began_s:
        return ""
    counted = [f"{running.ended} of {running.of} done"] if running.of > 1 else []
    took_s = int(now_s - min(running.began_s.values()))
    counted += [f"{took_s} s"] if took_s >= SILENCE_S else []
    head = f"… {', '.join(counted)}{': ' if counted else ''}"
    steps = (f"{what} {running.details.get(what, '')}".strip() for what in running.began_s)
    return (head + ", ".join(steps))[: columns - 1]


def _without(running: Running, ended: str, is_done: bool) -> Running:
    began_s = {what: began_s for what, began_s in running.began_s.items() if what != ended}
    details = {what: detail for what, detail in running.details.items() if what != ended}
    return replace(running, began_s=began_s, details=details, ended=running.ended + is_done)


class Step:
    """A step that this process takes itself, told of as the daemon tells of its own. Its body is the step."""

    def __init__(self, what: str, report: Callable[[Message], None]) -> None:
        self._what, self._report = what, report
        self._began_s = self._told_s = time.monotonic()

    def __enter__(self) -> Step:
        self._tell("started")
        return self

    def __exit__(self, *_: object) -> None:
        self._report({"type": "end"})

    def moved(self, detail: str) -> None:
        """How far it is; told twice a second at most."""
        if time.monotonic() - self._told_s > TOLD_EVERY_S:
            self._told_s = time.monotonic()
            self._tell("moved", detail=detail)

    def done(self, detail: str) -> None:
        """It ended well."""
        self._tell("done", detail=detail, elapsed_s=time.monotonic() - self._began_s)

    def _tell(self, status: str, **more: Any) -> None:
        self._report({"type": "progress", "status": status, "what": self._what, **more})


class _Live:
    """Ended steps scroll, the running ones share the last line, which shows that time goes on."""

    def __init__(self) -> None:
        self._running = Running()
        self._lock = threading.Lock()
        self._ticking = False

    def __call__(self, message: Message) -> None:
        with self._lock:
            sys.stderr.write(_ERASE)
            self._take(message)
            self._draw()
        if self._running.began_s and not self._ticking:
            self._ticking = True
            threading.Thread(target=self._tick, daemon=True).start()

    def _take(self, message: Message) -> None:
        if message["type"] == "plan":
            _plan(message)
        elif message["type"] == "end":
            self._running = Running()
        elif message["status"] == "started":
            began_s = {**self._running.began_s, message["what"]: time.monotonic()}
            self._running = replace(self._running, began_s=began_s, of=message.get("of") or 0)
        elif message["status"] == "moved":
            details = {**self._running.details, message["what"]: message.get("detail", "")}
            self._running = replace(self._running, details=details)
        else:
            sys.stderr.write(line(message, colour_wanted(sys.stderr)) + "\n")
            self._running = _without(self._running, message["what"], message["status"] == "done")

    def _draw(self) -> None:
        columns = shutil.get_terminal_size().columns
        sys.stderr.write(running_line(self._running, time.monotonic(), columns))
        sys.stderr.flush()

    def _tick(self) -> None:
        while self._running.began_s:
            time.sleep(TICK_S)
            with self._lock:
                if self._running.began_s:
                    sys.stderr.write(_ERASE)
                    self._draw()
        self._ticking = False
