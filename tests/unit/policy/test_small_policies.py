"""All policies of one rule, and some of two rules; `make small-policies` tries all of them."""

from __future__ import annotations

from tests.exams.policies.small import differences, of_one_rule, of_two_rules


def test_every_policy_of_one_rule_decides_as_the_language_says() -> None:
    tried = [*of_one_rule()]
    assert len(tried) == 512
    assert not [(policies, found) for policies in tried if (found := differences(policies))]


def test_every_policy_of_two_rules_for_one_vm_decides_as_the_language_says() -> None:
    ours = ("vm:a", "baseline")
    tried = [(one,) for (one,) in of_two_rules() if (one.applied_to, one.tier) == ours]
    assert len(tried) == 3072
    assert not [(policies, found) for policies in tried if (found := differences(policies))]
