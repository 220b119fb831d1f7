"""Generated NetworkPolicies: the import means what an evaluator of their own says."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings

from tests.unit.topology.kubernetes.asked import by_import
from tests.unit.topology.kubernetes.cases import CASES, Case
from tests.unit.topology.kubernetes.cluster import QUESTIONS, Cluster, table
from tests.unit.topology.kubernetes.evaluator import allowed
from tests.unit.topology.kubernetes.generated import clusters, policies


@settings(max_examples=60, deadline=None)
@given(clusters(), policies())
def test_an_import_means_what_the_policies_mean(cluster: Cluster, generated: list[dict[str, Any]]) -> None:
    asked = by_import(cluster.manifest(), yaml.safe_dump_all(generated))
    expected = {each: allowed(cluster, generated, each) for each in QUESTIONS}
    assert [each for each in QUESTIONS if asked.tables(each) != expected[each]] == []
    assert [each for each in QUESTIONS[::7] if asked.means(each) != expected[each]] == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_the_evaluator_passes_the_conformance_cases(case: Case) -> None:
    for step in case.steps:
        given_policies = [each for each in yaml.safe_load_all(step.policies) if each]
        expected, cluster = table(step.expected), Cluster(step.added)
        assert [each for each in QUESTIONS if allowed(cluster, given_policies, each) != expected[each]] == []
