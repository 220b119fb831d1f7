"""Progress on a terminal: what runs, how much is done, and nothing left over when it goes wrong."""

import io
import time
from types import SimpleNamespace

import pytest

from vnet.base.errors import HostError
from vnet.cli import progress
from vnet.cli.progress import Running, Step, Style, reporter, running_line


def message(status, what, **more):
    return {"type": "progress", "status": status, "what": what, "elapsed_s": 0.0, "detail": "", **more}


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def last_line(self):
        """As it is on the screen."""
        return self.getvalue().split("\n")[-1].split("\x1b[2K")[-1]


@pytest.fixture
def terminal(monkeypatch):
    found = Terminal()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=found))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    return found


def test_what_runs_is_told_with_how_much_is_done():
    assert running_line(Running({"start a": 0.0}, 0, 1), 1.0, 80) == "… start a"
    assert running_line(Running({"start a": 0.0, "start b": 5.0}, 7, 9), 8.9, 80) == (
        "… 7 of 9 done, 8 s: start a, start b"
    )
    assert running_line(Running({}, 9, 9), 1.0, 80) == ""
    assert len(running_line(Running({"x" * 500: 0.0}), 1.0, 80)) == 79


def test_steps_that_ended_scroll_and_those_that_run_stay(terminal):
    tell = reporter(Style.AUTO)
    tell(message("started", "start a", of=3))
    tell(message("started", "start b", of=3))
    tell(message("done", "start a", of=3))
    assert terminal.getvalue().count("✓ start a\n") == 1
    assert terminal.last_line() == "… 1 of 3 done: start b"
    tell(message("done", "start b", of=3))
    assert terminal.last_line() == ""


def test_a_step_that_failed_is_not_counted_as_done(terminal):
    tell = reporter(Style.AUTO)
    tell(message("started", "start a", of=3))
    tell(message("started", "start b", of=3))
    tell(message("failed", "start a", detail="no"))
    assert "✗ start a: no\n" in terminal.getvalue()
    assert terminal.last_line() == "… 0 of 3 done: start b"
    tell({"type": "end"})


def test_a_step_says_in_its_place_how_far_it_is_and_begins_anew_without(terminal):
    tell = reporter(Style.AUTO)
    tell(message("started", "export a"))
    tell(message("moved", "export a", detail="10 %"))
    tell(message("moved", "export a", detail="20 %"))
    assert terminal.last_line() == "… export a 20 %"
    tell(message("done", "export a"))
    tell(message("started", "export a"))
    assert terminal.last_line() == "… export a"
    tell({"type": "end"})


def copy(tell):
    with Step("copy a", tell) as step:
        step.moved("1 MiB")
        raise HostError("no room")


def test_a_step_of_this_process_leaves_nothing_on_the_line_however_it_ends(terminal, monkeypatch):
    monkeypatch.setattr(progress, "TOLD_EVERY_S", 0)
    tell = reporter(Style.AUTO)
    with pytest.raises(HostError):
        copy(tell)
    assert "… copy a 1 MiB" in terminal.getvalue()
    assert terminal.last_line() == ""
    with Step("copy b", tell) as step:
        step.done("2 MiB")
    assert "✓ copy b: 2 MiB\n" in terminal.getvalue()


@pytest.mark.parametrize("style", list(Style))
def test_nothing_is_left_on_the_line_when_the_daemon_says_no_more(terminal, style):
    tell = reporter(style)
    tell(message("started", "stop a"))
    tell({"type": "end"})
    assert terminal.last_line() == ""
    assert '"end"' not in terminal.getvalue()


def test_the_line_shows_that_time_goes_on(terminal, monkeypatch):
    monkeypatch.setattr(progress, "TICK_S", 0.02)
    monkeypatch.setattr(progress, "SILENCE_S", 0)
    tell = reporter(Style.AUTO)
    tell(message("started", "start a"))
    time.sleep(1.2)
    tell(message("done", "start a"))
    assert "… 1 s: start a" in terminal.getvalue()
    time.sleep(0.1)
    before = terminal.getvalue()
    time.sleep(0.1)
    assert terminal.getvalue() == before
