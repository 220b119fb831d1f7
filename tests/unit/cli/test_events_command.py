"""`vnet events`, doctor and version, with the real daemon on a host in memory."""

import json
import subprocess

import pytest

from tests.unit.cli.test_change_commands import Vnet
from tests.unit.fabric.test_engine import LARGER, SMALL


@pytest.fixture(scope="module")
def vnet(tmp_path_factory):
    made = Vnet(tmp_path_factory.mktemp("host"))
    made.up(SMALL)
    yield made
    made.end()


def told(vnet, *words):
    """The lines of `-o json`."""
    return [json.loads(line) for line in vnet("events", "-o", "json", *words).stdout.splitlines()]


def test_events_are_json_lines_of_one_schema(vnet):
    found = told(vnet)
    assert {tuple(event) for event in found} == {("time", "fabric", "kind", "subject", "text", "fields")}
    assert {event["kind"] for event in found} >= {"plan-applied", "policy-enforced", "vm-started"}


def test_events_can_be_chosen_by_time_fabric_and_kind(vnet):
    assert {event["kind"] for event in told(vnet, "--kind", "vm-started")} == {"vm-started"}
    assert told(vnet, "-n", "other") == []
    assert told(vnet, "--since", "1h") == told(vnet)
    assert told(vnet, "--until", "1h") == []


def test_for_people_an_event_is_one_line(vnet):
    line = vnet("events", "--kind", "plan-applied").stdout
    assert line.endswith(" small plan-applied: small is at generation 1\n")


def test_a_kind_that_there_is_not_is_refused_with_those_there_are(vnet):
    assert "vm-died" in vnet("events", "--kind", "nonsense", expect=2).stderr


def test_who_follows_is_told_what_comes(vnet):
    command = vnet.command("events", "--follow", "-o", "json", "--kind", "policy-enforced")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **vnet.options) as following:
        assert json.loads(following.stdout.readline())["fields"] == {"generation": 1, "from": 0}
        vnet.up(LARGER)
        assert json.loads(following.stdout.readline())["fields"] == {"generation": 2, "from": 1}
        following.terminate()


def test_doctor_and_version_say_whether_everything_is_in_force(vnet):
    assert vnet("version").stdout.endswith(": ready\n")
    assert vnet.json("version")["daemon"]["ready"]["fabrics"] == ["small"]
    done = subprocess.run(vnet.command("doctor"), capture_output=True, text=True, check=False, **vnet.options)
    assert "ok   daemon: whether vnetd runs, if there are fabrics\n" in done.stdout
