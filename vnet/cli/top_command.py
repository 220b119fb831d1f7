"""`vnet top`: what VMs send, get and lose, as it happens."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vnet.base.errors import InputError, VnetError
from vnet.cli.client import Client, Json, path
from vnet.cli.options import Settings, command
from vnet.cli.output import Format, colour_wanted, emit
from vnet.cli.records import print_record

if TYPE_CHECKING:
    from vnet.cli.top_form import Connection, Line, Seen, Size, View
    from vnet.fabric.numbers import Numbers
    from vnet.fabric.strain import Strain

LEAST_INTERVAL_S = 0.2
ANSWER_S = 10.0
"""How long the daemon may take for an answer."""
LOOK_S = 0.25
"""How often it is looked whether the terminal has another size."""
_CODES = {"title": "1", "head": "7", "good": "32", "warn": "33", "bad": "31", "dim": "2", "keys": "1"}
"""SGR parameters (ECMA-48, section 8.3.117) of each style."""


def register(app: typer.Typer) -> None:
    """Add this command."""
    command(app)(top)


def top(
    settings: Settings,
    once: Annotated[bool, typer.Option("--once", help="Print one moment and end.")] = False,
    interval: Annotated[
        float, typer.Option("--interval", min=LEAST_INTERVAL_S, help="Seconds between two looks.")
    ] = 2.0,
    sort: Annotated[
        str, typer.Option("--sort", metavar="KEY", help="traffic, cpu, ready, memory, disk, drops or name.")
    ] = "traffic",
    connections: Annotated[
        bool, typer.Option("--connections", help="The connections that carry most, instead of VMs.")
    ] = False,
    resources: Annotated[
        bool,
        typer.Option("--resources", help="Memory and disks, as guests and QEMU tell, instead of traffic."),
    ] = False,
    filter_: Annotated[
        str, typer.Option("--filter", metavar="TEXT", help="Only VMs whose name, state or reason has it.")
    ] = "",
) -> None:
    """Show what VMs send, get, lose and cost, as it happens.

    Without a terminal it prints one moment; `-o json` writes a line for each, until Ctrl-C. Keys: ? tells.
    """
    from vnet.cli import terminal
    from vnet.cli.top_form import View

    view = View(
        _sort(sort),
        filter_,
        connections=connections,
        resources=resources,
        interval_s=interval,
        unicode=_is_unicode(),
    )
    feed = _Feed(settings, interval)
    feed.wants_connections = connections
    if settings.output in (Format.JSON, Format.YAML):
        _stream(feed, view, settings.output, once)
    elif once or not terminal.is_interactive():
        _print(feed, view)
    else:
        _interactive(feed, view)


def _sort(text: str) -> Any:
    from vnet.base.errors import UsageError
    from vnet.cli.top_form import Sort

    try:
        return Sort(text)
    except ValueError:
        raise UsageError(f"--sort {text}: one of {', '.join(Sort)}") from None


def _is_unicode() -> bool:
    return "utf" in (sys.stdout.encoding or "").lower()


class _Feed:
    """Asks the daemon for numbers, of one fabric or of all."""

    def __init__(self, settings: Settings, interval_s: float) -> None:
        self._client: Client = settings.daemon()
        self._client.timeout_s = self._client.timeout_s or ANSWER_S
        self._fabric = settings.fabric if settings.name or settings.file else None
        self.interval_s = interval_s
        self._seen: Seen | None = None
        self.wants_connections = False
        """Whether connections are asked for too: that costs the daemon more."""

    def ask(self) -> Numbers:
        """Of now. Raises VnetError."""
        from vnet.fabric.numbers import from_json

        numbers = from_json(self._client.get("/v1/numbers"))
        if self._fabric in (None, "-"):
            return numbers
        kept = tuple(each for each in numbers.fabrics if each.name == self._fabric)
        if not kept:
            raise InputError(f"the fabric {self._fabric} is not up: `vnet ps` lists those that are")
        return replace(numbers, fabrics=kept)

    def look(self) -> Seen:
        """All that was seen up to now. Raises VnetError."""
        from vnet.cli.top_form import Seen
        from vnet.fabric.rates import rates

        now = self.ask()
        before = self._seen
        seen = before.add(now, rates(before.now, now)) if before else Seen(now)
        if self.wants_connections:
            found = (each for fabric in now.fabrics for each in self._connections(fabric.name))
            seen = replace(seen, connections=tuple(found))
        self._seen = replace(seen, warnings=self._warnings())
        return self._seen

    def _warnings(self) -> tuple[Strain, ...]:
        """Those of the host, and of the fabrics that are shown."""
        from vnet.fabric.strain import strain_of

        found = map(strain_of, self._client.get("/v1/strains"))
        every = self._fabric in (None, "-")
        return tuple(each for each in found if every or each.fabric in ("", self._fabric))

    def _connections(self, fabric: str) -> list[Connection]:
        answer = self._client.get(path("fabrics", fabric, "talkers"))
        return [_connection(row) for row in answer["connections"]]

    def first(self) -> Seen:
        """A moment with rates: it takes one interval."""
        self.look()
        time.sleep(self.interval_s)
        return self.look()


def _connection(row: Json) -> Connection:
    from vnet.cli.top_form import Connection

    port = "" if row["server_port"] is None else f"{row['server_port']}/"
    return Connection(
        row["fabric"],
        row["client"] or row["client_address"],
        row["server"] or row["server_address"],
        f"{port}{row['protocol']}",
        row["sent_bytes_ps"],
        row["received_bytes_ps"],
    )


def _stream(feed: _Feed, view: View, form: Format, once: bool) -> None:
    from vnet.cli.top_json import sample

    seen = feed.first()
    while True:
        print_record(sample(seen, view), form, str)
        sys.stdout.flush()
        if once:
            return
        time.sleep(feed.interval_s)
        seen = feed.look()


def _print(feed: _Feed, view: View) -> None:
    from vnet.cli.top_view import plain, whole

    lines = whole(feed.first(), shutil.get_terminal_size((120, 24)).columns, view)
    if colour_wanted(sys.stdout):
        emit("\n".join(map(_coloured, lines)))
    else:
        sys.stdout.write(plain(lines))


def _coloured(line: Line) -> str:
    return "".join(
        f"\x1b[{_CODES[span.style]}m{span.text}\x1b[0m" if span.style else span.text for span in line
    )


# -- on a terminal --------------------------------------------------------------------------------


class _Watcher:
    """Asks again and again in a thread of its own, so that keys are never kept waiting.

    `fd` is readable when there is news.
    """

    def __init__(self, feed: _Feed) -> None:
        self._feed = feed
        self._news: deque[Seen | VnetError] = deque(maxlen=1)
        self._end, self._hurry = threading.Event(), threading.Event()
        self.fd, self._tell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while not self._end.is_set():
            try:
                self._news.append(self._feed.look())
            except VnetError as error:
                self._news.append(error)
            if self._end.is_set():
                return
            os.write(self._tell, b".")
            self._hurry.wait(self._feed.interval_s)
            self._hurry.clear()

    def wants_connections(self, wanted: bool) -> None:
        """Whether connections are looked at; when that is new, at once."""
        if wanted != self._feed.wants_connections:
            self._feed.wants_connections = wanted
            self._hurry.set()

    def news(self) -> Seen | VnetError | None:
        """The newest, once."""
        try:
            os.read(self.fd, 4096)
        except BlockingIOError:
            return None
        return self._news.pop() if self._news else None

    def close(self) -> None:
        """Ask no more. What is on its way is not waited for."""
        self._end.set()
        self._hurry.set()


def _interactive(feed: _Feed, view: View) -> None:
    from rich.console import Console
    from rich.live import Live

    from vnet.cli import terminal

    seen = feed.look()
    watcher = _Watcher(feed)
    console = Console(highlight=False)
    try:
        with (
            terminal.single_keys() as keyboard,
            Live(console=console, screen=True, auto_refresh=False, redirect_stderr=False) as live,
        ):
            _loop(watcher, keyboard, live, seen, view)
    except KeyboardInterrupt:
        return
    finally:
        watcher.close()


def _loop(watcher: _Watcher, keyboard: int, live: Any, seen: Seen, view: View) -> None:
    """Until the user has seen enough: draw, then wait for a key, news or another size."""
    from vnet.cli import terminal
    from vnet.cli.top_keys import Quit, keys, press
    from vnet.cli.top_view import count, page, render

    drawn: Any = None
    while True:
        size = _size(live)
        if (seen, view, size) != drawn:
            live.update(_text(render(seen, size, view)), refresh=True)
            drawn = (seen, view, size)
        data = terminal.typed(keyboard, watcher.fd, timeout_s=LOOK_S)
        for key in keys(data):
            pressed = press(view, key, count(seen, view), page(size))
            if isinstance(pressed, Quit):
                return
            view = pressed
        watcher.wants_connections(view.connections)
        seen = _newer(seen, watcher.news(), view)


def _newer(seen: Seen, news: Seen | VnetError | None, view: View) -> Seen:
    if news is None or view.paused:
        return seen
    if isinstance(news, VnetError):
        return replace(seen, silence=f"does not answer: {' '.join(str(news).split())}")
    return news


def _size(live: Any) -> Size:
    from vnet.cli.top_form import Size

    columns, lines = live.console.size
    return Size(columns, lines)


_STYLES = {
    "title": "bold",
    "head": "reverse",
    "good": "green",
    "warn": "yellow",
    "bad": "red",
    "dim": "dim",
    "keys": "bold",
}


def _text(lines: tuple[Line, ...]) -> Any:
    from rich.text import Text

    whole = Text(no_wrap=True, overflow="crop", end="")
    for number, line in enumerate(lines):
        whole.append("\n" if number else "")
        for span in line:
            whole.append(span.text, _STYLES.get(span.style, ""))
    return whole
