"""Each example and recipe of the manual loads, and its claims hold on the flows that it is compiled to."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from vnet.policy.compile import compile
from vnet.policy.verify import verify
from vnet.topology.expiry import in_force
from vnet.topology.include import gather
from vnet.topology.inventory import expand
from vnet.topology.load import load_text
from vnet.topology.model import Topology

TOPOLOGIES = Path(__file__).parents[3] / "topologies"
FEATURES = TOPOLOGIES / "features"
EXAMPLES = sorted(FEATURES.glob("*.vnet.yaml"))
RECIPES = sorted((TOPOLOGIES / "cookbook").glob("*.vnet.yaml"))
JANUARY, LATER = datetime(2026, 1, 31, 23, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)


def load(path: Path) -> Topology:
    text = path.read_text(encoding="utf-8")

    def read(name: str) -> str | None:
        return (FEATURES / name).read_text(encoding="utf-8")

    return load_text(text, path.name, {}, gather(path.name, text, read))


def failing(topology: Topology) -> list[str]:
    inventory = expand(topology, {})
    flows = compile(topology, inventory).flows
    return [str(result) for result in verify(topology, inventory, flows) if not result.holds]


@pytest.mark.parametrize("path", [*EXAMPLES, *RECIPES], ids=lambda path: path.name.removesuffix(".vnet.yaml"))
def test_the_claims_of_every_example_and_recipe_hold(path: Path) -> None:
    topology = load(path)
    assert topology.claims
    assert failing(in_force(topology, LATER)) == []


def test_before_its_rule_expires_the_claim_about_afterwards_fails() -> None:
    (told,) = failing(in_force(load(FEATURES / "expires.vnet.yaml"), JANUARY))
    assert "tcp from vendor.eth0" in told


def test_every_feature_of_a_policy_has_an_example() -> None:
    texts = "".join(path.read_text(encoding="utf-8") for path in EXAMPLES)
    words = (
        "tier:",
        "pass",
        "reject",
        "deny",
        "log: true",
        "audit",
        "established: keep",
        "established: reset",
        "expires:",
    )
    more = (
        "services:",
        "icmp",
        "sctp",
        "labels:",
        "cidrs:",
        "isolation:",
        "promiscuous:",
        "include:",
        "replicas:",
        "allowed_address_pairs:",
        "storm_control:",
        "limits:",
        "rate:",
        "dscp:",
    )
    assert [word for word in (*words, *more) if word not in texts] == []
