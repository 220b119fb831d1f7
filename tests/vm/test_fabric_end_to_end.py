"""The whole product on real guests: from the YAML file to packets, through crashes, to nothing left."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from typing import Any

import pytest

from tests.vm.fabric_lab import PREFIX, ROOT, Lab, lab
from tests.waiting import until

THREE_TIER = str(ROOT / "topologies" / "three-tier.vnet.yaml")
FILE = ("-f", THREE_TIER)
VMS = {"web-1", "web-2", "app", "db", "intruder"}


@pytest.fixture(scope="module")
def host():
    with lab() as made:
        yield made


@pytest.fixture
def up(host: Lab):
    """The three-tier fabric, up."""
    host.vnet("up", *FILE)
    return host


def pids(host: Lab) -> dict[str, int]:
    return {row["vm"]: row["pid"] for row in host.json("ps")}


def test_up_brings_every_guest_to_answer_and_ps_shows_them(up):
    rows = up.json("ps")
    assert {row["vm"]: row["state"] for row in rows} == dict.fromkeys(VMS, "ready")
    assert all(row["generation"] == row["enforced"] == 1 for row in rows)


def test_a_second_up_changes_nothing(up):
    before = pids(up)
    assert up.json("up", *FILE)["actions"] == []
    assert up.vnet("plan", *FILE, "--exit-code").startswith("three-tier: nothing to change")
    assert pids(up) == before


def test_every_claim_holds_in_the_rules_and_for_real_packets(up):
    claims = up.json("verify", "--probe")
    assert len(claims) == 6
    assert all(claim["holds"] and claim["passed"] and claim["probes"] for claim in claims)
    assert {probe["got"] for claim in claims for probe in claim["probes"]} == {"passes", "blocked"}


def test_a_drill_beside_running_guests_lets_nothing_through(up):
    rows = up.json("drill", "intruder", "--only", "arp", "--only", "icmp", "--only", "tcp")
    assert {row["outcome"] for row in rows} <= {"stopped", "arrived", "not tried"}
    assert {row["nic"] for row in rows if row["outcome"] == "arrived"} == {"intruder.eth0", "intruder.eth1"}
    assert {row["vm"]: row["state"] for row in up.json("ps")} == dict.fromkeys(VMS, "ready")


def test_exec_gives_output_and_the_guests_own_exit_code(up):
    assert up.vnet("exec", "db", "--", "hostname") == "db\n"
    up.vnet("exec", "db", "--", "sh", "-c", "exit 7", expect=7)


def test_a_forbidden_connection_is_captured_with_its_reason_policy_and_line(up, tmp_path):
    file = tmp_path / "drop.pcapng"
    words = (
        "intruder",
        "-w",
        str(file),
        "--filter",
        "tcp port 5432",
        "--dropped",
        "-c",
        "1",
        "--duration",
        "30",
    )
    capture = up.start("capture", *words)
    wait_for_file(file)
    up.vnet("exec", "intruder", "--", "nc.openbsd", "-z", "-w", "2", "10.10.20.11", "5432", expect=1)
    assert capture.wait(timeout=40) == 0
    shown = subprocess.run(
        ["tshark", "-r", str(file), "-T", "fields", "-e", "frame.comment"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "dropped: POLICY" in shown
    assert "policy db-from-app" in shown
    assert "three-tier.vnet.yaml:15" in shown


def wait_for_file(file) -> None:
    """A capture has begun when its header is there."""
    until(lambda: file.exists() and file.stat().st_size)
    time.sleep(0.3)


def test_ctrl_c_ends_a_capture_with_a_whole_file(up, tmp_path):
    file = tmp_path / "all.pcapng"
    capture = up.start("capture", "-w", str(file))
    wait_for_file(file)
    up.vnet("exec", "web-1", "--", "ping", "-c", "2", "10.10.10.4")
    capture.send_signal(signal.SIGINT)
    capture.wait(timeout=20)
    shown = subprocess.run(["capinfos", "-c", "-M", str(file)], capture_output=True, text=True, check=True)
    assert "cut short" not in shown.stdout + shown.stderr


def test_flows_name_the_line_that_made_them_and_drops_are_counted(up):
    flows = up.json("flows")
    assert any("three-tier.vnet.yaml:15" in flow["from"] for flow in flows)
    assert all(flow["from"] for flow in flows)
    assert {count["reason"] for count in up.json("drops")["counts"]} >= {"POLICY"}


def test_the_log_tells_who_was_denied_and_by_which_line(up):
    following = up.start("policy", "log", "--follow")
    up.vnet("exec", "app", "--", "sh", "-c", "nc -w 1 10.10.20.11 22; true")
    words = "policy", "log", "--since", "1m", "-o", "json"

    def ssh_of_app() -> list[dict[str, Any]]:
        told = [json.loads(line) for line in up.vnet(*words).splitlines()]
        return [each for each in told if (each["client"], each["server_port"]) == ("app", 22)]

    denied = until(ssh_of_app)
    assert {(each["verdict"], each["server"], each["rule"]) for each in denied} == {
        ("deny", "db", "ingress 2")
    }
    assert all("three-tier.vnet.yaml:15" in each["at"] for each in denied)
    following.send_signal(signal.SIGINT)
    lines, _ = following.communicate(timeout=20)
    assert following.returncode == 0
    assert "deny app (10.10.20.2:" in lines


def test_a_ping_loses_nothing_while_the_daemon_is_killed_and_started_again(up):
    """200 packets a second over 6 s, with the daemon killed in the first and adopted in the third."""
    before = pids(up)
    ping = up.start("exec", "web-1", "--", "ping", "-c", "1", "10.10.10.4")
    ping.wait(timeout=30)
    background = "ping -i 0.005 -c 1200 10.10.10.4 >/tmp/ping.log 2>&1 &"
    up.vnet("exec", "web-1", "--", "sh", "-c", background)
    time.sleep(1)
    up.kill_daemon()
    time.sleep(1)
    assert pids(up) == before
    tail = "exec", "web-1", "--", "tail", "-n", "3", "/tmp/ping.log"
    shown = until(lambda: up.vnet(*tail), holds=lambda text: "loss" in text)
    assert " 0% packet loss" in shown, shown


def test_a_new_daemon_finds_everything_and_plans_nothing(up):
    before = pids(up)
    up.kill_daemon()
    assert up.vnet("plan", *FILE).startswith("three-tier: nothing to change")
    assert pids(up) == before
    assert up.vnet("exec", "app", "hostname") == "app\n"
    assert {row["detail"] for row in up.json("ps")} == {""}


def test_the_daemon_can_be_stopped_and_everything_goes_on(up):
    before = pids(up)
    up.vnet("serve", "--stop")
    assert up.left_over()["daemon"] == []
    assert pids(up) == before


def test_a_vm_can_be_stopped_and_started(up):
    before = pids(up)
    up.vnet("stop", "web-2")
    assert {row["vm"]: row["state"] for row in up.json("ps")}["web-2"] == "stopped"
    up.vnet("start", "web-2")
    after = pids(up)
    assert after["web-2"] not in (None, before["web-2"])
    assert {vm: pid for vm, pid in after.items() if vm != "web-2"} == {
        vm: pid for vm, pid in before.items() if vm != "web-2"
    }


def test_a_changed_policy_is_enforced_without_touching_a_guest(up, tmp_path):
    before = pids(up)
    text = (ROOT / "topologies" / "three-tier.vnet.yaml").read_text()
    file = tmp_path / "three-tier.vnet.yaml"
    file.write_text(text.replace("ports: [5432/tcp]", "ports: [5433/tcp]").replace("5432/tcp", "5433/tcp"))
    for vm, role in (("db", "-l -p 5432"), ("app", "10.10.20.11 5432")):
        up.vnet("exec", vm, "--", "sh", "-c", f"(sleep 60 | nc {role} >/dev/null) & sleep 0.5")
    planned = up.json("plan", "-f", str(file))
    cut = [(line["name"], line["what"]) for line in planned["changes"] if line["kind"] == "connection"]
    assert cut == [("app → db", "1 to 5432/tcp")]
    outcome = up.json("up", "-f", str(file))
    assert [action.split(":")[0] for action in outcome["actions"]] == ["change flows"]
    assert pids(up) == before
    assert all(claim["passed"] for claim in up.json("verify", "--probe"))
    up.vnet("up", *FILE)
    assert pids(up) == before


@pytest.fixture
def other_rules(tmp_path):
    """The same VMs, another port."""
    file = tmp_path / "three-tier.vnet.yaml"
    text = (ROOT / "topologies" / "three-tier.vnet.yaml").read_text()
    file.write_text(text.replace("ports: [5432/tcp]", "ports: [5433/tcp]").replace("5432/tcp", "5433/tcp"))
    return str(file)


def generation(host: Lab) -> set[tuple[int, int]]:
    return {(row["generation"], row["enforced"]) for row in host.json("ps")}


def until_undone(host: Lab, before: set[tuple[int, int]]) -> None:
    until(lambda: generation(host), every_s=0.2, holds=lambda now: now == before)


def test_a_change_that_nobody_confirms_is_undone_although_the_daemon_was_killed(up, other_rules):
    before, flows, running = generation(up), up.vnet("flows", "--ovs"), pids(up)
    up.vnet("up", "-f", other_rules, "--confirm", "4s")
    assert up.vnet("flows", "--ovs") != flows
    up.kill_daemon()
    time.sleep(5)
    until_undone(up, before)
    assert up.vnet("flows", "--ovs") == flows
    assert pids(up) == running
    assert up.json("up", *FILE)["actions"] == []


def test_the_waiting_command_starts_a_daemon_that_was_killed(up, other_rules):
    before = generation(up)
    waiting = up.start("up", "-f", other_rules, "--confirm", "6s", "--wait")
    assert waiting.stderr
    while "vnet confirm" not in (line := waiting.stderr.readline()):
        assert line, "it ended before it had anything to wait for"
    assert generation(up) != before
    up.kill_daemon()
    _, told = waiting.communicate(timeout=40)
    assert waiting.returncode == 1 and "undone" in told
    assert generation(up) == before


def test_a_new_fabric_that_nobody_confirms_is_removed(host):
    host.vnet("down", *FILE)
    host.vnet("up", *FILE, "--confirm", "2s")
    until(lambda: not host.json("ps"))
    assert not any(found for what, found in host.left_over().items() if what != "daemon")


def test_a_guest_that_dies_is_seen_and_up_brings_it_back(up):
    before = pids(up)
    subprocess.run(["kill", "-9", str(before["db"])], check=True)
    until(lambda: {row["vm"]: row["state"] for row in up.json("ps")}["db"] != "ready")
    assert up.json("up", *FILE)["actions"] == ["start db"]
    assert up.vnet("exec", "db", "hostname") == "db\n"


def test_a_file_that_claims_too_much_is_refused_and_nothing_changes(up, tmp_path):
    before = pids(up)
    file = tmp_path / "three-tier.vnet.yaml"
    text = (ROOT / "topologies" / "three-tier.vnet.yaml").read_text()
    file.write_text(text + "  - allow vm:intruder -> db:5432/tcp\n")
    told = up.vnet("up", "-f", str(file), expect=4)
    assert "allow vm:intruder -> db:5432/tcp" in told
    assert "nothing was changed" in told
    assert pids(up) == before


def test_more_memory_than_the_host_has_is_exit_6_and_nothing_is_made(up, tmp_path):
    file = tmp_path / "big.vnet.yaml"
    vms = "vms: {a: {networks: [lan], memory: 4096G}}"
    file.write_text(f"name: big\nnetworks: {{lan: {{vlan: 10, subnets: 10.0.0.0/24}}}}\n{vms}\n")
    assert "memory" in up.vnet("up", "-f", str(file), expect=6)
    assert {row["fabric"] for row in up.json("ps")} == {"three-tier"}
    assert up.left_over()["namespaces"] == [f"{PREFIX}three-tier"]


def test_a_second_daemon_says_so_and_ends(up):
    assert "another vnetd" in up.vnet("serve", expect=1)


def test_down_leaves_nothing_and_a_second_down_is_no_error(up):
    up.vnet("down", *FILE)
    assert up.nothing_is_left(), up.left_over()
    up.vnet("down", *FILE)
    assert up.json("ps") == []
    assert up.nothing_is_left(), up.left_over()


@pytest.mark.parametrize("delay_s", [1.2, 1.8, 2.4, 3.0])
def test_ctrl_c_during_up_leaves_nothing(host, delay_s):
    process = host.start("up", *FILE)
    time.sleep(delay_s)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode in (130, 0), told
    if "up, generation" in told:  # it was quicker than we
        host.vnet("down", *FILE)
    assert not any(found for what, found in host.left_over().items() if what != "daemon"), told


@pytest.mark.parametrize("delay_s", [1.5, 2.5])
def test_a_daemon_killed_during_up_is_mended_by_the_next_up(host, delay_s):
    process = host.start("up", *FILE)
    time.sleep(delay_s)
    host.kill_daemon()
    process.communicate(timeout=60)
    host.vnet("up", *FILE)
    assert {row["state"] for row in host.json("ps")} == {"ready"}
    assert (
        host.vnet("exec", "web-1", "--", "ping", "-c", "3", "-W", "2", "10.10.10.4").count("bytes from") >= 2
    )
    host.vnet("down", *FILE)
    assert host.nothing_is_left(), host.left_over()


def test_a_stale_socket_and_a_stale_lock_are_no_obstacle(host):
    host.vnet("serve", "--stop")
    run = host.directory / "run"
    run.mkdir(exist_ok=True)
    (run / "vnetd.sock").unlink(missing_ok=True)
    (run / "vnetd.sock").touch()
    (run / "vnetd.lock").write_text("999999\n")
    assert "+ network namespace" in host.vnet("plan", *FILE)
