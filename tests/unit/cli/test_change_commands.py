"""plan, up, confirm and rollback as a user meets them, with the real daemon on a host in memory."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.unit.fabric.test_engine import LARGER, ONLY_C, OTHER_MEMORY, SMALL, WITHOUT_A
from tests.waiting import until
from vnet.base.errors import UsageError
from vnet.cli.client import Client
from vnet.cli.duration import seconds

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_S = 30


class Terminal:
    """A command whose standard input and error are a terminal."""

    def __init__(self, command, **options):
        self.fd, theirs = pty.openpty()
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stderr=theirs,
            stdout=subprocess.PIPE,
            text=True,
            # who runs the tests in the background has Ctrl-C ignored, and children inherit that
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            **options,
        )
        os.close(theirs)
        self.shown = ""

    def shows(self, text):
        """Read until the text is there."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.shown:
            assert time.monotonic() < deadline, self.shown
            self.shown += os.read(self.fd, 65536).decode()

    def types(self, text):
        os.write(self.fd, text.encode())

    def ends(self):
        code = self.process.wait(timeout=PATIENCE_S)
        self.process.stdout.close()
        os.close(self.fd)
        return code


class Vnet:
    """Runs `vnet` in a directory of its own; `declare` writes the topology file there."""

    def __init__(self, directory):
        self.directory = directory
        environment = {key: value for key, value in os.environ.items() if not key.startswith("VNET_")}
        paths = {"VNET_RUN_DIR": str(directory / "run"), "VNET_STATE_DIR": str(directory / "state")}
        self.options = {
            "env": {**environment, **paths, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
            "cwd": directory,
        }
        (directory / "run").mkdir()
        self.client = Client(directory / "run" / "vnetd.sock")
        self.begin()

    def begin(self):
        """Start the daemon."""
        command = [sys.executable, "-m", "tests.fakes.daemon_in_memory", str(self.directory / "state")]
        self.daemon = subprocess.Popen(command, env=self.options["env"], cwd=ROOT)
        deadline = time.monotonic() + PATIENCE_S
        while not self.client.alive():
            assert self.daemon.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def up(self, text):
        """A fabric that is up, without the command."""
        source = {"file": "small.vnet.yaml", "text": text, "agreed": True}
        self.client.run("POST", "/v1/fabrics", source, lambda message: None)

    def declare(self, text):
        (self.directory / "small.vnet.yaml").write_text(text)

    def __call__(self, *words, expect=0):
        done = subprocess.run(
            self.command(*words), stdin=subprocess.DEVNULL, capture_output=True, text=True, **self.options
        )
        assert done.returncode == expect, done.stderr
        return done

    def json(self, *words):
        return json.loads(self(*words, "-o", "json").stdout)

    def terminal(self, *words):
        return Terminal(self.command(*words), **self.options)

    def command(self, *words):
        return [sys.executable, "-m", "vnet", *words]

    def vms(self):
        return {row["vm"] for row in self.client.get("/v1/vms")}

    def end(self):
        self.daemon.terminate()
        self.daemon.wait(timeout=PATIENCE_S)


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    made = Vnet(tmp_path_factory.mktemp("host"))
    yield made
    made.end()


@pytest.fixture
def vnet(host):
    """Nothing is up, before and after."""
    yield host
    if host.daemon.poll() is not None:
        host.begin()
    host.client.run("DELETE", "/v1/fabrics/small", None, lambda message: None)


def test_a_plan_is_told_by_what_it_changes_with_marks_and_numbers(vnet):
    vnet.up(LARGER)
    vnet.declare(OTHER_MEMORY)
    told = vnet("plan").stdout.splitlines()
    assert told[0] == "small: to generation 2"
    expected = ["VMs", "  ~ a: memory 96M → 128M (live)", "  - c", "ports", "  - c.eth0", "policies"]
    assert told[1:7] == expected
    assert told[-1].startswith("VMs: 1 changed, 1 removed, 1 kept; ports: 1 removed, 2 kept; flows: ")
    assert vnet("plan", "--exit-code", expect=3).stdout.splitlines() == told
    vnet("up")
    assert vnet("up").stderr == "small: nothing to change, generation 2\n"
    assert vnet("plan", "--exit-code").stdout == "small: nothing to change, generation 2\n"


def test_up_tells_the_plan_that_it_carries_out(vnet):
    vnet.declare(SMALL)
    planned = vnet("plan").stdout
    assert vnet("up").stderr.startswith(planned)
    assert planned not in vnet("up", "-q").stderr


def test_a_plan_as_data_has_its_changes_its_numbers_and_its_name(vnet):
    vnet.declare(SMALL)
    plan = vnet.json("plan")
    assert plan["counts"]["vms"] == {"added": 2, "changed": 0, "removed": 0, "kept": 0}
    start = {"mark": "+", "kind": "vm", "name": "a", "what": "start", "fields": []}
    assert start in plan["changes"]
    assert plan["removes_most"] is False
    refused = vnet("up", "--plan", "0123456789ab", expect=6).stderr
    assert "no longer 0123456789ab" in refused
    assert vnet.json("up", "--plan", plan["id"])["changes"] == plan["changes"]


def test_progress_as_data_has_the_plan_before_the_first_step(vnet):
    vnet.declare(SMALL)
    messages = [json.loads(line) for line in vnet("up", "-q", "--progress", "json").stderr.splitlines()]
    assert messages == []
    vnet.declare(LARGER)
    told = vnet("up", "--progress", "json").stderr.splitlines()
    messages = [json.loads(line) for line in told if line.startswith("{")]
    assert messages[0]["type"] == "plan" and {each["type"] for each in messages[1:]} == {"progress"}


# -- asking first ---------------------------------------------------------------------------------


def test_the_rules_of_a_fabric_are_shown_with_what_they_have_decided(vnet):
    rules = "[{from: vm:a, ports: [22/tcp]}, {from: vm:a, action: deny}]"
    vnet.up(f"{SMALL}policies: [{{name: p, applied_to: vm:b, ingress: {rules}}}]\n")
    first, second = vnet.json("policy", "show", "--hits", "-n", "small")
    assert (first["packets"], first["needless"]) == (0, "")
    assert datetime.fromisoformat(first["since"]) < datetime.now(UTC)
    assert second["note"] == "redundant: without it the default (small.vnet.yaml:8) decides the same"
    shown = vnet("policy", "show", "--hits", "b", "-n", "small").stdout
    assert "PACKETS" in shown
    assert (
        "p ingress 2: tcp from a.eth0 10.0.0.2 port 40000 to b.eth0 10.0.0.3 port 0: else denied by" in shown
    )
    assert "there is no VM x" in vnet("policy", "show", "--hits", "x", "-n", "small", expect=2).stderr


@pytest.fixture
def three(vnet):
    """Three VMs are up, and the file has one of them."""
    vnet.up(LARGER)
    vnet.declare(ONLY_C)
    return vnet


def test_without_a_terminal_removing_more_than_is_kept_is_refused_and_yes_does_it(three):
    told = three("up", expect=6).stderr
    assert "remove 2 of 3 VMs and 2 of 3 ports of small" in told and "--yes" in told
    assert three.vms() == {"a", "b", "c"}
    three("up", "--yes")
    assert three.vms() == {"c"}


@pytest.mark.parametrize(
    ("answer", "code", "left"), [("y", 0, {"c"}), ("n", 6, {"a", "b", "c"}), ("", 6, {"a", "b", "c"})]
)
def test_on_a_terminal_the_plan_is_shown_and_asked_about(three, answer, code, left):
    terminal = three.terminal("up")
    terminal.shows("Carry it out? [y/N] ")
    assert "- a" in terminal.shown and "2 removed, 1 kept" in terminal.shown
    terminal.types(f"{answer}\n")
    assert terminal.ends() == code
    assert three.vms() == left


def test_a_plan_that_changes_while_it_is_asked_about_is_shown_and_asked_about_again(three):
    terminal = three.terminal("up")
    terminal.shows("[y/N] ")
    three("stop", "c")
    terminal.types("y\n")
    terminal.shows("The plan has changed meanwhile:")
    terminal.shows("~ c: start: it does not run")
    terminal.types("n\n")
    assert terminal.ends() == 6
    assert three.vms() == {"a", "b", "c"}


def test_ctrl_c_at_the_question_changes_nothing(three):
    terminal = three.terminal("up")
    terminal.shows("[y/N] ")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.ends() == 130
    assert three.vms() == {"a", "b", "c"}


def test_a_plan_that_keeps_as_much_as_it_removes_is_not_asked_about(vnet):
    vnet.up(SMALL)
    vnet.declare(WITHOUT_A)
    vnet("up")
    assert vnet.vms() == {"b"}


def test_down_does_not_ask(vnet):
    vnet.declare(SMALL)
    vnet("up")
    vnet("down")
    assert vnet.json("ps") == []


def test_down_removes_the_disks_of_a_fabric_that_is_down_already_and_says_which(vnet):
    folder = vnet.directory / "state" / "disks" / "small" / "a"
    folder.mkdir(parents=True)
    for name in ("data.raw", "logs.raw"):
        (folder / name).write_bytes(bytes(512))
    assert "disks are kept (2)" in vnet("down", "-n", "small").stderr
    told = vnet("down", "-n", "small", "--disks").stderr.splitlines()
    assert told == ["small: not up", "its VMs' disks are removed (2): a data, a logs"]
    assert not folder.exists()
    told = vnet("down", "-n", "small", "--disks").stderr.splitlines()
    assert told == ["small: not up", "no disks of its VMs were left"]


# -- confirmation ---------------------------------------------------------------------------------


def test_up_tells_how_to_confirm_and_ps_for_how_long_that_can_be_done(vnet):
    vnet.declare(SMALL)
    told = vnet("up", "--confirm", "2m").stderr
    assert "undone in 120 s unless you run `vnet confirm -n small`" in told
    listed = vnet("ps")
    assert "s to confirm)" in listed.stdout and "`vnet confirm -n small` keeps generation 1" in listed.stderr
    assert all(110 < row["confirm_left_s"] <= 120 for row in vnet.json("ps"))
    assert 110 < vnet.json("inspect")["confirm_left_s"] <= 120
    vnet.declare(LARGER)
    assert "`vnet rollback -n small` undoes it" in vnet("up", expect=6).stderr
    assert "generation 1 stays" in vnet("confirm").stderr
    assert {row["confirm_left_s"] for row in vnet.json("ps")} == {None}
    assert "no change of small waits" in vnet("confirm", expect=1).stderr


def test_a_change_that_nobody_confirms_is_undone_by_the_daemon_alone(vnet):
    vnet.up(SMALL)
    vnet.declare(LARGER)
    vnet("up", "--confirm", "1s")
    until(vnet.vms, PATIENCE_S, holds=lambda vms: vms == {"a", "b"})
    assert {row["generation"] for row in vnet.json("ps")} == {1}


def test_a_rollback_tells_what_is_back(vnet):
    vnet.declare(SMALL)
    vnet("up", "--confirm", "100")
    assert "small: undone: removed" in vnet("rollback").stderr
    vnet("up")
    vnet.declare(LARGER)
    vnet("up", "--confirm", "100")
    assert "small: undone: generation 1 is back" in vnet("rollback").stderr


def test_ctrl_c_of_the_waiting_command_confirms_nothing_and_undoes_nothing(vnet):
    vnet.declare(SMALL)
    terminal = vnet.terminal("up", "--confirm", "100s", "--wait")
    terminal.shows("unless you run `vnet confirm")
    time.sleep(0.5)
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.ends() == 130
    assert all(row["confirm_left_s"] > 0 for row in vnet.json("ps"))
    vnet("confirm")


@pytest.mark.parametrize(
    ("decision", "code", "word"), [("confirm", 0, "confirmed"), ("rollback", 1, "undone")]
)
def test_the_waiting_command_tells_what_was_decided(vnet, decision, code, word):
    vnet.declare(SMALL)
    terminal = vnet.terminal("up", "--confirm", "100s", "--wait")
    terminal.shows("unless you run `vnet confirm")
    vnet(decision)
    terminal.shows(word)
    assert terminal.ends() == code


def test_a_daemon_that_ends_meanwhile_is_warned_about(vnet):
    vnet.declare(SMALL)
    vnet("up", "--confirm", "100s")
    assert "small: its last change is not confirmed" in vnet("serve", "--stop").stderr


def test_waiting_without_a_confirmation_to_wait_for_makes_no_sense(vnet):
    vnet.declare(SMALL)
    vnet("up", "--wait", expect=2)


@pytest.mark.parametrize(
    ("text", "expected"), [("120s", 120), ("2m", 120), ("1.5h", 5400), ("90", 90), ("0.5s", 0.5)]
)
def test_time_spans_are_read_as_written(text, expected):
    assert seconds(text, "--confirm") == expected


@pytest.mark.parametrize("text", ["", "0", "0s", "-5s", "soon", "5w", "1m30s", "1e3"])
def test_what_is_no_time_span_is_refused(text):
    with pytest.raises(UsageError, match="write a time such as 120s"):
        seconds(text, "--confirm")
