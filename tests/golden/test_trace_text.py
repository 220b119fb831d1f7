"""What `vnet trace` prints: `trace/NAME.txt` for each question. `GOLDEN=rewrite` writes the texts anew.

The slow interpreter stands for the kernel; that both agree is tested in `tests/bpf` and `tests/net`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.twin_sandbox import TwinSandbox
from tests.generators import frame, three_tier
from vnet.cli.trace_command import text
from vnet.fabric.asked import Asked
from vnet.fabric.declared import origin_texts
from vnet.fabric.known import Known, labels
from vnet.fabric.trace import trace
from vnet.policy.compile import compile
from vnet.policy.semantics import Packet

FOLDER = Path(__file__).parent / "trace"
BUILDER = three_tier().policy("intruder-refused", "vm:intruder", ingress=["reject any"])
TOPOLOGY, INVENTORY = BUILDER.build()
COMPILED = compile(TOPOLOGY, INVENTORY)
KNOWN = Known(
    TOPOLOGY,
    INVENTORY,
    {cookie: origin_texts(origin) for cookie, origin in COMPILED.provenance.items()},
    3,
    *labels(COMPILED.identities),
)
NICS = {nic.name: nic for nic in INVENTORY.nics}
APP, DB = NICS["app.eth1"], NICS["db.eth0"]
OPENING = Packet("app.eth1", APP.addresses[0].ip, "db.eth0", DB.addresses[0].ip, 6, 41022, 5432)
REPLY = Packet("db.eth0", DB.addresses[0].ip, "app.eth1", APP.addresses[0].ip, 6, 5432, 41022, reply=True)
LIVE = ((APP.port, frame(INVENTORY, OPENING)), (DB.port, frame(INVENTORY, REPLY)))

ALLOWED = Asked("app", "db", "5432/tcp")
CASES: Mapping[str, tuple[Asked, bool]] = {
    "allowed": (ALLOWED, False),
    "denied": (Asked("app", "db", "22/tcp"), False),
    "closed": (Asked("web-1", "web-2", "icmp"), False),
    "rejected": (Asked("web-1", "intruder", "80/tcp"), False),
    "reply": (replace(ALLOWED, reply=True), False),
    "reply-of-denied": (Asked("app", "db", "53/udp", reply=True), False),
    "live": (ALLOWED, True),
    "live-reply": (replace(ALLOWED, reply=True), True),
    "live-new": (replace(ALLOWED, new=True), True),
    "no-network": (Asked("web-1", "db", "5432/tcp"), False),
    "nobody": (Asked("web-1", "10.10.10.99", "icmp"), False),
    "spoofed": (Asked("web-1", packet='IP(src="192.0.2.1",dst="10.10.10.13")/TCP(dport=8080)'), False),
    "tagged": (Asked("web-1", packet='Ether()/Dot1Q(vlan=20)/IP(dst="10.10.10.13")/UDP(dport=53)'), False),
    "arp": (Asked("web-1", packet='ARP(pdst="10.10.10.13")', reply=True), False),
    "ipv6": (Asked("web-1", "fd00:10::d", "8080/tcp"), False),
    "any": (Asked("web-1", "app", "any"), False),
}


def told(name: str) -> dict[str, Any]:
    asked, live = CASES[name]
    sandbox = TwinSandbox(COMPILED.flows, LIVE if live else ())
    return trace(asked, KNOWN, sandbox, sandbox.connections)


@pytest.mark.parametrize("name", CASES)
def test_a_trace_is_told_in_the_expected_words(name: str) -> None:
    expected = FOLDER / f"{name}.txt"
    found = "".join(f"{line}\n" for line in text(told(name)))
    if os.environ.get("GOLDEN") == "rewrite":
        expected.write_text(found, encoding="utf-8")
    assert found == expected.read_text(encoding="utf-8")


def test_a_trace_for_programs_is_the_expected_document() -> None:
    expected = FOLDER / "denied.json"
    found = json.dumps(told("denied"), indent=1) + "\n"
    if os.environ.get("GOLDEN") == "rewrite":
        expected.write_text(found, encoding="utf-8")
    assert found == expected.read_text(encoding="utf-8")


def test_every_expected_text_has_its_question() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.txt")) == sorted(CASES)


def test_that_nobody_is_there_to_take_it_is_told() -> None:
    known = replace(KNOWN, absent={"db": "stopped"})
    lines = [*text(trace(ALLOWED, known, TwinSandbox(COMPILED.flows, ()), ()))]
    assert lines[-1] == "  but its VM is stopped: nobody there takes it"
    assert lines[-2].startswith("  db.eth0 gets ")
