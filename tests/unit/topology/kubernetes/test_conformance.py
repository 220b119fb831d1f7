"""The Kubernetes e2e suite for NetworkPolicy, case by case, on the meaning and on the flows of the import."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.topology.kubernetes.asked import by_import
from tests.unit.topology.kubernetes.cases import (
    CASES,
    ELSEWHERE,
    END_PORT,
    Case,
    conformance_table,
    for_all,
)
from tests.unit.topology.kubernetes.cluster import QUESTIONS, Cluster, table
from vnet.base.errors import InputError

ROOT = Path(__file__).resolve().parents[4]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_conformance(case: Case) -> None:
    for step in case.steps:
        asked = by_import(Cluster(step.added).manifest(), step.policies)
        expected = table(step.expected)
        assert [each for each in QUESTIONS if asked.means(each) != expected[each]] == []
        assert [each for each in QUESTIONS if asked.tables(each) != expected[each]] == []
        walked = QUESTIONS[::5]  # all pairs, services in turn
        assert [each for each in walked if asked.flows(each) != expected[each]] == []


@pytest.mark.parametrize(
    "ports", ["endPort: 20000", "port: serve-80, endPort: 20000", "port: 30000, endPort: 20000"]
)
def test_should_support_creating_network_policy_api_with_endport_field_refused(ports: str) -> None:
    assert END_PORT in ELSEWHERE
    with pytest.raises(InputError, match="range"):
        by_import(Cluster().manifest(), for_all("Egress", f"ports: [{{{ports}}}]"))


@pytest.mark.parametrize("ports", ["port: 20000, endPort: 20000", "port: 10000, endPort: 20000"])
def test_should_support_creating_network_policy_api_with_endport_field_taken(ports: str) -> None:
    by_import(Cluster().manifest(), for_all("Egress", f"ports: [{{{ports}}}]"))


def test_every_case_has_a_title_of_its_own() -> None:
    assert len({case.title for case in CASES}) == len(CASES) == 48


def test_the_page_lists_every_case() -> None:
    page = (ROOT / "docs/network-policy.md").read_text(encoding="utf-8")
    assert conformance_table() in page
