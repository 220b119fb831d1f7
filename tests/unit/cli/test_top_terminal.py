"""`vnet top` on a terminal: what it draws, and that the terminal is given back as it was, however it ends."""

import json
import os
import pty
import select
import signal
import subprocess
import termios
import time

import pytest

from tests.unit.cli.test_change_commands import Vnet
from tests.unit.fabric.test_engine import SMALL

PATIENCE_S = 30
ENTER, LEAVE, SHOW_CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"


@pytest.fixture(scope="module")
def vnet(tmp_path_factory):
    made = Vnet(tmp_path_factory.mktemp("host"))
    made.up(SMALL)
    yield made
    made.end()


class Screen:
    """`vnet top` in a terminal of 80x24."""

    def __init__(self, vnet, *words):
        self.fd, self.theirs = pty.openpty()
        termios.tcsetwinsize(self.theirs, (24, 80))
        self.before = termios.tcgetattr(self.theirs)
        options = {**vnet.options, "env": {**vnet.options["env"], "TERM": "xterm"}}
        options["env"] = {k: v for k, v in options["env"].items() if k not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            vnet.command("top", "--interval", "0.2", *words),
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            **options,
        )
        self.shown = ""

    def shows(self, text):
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.shown:
            assert time.monotonic() < deadline, self.shown
            self._read()

    def _read(self):
        if select.select([self.fd], [], [], 0.1)[0]:
            self.shown += os.read(self.fd, 65536).decode()

    def types(self, text):
        self.shown = ""
        os.write(self.fd, text.encode())

    def ends(self):
        """The exit code; the terminal must be as before."""
        deadline = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.shown
            self._read()
        self._read()
        after = termios.tcgetattr(self.theirs)
        os.close(self.theirs)
        os.close(self.fd)
        assert after == self.before
        assert self.shown.rindex(LEAVE) > self.shown.rfind(ENTER)
        assert self.shown.rindex(SHOW_CURSOR) > self.shown.rfind("\x1b[?25l")
        assert "Traceback" not in self.shown
        return self.process.returncode


def test_it_shows_vms_and_does_what_keys_say(vnet):
    screen = Screen(vnet)
    screen.shows("1-2 of 2")
    assert ENTER in screen.shown
    screen.types("s")
    screen.shows("sort:cpu")
    screen.types("/b\r")
    screen.shows("1-1 of 1")
    screen.types("?")
    screen.shows("any key goes back")
    screen.types("x")
    screen.shows("filter b")
    screen.types("c")
    screen.shows("CLIENT")
    screen.shows("0-0 of 0")
    screen.types("c")
    screen.shows("1-1 of 1")
    screen.types("p")
    screen.shows("PAUSED")
    screen.types("q")
    assert screen.ends() == 0


def test_it_follows_the_size_of_the_terminal(vnet):
    screen = Screen(vnet)
    screen.shows("? help")
    screen.shown = ""
    termios.tcsetwinsize(screen.theirs, (30, 100))
    screen.shows(" " * 100)
    screen.types("q")
    assert screen.ends() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_gives_the_terminal_back(vnet, number):
    screen = Screen(vnet)
    screen.shows("? help")
    screen.process.send_signal(number)
    assert screen.ends() in (0, 130)


def test_ctrl_c_is_an_end_like_any_other(vnet):
    screen = Screen(vnet)
    screen.shows("? help")
    screen.process.send_signal(signal.SIGINT)
    assert screen.ends() == 0


def test_without_a_terminal_it_prints_one_moment(vnet):
    told = vnet("top", "--interval", "0.2").stdout
    assert "\x1b" not in told
    assert told.startswith("vnet top  ") and "ready   what is wanted is in force" in told
    assert len(told.splitlines()) == 7 + 2


def test_a_stream_for_programs_has_a_line_for_each_moment(vnet):
    command = vnet.command("top", "-o", "json", "--interval", "0.2")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **vnet.options) as stream:
        samples = [json.loads(stream.stdout.readline()) for _ in range(3)]
        stream.terminate()
    assert [sorted(vm["vm"] for vm in sample["vms"]) for sample in samples] == [["a", "b"]] * 3
    assert samples[0]["time"] < samples[1]["time"] < samples[2]["time"]


def test_a_daemon_that_goes_away_is_told_and_found_again(vnet):
    screen = Screen(vnet)
    screen.shows("1-2 of 2")
    vnet.end()
    screen.shows("does not answer")
    vnet.begin()
    vnet.up(SMALL)
    screen.shown = ""
    screen.shows("what is wanted is in force")
    screen.types("q")
    assert screen.ends() == 0


def test_an_order_that_there_is_not_is_refused_with_those_there_are(vnet):
    assert "traffic, cpu, ready, memory, disk, drops, name" in vnet("top", "--sort", "age", expect=2).stderr


def test_a_fabric_that_is_not_up_is_refused(vnet):
    assert "the fabric other is not up" in vnet("top", "--once", "-n", "other", expect=1).stderr
