"""The generated parts of `docs/pipeline.md` are what the compiler does now; `GOLDEN=rewrite` renews them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.generators import header
from vnet.openflow import ofctl
from vnet.openflow.fields import TCP, CtState
from vnet.openflow.flow import Flow
from vnet.policy.compile import Compiled, compile
from vnet.policy.explain import describe, explain, peer_named
from vnet.policy.listing import lines_of
from vnet.policy.pipeline import Stage, markdown, name_of, table_of
from vnet.policy.semantics import Packet
from vnet.policy.space import Region, exactly
from vnet.policy.walk import Walk
from vnet.topology.inventory import Inventory, Nic, expand
from vnet.topology.load import load_text
from vnet.topology.model import Service

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "pipeline.md"
NEW, REPLY = CtState.TRK | CtState.NEW, CtState.TRK | CtState.EST | CtState.RPL


def three_tier() -> tuple[Inventory, Compiled]:
    text = (ROOT / "topologies" / "three-tier.vnet.yaml").read_text(encoding="utf-8")
    topology = load_text(text, "topologies/three-tier.vnet.yaml", {})
    inventory = expand(topology, {})
    return inventory, compile(topology, inventory)


def between(client: str, server: str, port: int, *, reply: bool = False) -> Packet:
    nics = {nic.name: nic for nic in three_tier()[0].nics}

    def end(nic: Nic) -> tuple[str, object]:
        return nic.name, nic.addresses[0].ip

    ends = (*end(nics[client]), *end(nics[server]))
    if reply:
        return Packet(*ends[2:], *ends[:2], TCP, port, 40000, reply=True)  # type: ignore[arg-type]
    return Packet(*ends, TCP, 40000, port)  # type: ignore[arg-type]


def walked(packet: Packet, state: int) -> str:
    """The flows one packet takes, each with what it comes from."""
    inventory, compiled = three_tier()
    (leaf,) = Walk(compiled.flows).leaves(Region(exactly(**header(inventory, packet))), state)
    lines = [f"# {packet}"]
    for flow in leaf.trail:
        lines.append(f"# {name_of(flow.table)}: {describe(flow.cookie, compiled.provenance)}")
        lines.append(ofctl.text(flow))
    return _fenced(lines)


def table(stage: Stage, wanted: Callable[[Flow], bool] = lambda flow: True) -> str:
    """The flows of a table, or of those of all tiers."""
    compiled = three_tier()[1]
    described = table_of(stage)
    flows = [flow for flow in compiled.flows if table_of(flow.table) is described and wanted(flow)]
    return _fenced(list(lines_of(flows, compiled.provenance)))


def _fenced(lines: list[str]) -> str:
    return "\n".join(["```", *lines, "```", ""])


def of_database(flow: Flow) -> bool:
    db = next(nic for nic in three_tier()[0].nics if nic.name == "db.eth0")
    return (flow.match.get("in_port") or (0, 0))[0] == db.port


PARTS: dict[str, Callable[[], str]] = {
    "tables": markdown,
    "admit": lambda: table(Stage.ADMIT, of_database),
    "source_guard": lambda: table(Stage.SOURCE_GUARD, of_database),
    "request": lambda: walked(between("app.eth1", "db.eth0", 5432), NEW),
    "reply": lambda: walked(between("app.eth1", "db.eth0", 5432, reply=True), REPLY),
    "denied": lambda: walked(between("app.eth1", "db.eth0", 22), NEW),
    "forged": lambda: walked(replace(between("app.eth1", "db.eth0", 5432), source_nic="intruder.eth1"), NEW),
    "egress": lambda: table(Stage.EGRESS),
    "ingress": lambda: table(Stage.INGRESS),
    "deliver": lambda: table(Stage.DELIVER),
}


def renewed(text: str) -> str:
    def part(found: re.Match[str]) -> str:
        return f"<!-- {found[1]}: generated -->\n{PARTS[found[1]]()}<!-- end -->"

    return re.sub(r"<!-- (\w+): generated -->\n.*?<!-- end -->", part, text, flags=re.DOTALL)


def parts(text: str) -> Iterator[str]:
    return (found[1] for found in re.finditer(r"<!-- (\w+): generated -->", text))


def test_the_generated_parts_are_up_to_date() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    if os.environ.get("GOLDEN") == "rewrite":
        DOCUMENT.write_text(renewed(text), encoding="utf-8")
    assert DOCUMENT.read_text(encoding="utf-8") == renewed(text)


@pytest.mark.parametrize("name", PARTS)
def test_every_part_is_shown(name: str) -> None:
    assert name in set(parts(DOCUMENT.read_text(encoding="utf-8")))


def test_the_manual_shows_what_explain_answers() -> None:
    text = (ROOT / "topologies" / "three-tier.vnet.yaml").read_text(encoding="utf-8")
    topology = load_text(text, "topologies/three-tier.vnet.yaml", {})
    inventory = expand(topology, {})
    app, db = (peer_named(topology, inventory, name) for name in ("app", "db"))
    (answer,) = explain(topology, inventory, app, db, Service(TCP, (22, 22), "22/tcp"))
    assert str(answer) in (ROOT / "docs" / "manual" / "policies.md").read_text(encoding="utf-8")
