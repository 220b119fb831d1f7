"""What the words of a policy mean beside allow and deny, case by case."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import product

import pytest

from tests.generators import Builder
from vnet.base.drop import DropReason
from vnet.openflow.fields import ICMP, ICMPV6, TCP
from vnet.policy.origin import Lets
from vnet.policy.semantics import Packet, Verdict, decide
from vnet.topology.expiry import in_force, next_expiry

NOON = datetime(2026, 12, 31, 12, tzinfo=UTC)


def pair(isolated: bool = False) -> Builder:
    builder = Builder().network("net", 10, "10.0.0.0/24", "fd00::/64", isolated=isolated)
    return builder.vm("a", "net", groups=["clients"]).vm("b", "net", groups=["servers"])


def opening(builder: Builder, port: int = 80, *, admitted: bool = False) -> Packet:
    a, b = builder.build()[1].nics[:2]
    return Packet(a.name, a.addresses[0].ip, b.name, b.addresses[0].ip, TCP, 40000, port, admitted=admitted)


def verdict(builder: Builder, port: int = 80, *, admitted: bool = False) -> Verdict:
    return decide(*builder.build(), opening(builder, port, admitted=admitted))


# -- pass ---------------------------------------------------------------------------------------


def test_pass_skips_the_rest_of_its_tier_and_no_more() -> None:
    builder = pair().policy("first", "servers", tier="admin", ingress=["pass clients 80/tcp", "deny any"])
    builder.policy("again", "servers", tier="admin", ingress=["deny clients"])
    builder.policy("later", "servers", ingress=["allow clients"])
    assert verdict(builder).origin.policy == "later"
    assert verdict(builder, 81).origin.rule == "ingress 2", "what does not pass is decided here"


def test_behind_the_last_tier_a_pass_comes_to_the_default() -> None:
    builder = pair().policy("last", "servers", tier="baseline", ingress=["pass any", "allow any"])
    assert verdict(builder).reason is DropReason.POLICY
    builder = pair().policy("out", "clients", tier="baseline", egress=["pass any", "allow any"])
    builder.policy("in", "servers", ingress=["allow any"])
    assert not verdict(builder).allowed, "a policy lists egress, so it is closed"


# -- reject ---------------------------------------------------------------------------------------


def test_reject_drops_and_says_that_it_answers() -> None:
    builder = pair().policy("no", "servers", ingress=["reject clients 80/tcp", "deny any"])
    assert verdict(builder).reason is DropReason.REJECTED
    assert verdict(builder, 81).reason is DropReason.POLICY


# -- audit ----------------------------------------------------------------------------------------


def test_what_an_audited_policy_would_drop_passes_and_is_told() -> None:
    builder = pair().policy(
        "try", "servers", ingress=["allow clients 443/tcp", "deny any"], enforcement="audit"
    )
    for port, lets in ((80, Lets.AUDITED), (443, Lets.NOTHING)):
        found = verdict(builder, port)
        assert found.allowed
        assert found.origin.lets is lets
    assert verdict(builder).origin.rule == "ingress 2"


def test_the_default_of_audited_policies_lets_pass_unless_one_is_enforced() -> None:
    builder = pair().policy("try", "servers", ingress=[], enforcement="audit")
    assert verdict(builder).origin.lets is Lets.AUDITED
    assert verdict(builder).allowed
    builder.policy("mean it", "servers", ingress=["allow clients 443/tcp"])
    assert not verdict(builder).allowed
    assert verdict(builder, 443).allowed


def test_a_deny_of_an_audited_policy_hides_later_rules_as_it_would_if_enforced() -> None:
    builder = pair().policy("try", "servers", ingress=["deny clients"], enforcement="audit")
    builder.policy("mean it", "servers", ingress=["deny clients"])
    assert verdict(builder).allowed


# -- established ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("established", "reason", "lets"),
    [
        ("revalidate", DropReason.POLICY, Lets.NOTHING),
        ("reset", DropReason.REJECTED, Lets.NOTHING),
        ("keep", DropReason.NONE, Lets.KEPT),
    ],
)
@pytest.mark.parametrize("rules", [["deny any"], []], ids=["by a rule", "by default"])
def test_live_connections_fare_as_the_policy_that_forbids_them_says(
    rules: list[str], established: str, reason: DropReason, lets: Lets
) -> None:
    builder = pair().policy("now", "servers", ingress=rules, established=established)
    found = verdict(builder, admitted=True)
    assert (found.reason if not found.allowed else DropReason.NONE, found.origin.lets) == (reason, lets)
    assert verdict(builder).reason is DropReason.POLICY, "new ones are dropped in any case"


# -- expires --------------------------------------------------------------------------------------


def test_a_rule_that_has_expired_is_as_if_it_were_not_written_and_the_others_keep_their_numbers() -> None:
    topology, inventory = pair().policy("p", "servers", ingress=["allow clients 80/tcp", "allow any"]).build()
    (policy,) = topology.policies
    assert policy.ingress
    first, second = policy.ingress
    ending = replace(policy, ingress=(replace(first, expires=NOON), second))
    topology = replace(topology, policies=(ending,))
    packet = opening(pair())
    before, after = NOON.replace(hour=11), NOON
    assert next_expiry(topology, before) == NOON
    assert next_expiry(topology, after) is None
    rules = [decide(in_force(topology, now), inventory, packet).origin.rule for now in (before, after)]
    assert rules == ["ingress 1", "ingress 2"]
    assert in_force(in_force(topology, after), after) is not topology


def test_a_topology_in_which_nothing_expires_is_itself() -> None:
    topology = pair().policy("p", "servers", ingress=["allow any"]).build()[0]
    assert in_force(topology, NOON) is topology


# -- isolation ------------------------------------------------------------------------------------


def test_isolated_vms_reach_promiscuous_ones_only() -> None:
    builder = pair(isolated=True).vm("router", "net", promiscuous=True)
    builder.policy("all", "any", ingress=["allow any"])
    topology, inventory = builder.build()
    nics = {nic.vm: nic for nic in inventory.nics}
    reached = set()
    for one, other in product(nics, nics):
        ends = nics[one].name, nics[one].addresses[0].ip, nics[other].name, nics[other].addresses[0].ip
        found = decide(topology, inventory, Packet(*ends, TCP, 40000, 80))
        if found.allowed:
            reached.add((one, other))
        elif one != other:
            assert found.reason is DropReason.ISOLATED
    assert reached == {("a", "router"), ("b", "router"), ("router", "a"), ("router", "b")}


# -- ICMP -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ports", "four", "six"),
    [("icmp", True, True), ("icmp:8", True, False), ("icmpv6:128", False, True), ("80/tcp", False, False)],
)
def test_types_of_icmp_are_of_one_family(ports: str, four: bool, six: bool) -> None:
    builder = pair().policy("ping", "servers", ingress=[f"allow any {ports}"])
    topology, inventory = builder.build()
    a, b = inventory.nics
    came = []
    for place, (protocol, request, reply) in enumerate(((ICMP, 8, 0), (ICMPV6, 128, 129))):
        one, other = a.addresses[place].ip, b.addresses[place].ip
        asked = decide(topology, inventory, Packet(a.name, one, b.name, other, protocol, icmp_type=request))
        answer = Packet(b.name, other, a.name, one, protocol, icmp_type=reply, reply=True)
        assert decide(topology, inventory, answer).allowed == asked.allowed
        came.append(asked.allowed)
    assert came == [four, six]


def test_icmp_that_is_no_echo_opens_nothing_whatever_a_rule_says() -> None:
    builder = pair().policy("all", "servers", ingress=["allow any"])
    topology, inventory = builder.build()
    a, b = inventory.nics
    timestamp = Packet(a.name, a.addresses[0].ip, b.name, b.addresses[0].ip, ICMP, icmp_type=13)
    assert decide(topology, inventory, timestamp).reason is DropReason.INVALID_STATE
