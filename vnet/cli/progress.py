"""Shows the progress of a long operation on standard error.

`plain` writes one line for each step that ended, `json` each message as it comes, `quiet` nothing,
`auto` keeps the running steps on the last line of a terminal and is `plain` elsewhere.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
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
    sys.stderr.write(json.dumps(message) + "\n")
    sys.stderr.flush()


def _plain(message: Message) -> None:
    if message["type"] == "plan":
        _plan(message)
    elif message["status"] in _MARKS:
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


class _Live:
    """Ended steps scroll, the running ones share the last line."""

    def __init__(self) -> None:
        self._running: dict[tuple[int, str], str] = {}

    def __call__(self, message: Message) -> None:
        if message["type"] == "plan":
            _plan(message)
            return
        sys.stderr.write(_ERASE)
        key = (message.get("step", 0), message["what"])
        if message["status"] == "started":
            self._running[key] = message["what"]
        else:
            self._running.pop(key, None)
            sys.stderr.write(line(message, colour_wanted(sys.stderr)) + "\n")
        if self._running:
            text = "… " + ", ".join(self._running.values())
            sys.stderr.write(text[: shutil.get_terminal_size().columns - 1])
        sys.stderr.flush()
