"""Claims about `internet`, `host` and CIDRs: exact for every address outside."""

from __future__ import annotations

import pytest

from tests.generators import Builder
from vnet.openflow.flow import Flow, Instructions, Output, match
from vnet.policy.compile import compile
from vnet.policy.verify import ClaimResult, verify


def shop(uplink: str = "host") -> Builder:
    return (
        Builder()
        .network("front", 10, "10.10.10.0/24", "fd00:10::/64")
        .network("data", 30, "10.10.30.0/24")
        .router("gw", "front", uplink=uplink)
        .vm("web", "front", groups=["web"])
        .vm("app", "front", "data", groups=["app"])
        .vm("db", "data", groups=["db"])
        .group("far", "203.0.113.0/24", "2001:db8::/32")
        .policy(
            "web",
            "web",
            ingress=["allow internet 443/tcp"],
            egress=["allow far 443/tcp", "allow host 53/udp"],
        )
        .policy(
            "app", "app", ingress=["allow host 22/tcp", "allow web 8080/tcp"], egress=["allow db 5432/tcp"]
        )
        .policy("db", "db", ingress=["allow app 5432/tcp"], egress=[])
    )


def results(builder: Builder, *claims: str) -> dict[str, ClaimResult]:
    topology, inventory = builder.verify(*claims).build()
    compiled = compile(topology, inventory)
    return {
        each.claim.text: each for each in verify(topology, inventory, compiled.flows, compiled.provenance)
    }


TRUE = (
    "allow internet -> web:443/tcp",
    "deny internet -> web:22/tcp",
    "never db -> internet",
    "never internet -> db",
    "never app -> internet",
    "never internet -> app",
    "deny host -> web",
    "allow host -> app:22/tcp",
    "only internet -> web:443/tcp",
    "allow web -> far:443/tcp",
    "allow web -> 203.0.113.64/26:443/tcp",
    "deny web -> 198.51.100.0/24",
    "deny web -> 0.0.0.0/1",
    "never web -> 2001:db9::/32",
    "allow web -> host:53/udp",
    "deny web -> host:22/tcp",
    "only app -> db:5432/tcp",
    "never db -> any",
)
FALSE = {
    "allow internet -> web:80/tcp": "ingress of web: no rule matched",
    "deny internet -> web:443/tcp": "ingress rule 1",
    "never web -> internet": "egress rule 1",
    "never web -> far": "egress rule 1",
    "never web -> 203.0.113.128/25": "egress rule 1",
    "deny web -> 128.0.0.0/1": "egress rule 2",
    "allow web -> 203.0.112.0/23:443/tcp": "no rule matched",
    "allow web -> internet:443/tcp": "no rule matched",
    "only web -> app:8080/tcp": "egress of web: no rule matched",
    "never host -> app": "ingress rule 1",
    "allow db -> internet": "share no network",
}


@pytest.fixture(scope="module")
def proved() -> dict[str, ClaimResult]:
    return results(shop(), *TRUE, *FALSE)


@pytest.mark.parametrize("claim", TRUE)
def test_a_claim_that_is_true_holds(proved: dict[str, ClaimResult], claim: str) -> None:
    assert proved[claim].holds, proved[claim]


@pytest.mark.parametrize("claim", FALSE)
def test_a_claim_that_is_false_fails_with_a_packet_and_what_decides(
    proved: dict[str, ClaimResult], claim: str
) -> None:
    assert not proved[claim].holds
    assert FALSE[claim] in str(proved[claim].counterexample)


def test_a_counterexample_names_who_is_outside(proved: dict[str, ClaimResult]) -> None:
    inward, outward = (
        str(proved[claim].counterexample) for claim in ("deny internet -> web:443/tcp", "never web -> far")
    )
    assert (
        inward.startswith("tcp from internet 1.0.0.0 port") and "to web.eth0 10.10.10.11 port 443" in inward
    )
    assert "from web.eth0 10.10.10.11 port" in outward and "to internet 203.0.113." in outward


@pytest.mark.parametrize("claim", ["never web -> internet", "never any -> internet", "never web -> any"])
def test_also_what_is_no_address_of_anybody_must_not_leave(claim: str) -> None:
    """A flow that somebody adds takes packets for 240.0.0.1 out."""
    builder = shop().policy("closed", "any", egress=[], ingress=[], tier="baseline")
    builder.policies = [policy for policy in builder.policies if policy.name == "closed"]
    topology, inventory = builder.verify(claim).build()
    flows = compile(topology, inventory).flows
    assert verify(topology, inventory, flows)[0].holds
    leak = match(eth_type=0x0800, ipv4_dst=0xF0000001)
    hole = Flow(3, 60000, leak, Instructions(apply=(Output(inventory.exits[0].port),)))
    assert not verify(topology, inventory, (*flows, hole))[0].holds


@pytest.mark.parametrize("trunk", [False, True], ids=["access", "trunk"])
def test_who_is_on_a_cable_is_internet_too(trunk: bool) -> None:
    builder = (
        Builder()
        .network("lan", 10, "10.10.10.0/24", "fd00:10::/64")
        .network("back", 20, "10.10.20.0/24")
        .vm("web", "lan")
        .vm("db", "back")
        .policy(
            "web", "vm:web", ingress=["allow 10.10.10.0/24 443/tcp"], egress=["deny 10.0.0.0/8", "allow any"]
        )
        .policy("db", "vm:db", ingress=["allow internet 22/tcp"], egress=[])
        .cable("wire", "lan", *(["back"] if trunk else []), trunk=trunk)
    )
    true = [
        "allow 10.10.10.0/24 -> vm:web:443/tcp",
        "deny 203.0.113.0/24 -> vm:web",
        "never vm:db -> internet",
    ]
    false = [
        "allow internet -> vm:web:443/tcp",
        "never vm:web -> internet",
        "deny 10.10.10.0/24 -> vm:web:443/tcp",
    ]
    (true if trunk else false).append("allow internet -> vm:db:22/tcp")
    found = results(builder, *true, *false)
    assert [claim for claim, result in found.items() if result.holds] == [
        claim for claim in found if claim in true
    ]
