"""Who is outside, where policies are listed, explained and compared: by name, as rules tell them apart."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_address

from tests.generators import Builder, service
from tests.unit.policy.test_outside_claims import shop
from vnet.fabric.evidence import observed
from vnet.fabric.seen import Seen, Verdict
from vnet.policy.compile import Compiled, compile
from vnet.policy.decisions import decisions
from vnet.policy.explain import explain, peer_named
from vnet.policy.matrix import words
from vnet.policy.needless import Kind, needless
from vnet.policy.probes import probes, untried
from vnet.policy.reach import reach
from vnet.policy.reach_changes import Side, reach_changes
from vnet.topology.inventory import Inventory
from vnet.topology.model import Topology


def built(builder: Builder) -> tuple[Topology, Inventory, Compiled]:
    topology, inventory = builder.build()
    return topology, inventory, compile(topology, inventory)


def test_the_matrix_has_rows_and_columns_for_internet_host_and_cidrs() -> None:
    found = {(pair.source, pair.target): pair.ports for pair in reach(*built(shop()))}
    assert found["internet", "web"] == found["203.0.113.0/24", "web"] == "443/tcp"
    assert found["web", "203.0.113.0/24"] == found["web", "2001:db8::/32"] == "443/tcp"
    assert (found["web", "internet"], found["web", "host"], found["host", "app"]) == ("-", "53/udp", "22/tcp")
    assert not {("internet", "host"), ("internet", "db"), ("db", "internet")} & found.keys()


def test_decisions_and_explanations_are_of_any_address_that_is_asked_about() -> None:
    topology, inventory, compiled = built(shop())

    def named(text: str) -> tuple[set[str], list[bool]]:
        web, other = peer_named(topology, inventory, "web"), peer_named(topology, inventory, text)
        found = decisions(topology, inventory, compiled, web, other)
        told = explain(topology, inventory, web, other, service("443/tcp"))
        return {f"{each.target} {each.ports}" for each in found if each.allowed}, [
            each.verdict.allowed for each in told
        ]

    assert named("203.0.113.64/28") == ({"203.0.113.64/28 443/tcp"}, [True])
    assert named("198.51.100.7") == (set(), [False])
    assert named("host") == ({"host 53/udp"}, [False, False])


def test_what_decides_about_the_outside_is_the_rule_of_the_vm() -> None:
    topology, inventory, compiled = built(shop())

    def decided(source: str, target: str) -> set[tuple[bool, str]]:
        ends = peer_named(topology, inventory, source), peer_named(topology, inventory, target)
        found = decisions(topology, inventory, compiled, *ends)
        return {(each.allowed, each.origin.rule) for each in found}

    assert decided("web", "host") == {(True, "egress 2"), (False, "")}
    assert decided("host", "app") == {(True, "ingress 1"), (False, "")}


def test_a_rule_for_internet_is_needless_only_if_another_does_the_same() -> None:
    builder = shop().policy("again", "vm:web", ingress=["allow internet 443/tcp", "allow host 99/tcp"])
    topology, _, compiled = built(builder)
    found = {key: finding.kind for key, finding in needless(topology, compiled.identities).items()}
    assert found["rule again ingress 1"] is Kind.SHADOWED
    assert "rule again ingress 2" not in found
    assert "rule web egress 1" not in found


def test_without_a_way_out_a_rule_for_internet_names_nobody() -> None:
    builder = (
        Builder().network("n", 1, "10.0.0.0/24").vm("a", "n").policy("p", "vm:a", ingress=["allow internet"])
    )
    topology, _, compiled = built(builder)
    assert needless(topology, compiled.identities)["rule p ingress 1"].kind is Kind.ABSENT


def test_a_change_tells_what_it_opens_to_the_outside() -> None:
    was, becomes = built(shop()), built(shop().policy("more", "vm:web", ingress=["allow host 99/tcp"]))
    before, after = (Side(each[2].flows, each[2].identities, each[0]) for each in (was, becomes))
    touched = set(was[2].flows) ^ set(becomes[2].flows)
    (change,) = reach_changes(before, after, touched)
    assert (change.source, change.target, words(change.opens)) == ("host", "web", "99/tcp")


def test_a_way_out_that_comes_opens_what_rules_allowed_already() -> None:
    was, becomes = built(shop(uplink="")), built(shop())
    before, after = (Side(each[2].flows, each[2].identities, each[0]) for each in (was, becomes))
    found = reach_changes(before, after, set(was[2].flows) ^ set(becomes[2].flows))
    opened = {(each.source, each.target): words(each.opens) for each in found}
    assert opened["internet", "web"] == "443/tcp"
    assert opened["web", "host"] == "53/udp"


def test_a_cable_that_comes_opens_its_own_networks_only() -> None:
    """Whose router leads elsewhere: what is beyond the cable is no way further for others."""

    def fabric() -> Builder:
        found = Builder().network("lan", 10, "10.10.10.0/24").network("app", 20, "10.10.20.0/24")
        found.vm("a", "lan").vm("b", "app").router("gw", "lan", "app", uplink="host")
        for name in ("a", "b"):
            found.policy(name, f"vm:{name}", ingress=["allow internet 80/tcp"])
        return found

    was, becomes = built(fabric()), built(fabric().cable("wire", "lan"))
    before, after = (Side(each[2].flows, each[2].identities, each[0]) for each in (was, becomes))
    found = reach_changes(before, after, set(was[2].flows) ^ set(becomes[2].flows))
    assert {(each.source, each.target) for each in found} == {("internet", "a"), ("a", "internet")}


def test_a_claim_about_the_outside_is_tried_on_no_guest() -> None:
    topology, inventory, _ = built(shop().verify("never db -> internet", "allow host -> app:22/tcp"))
    assert probes(topology, inventory) == ()
    assert all(untried(topology, inventory, each) for each in topology.claims)


def test_what_was_denied_to_the_outside_is_apart_and_not_gone() -> None:
    topology, inventory, _ = built(shop())
    when = datetime(2026, 11, 28, tzinfo=UTC)
    ends = {"network": "router gw", "protocol": 6, "port": 443, "verdict": Verdict.DENIED, "reason": "POLICY"}
    rest = {"by": None, "packets": 1, "bytes": 60, "first": when, "last": when, "generation": 1}

    def seen(target: str | None, address: str | None) -> Seen:
        there = None if address is None else ip_address(address)
        return Seen("web.eth0", None, target, there, **ends, **rest)  # type: ignore[arg-type]

    tried = [seen("internet", "198.51.100.7"), seen(None, "198.51.100.7"), seen("gone.eth0", None)]
    found = observed(topology, inventory, tried, {})
    assert not found.wanted
    assert sorted(each.reason for each in found.apart) == ["GONE", "OUTSIDE", "OUTSIDE"]
