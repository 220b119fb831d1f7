"""Audit, run, suggest, enforce: what guests really did is what the rules then let them do, no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm.fabric_lab import Lab, lab
from tests.waiting import until

TOPOLOGY = """\
name: seen
defaults: {image: micro, memory: 96M}
networks: {lan: {vlan: 10, subnets: 10.0.0.0/24}}
vms:
  client: {networks: [lan]}
  server: {networks: [lan]}
policies:
  - {name: watch, applied_to: any, enforcement: audit, ingress: [], egress: []}
"""
SERVER = "10.0.0.3"


@pytest.fixture
def host():
    with lab() as made:
        yield made


def reaches(host: Lab, port: int) -> bool:
    """Whether the client gets an answer: a reset, since nobody listens, is one."""
    words = f"nc -w 1 {SERVER} {port} </dev/null 2>&1; true"
    return "timed out" not in host.vnet("exec", "-n", "seen", "client", "--", "sh", "-c", words)


def suggested(host: Lab, *words: str) -> list[dict]:
    return host.json("policy", "suggest", *words)["rules"]


def test_what_was_audited_is_allowed_when_it_is_enforced_and_nothing_else(host: Lab, tmp_path: Path) -> None:
    file = tmp_path / "seen.vnet.yaml"
    file.write_text(TOPOLOGY)
    given = ("-f", str(file))
    host.vnet("up", *given)
    assert reaches(host, 8080)

    rules = until(lambda: suggested(host, *given))  # the log is a moment behind
    assert {(rule["direction"], tuple(rule["ports"])) for rule in rules} == {
        ("egress", ("8080/tcp",)),
        ("ingress", ("8080/tcp",)),
    }
    assert {verdict for rule in rules for verdict in rule["verdicts"]} == {"audited"}

    early = tmp_path / "early.vnet.yaml"
    early.write_text(TOPOLOGY.replace("audit", "enforce"))
    (stopped,) = host.json("plan", "-f", str(early))["verdicts"]
    assert (stopped["was"], stopped["becomes"], stopped["service"]) == ("audited", "denied", "8080/tcp")

    host.vnet("policy", "suggest", *given, "--write")
    file.write_text(file.read_text().replace("audit,", "enforce,").replace(": audit", ": enforce"))
    assert [each for each in host.json("plan", *given)["verdicts"] if each["becomes"] == "denied"] == []
    host.vnet("up", *given)
    assert reaches(host, 8080)
    assert not reaches(host, 8081)

    denied = suggested(host, *given)
    assert {tuple(rule["ports"]) for rule in denied} == {("8081/tcp",)}
    host.vnet("policy", "suggest", *given, "--write")
    host.vnet("up", *given)
    assert reaches(host, 8081)
