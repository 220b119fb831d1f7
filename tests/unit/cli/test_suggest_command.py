"""`vnet policy suggest` and `plan --replay` as a user meets them: file, diff, codes, wrong input."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cli.test_change_commands import Vnet

ROOT = Path(__file__).resolve().parents[3]
TOPOLOGY = """\
name: small
networks: {lan: {vlan: 10, subnets: 10.0.0.0/24}}
vms: {a: {networks: [lan]}, b: {networks: [lan]}}
policies:
  - {name: web, applied_to: "vm:b", ingress: [{from: "vm:a", ports: [80/tcp]}]}
"""
RULE = '[{from: "vm:a", ports: [80/tcp]}, {from: "vm:a", ports: [https]}]'


def flow(port=443, **fields):
    """A line of a file of flows."""
    given = {
        "source": "a.eth0",
        "destination": "b.eth0",
        "protocol": "tcp",
        "port": port,
        "verdict": "denied",
    }
    return json.dumps(given | fields) + "\n"


@pytest.fixture
def vnet(tmp_path):
    """Runs `vnet` in a folder with a topology and no daemon."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("VNET_")}
    environment |= {"VNET_RUN_DIR": str(tmp_path / "run"), "VNET_STATE_DIR": str(tmp_path / "state")}
    environment["PYTHONPATH"] = str(ROOT)
    (tmp_path / "vnet.yaml").write_text(TOPOLOGY)

    def run(*words, given=""):
        command = [sys.executable, "-m", "vnet", "policy", "suggest", *words]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=tmp_path, input=given, check=False
        )

    return run


def test_the_diff_is_on_standard_output_and_words_beside_it(vnet, tmp_path):
    done = vnet("--flows", "-", given=flow())
    assert done.returncode == 0
    assert done.stdout.startswith("--- vnet.yaml\n+++ vnet.yaml\n@@ ")
    assert f'+  - {{name: web, applied_to: "vm:b", ingress: {RULE}}}' in done.stdout
    assert done.stderr == "small: 1 rule for vnet.yaml; none can be left out\n"
    assert (tmp_path / "vnet.yaml").read_text() == TOPOLOGY


def test_write_changes_the_file_and_keeps_its_mode_and_its_ends_of_lines(vnet, tmp_path):
    file = tmp_path / "vnet.yaml"
    file.write_bytes(TOPOLOGY.replace("\n", "\r\n").encode())
    file.chmod(0o640)
    done = vnet("--flows", "-", "--write", given=flow())
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("small: 1 rule written to vnet.yaml")
    assert RULE in file.read_text()
    assert file.read_bytes().count(b"\r\n") == file.read_bytes().count(b"\n") == 6
    assert file.stat().st_mode & 0o777 == 0o640
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


def test_programs_get_all_of_it_as_json(vnet):
    done = vnet("--flows", "-", "-o", "json", given=flow(packets=7))
    found = json.loads(done.stdout)
    assert done.stderr == ""
    (rule,) = found["rules"]
    assert (rule["policy"], rule["ports"], rule["at"], rule["packets"]) == (
        "web",
        ["https"],
        "vnet.yaml:6",
        7,
    )
    assert found["closes"] == []


def test_nothing_to_suggest_says_why(vnet):
    done = vnet("--flows", "-", "--exit-code")
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing to suggest: no flows were seen" in done.stderr
    done = vnet("--flows", "-", given=flow(verdict="allowed"))
    assert "of 1 flows seen none was denied or audited by a policy" in done.stderr
    done = vnet("--flows", "-", given=flow(80))
    assert "allowed by the file already:\n  a -> b:80/tcp, 1 packet" in done.stderr


def test_exit_code_3_says_that_something_is_suggested(vnet):
    assert vnet("--flows", "-", "--exit-code", given=flow()).returncode == 3


@pytest.mark.parametrize(
    ("words", "given", "code", "said"),
    [
        (("--flows", "-"), "{}\n", 1, '(stdin):1:1: verdict: a flow needs "verdict"'),
        (("--flows", "none.jsonl"), "", 1, "cannot read none.jsonl"),
        (("--flows", "-", "--write", "--diff"), "", 2, "give one of them"),
        (("--flows", "-", "--vm", "c"), "", 2, "there is no VM c; VMs: a, b"),
        (("--flows", "-", "-f", "none.yaml"), "", 1, "cannot read none.yaml"),
    ],
)
def test_wrong_input_is_told(vnet, words, given, code, said):
    done = vnet(*words, given=given)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert done.stdout == ""


# -- plan ---------------------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path):
    found = Vnet(tmp_path)
    yield found
    found.end()


def test_a_plan_tells_which_recorded_flows_it_stops(host, tmp_path):
    host.up(TOPOLOGY)
    host.declare(TOPOLOGY.replace("80/tcp", "81/tcp"))
    flows = tmp_path / "flows.jsonl"
    flows.write_text(flow(80, verdict="allowed", packets=1204, last="2026-11-28T14:03:00Z"))
    shown = host("plan", "--replay", str(flows)).stdout
    assert "recorded flows that would be decided otherwise" in shown
    assert (
        "  - a -> b:80/tcp  allowed -> denied by small.vnet.yaml:5 (1,204 packets, last 2026-11-28 14:03)"
        in shown
    )
    (found,) = host.json("plan", "--replay", str(flows))["verdicts"]
    assert (found["was"], found["becomes"], found["at"]) == ("allowed", "denied", "small.vnet.yaml:5")
    assert host.json("plan", "--replay", "none")["verdicts"] == []
    assert host.json("plan")["verdicts"] == []


def test_many_flows_are_cut_short_on_the_terminal_only(host, tmp_path):
    host.up(TOPOLOGY.replace("[80/tcp]", "any"))
    host.declare(TOPOLOGY)
    flows = tmp_path / "flows.jsonl"
    flows.write_text("".join(flow(port, verdict="allowed") for port in range(1000, 1100)))
    shown = host("plan", "--replay", str(flows)).stdout
    assert shown.count("allowed -> denied") == 20
    assert "and 80 more; `vnet plan -o json` has all of them" in shown
    assert len(host.json("plan", "--replay", str(flows))["verdicts"]) == 100


def test_a_replay_that_is_neither_time_nor_file_is_told(host):
    host.declare(TOPOLOGY)
    done = host("plan", "--replay", "yesterday", expect=2)
    assert "--replay yesterday: write a time such as 24h, a file, or none" in done.stderr


def test_a_daemon_without_a_history_says_what_to_do(host):
    host.declare(TOPOLOGY)
    host.up(TOPOLOGY)
    done = host("policy", "suggest", "-n", "small", expect=1)
    assert "this daemon keeps no history; give the flows with --flows FILE" in done.stderr
