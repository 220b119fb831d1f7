"""Claims decided on flows: each kind, held and broken, with a counterexample a person can send."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

from tests.generators import Builder, World, claim, header, plugs, three_tier, worlds
from vnet.openflow.cookie import make
from vnet.openflow.fields import CtState
from vnet.openflow.flow import (
    Conntrack,
    DecMplsTtl,
    Flow,
    Instructions,
    Nat,
    Output,
    PopVlan,
    Resubmit,
    ToGroup,
    match,
)
from vnet.policy.compile import compile
from vnet.policy.pipeline import Stage
from vnet.policy.probes import probes, untried
from vnet.policy.semantics import decide
from vnet.policy.space import Region, exactly
from vnet.policy.verify import ClaimResult, verify
from vnet.policy.walk import Unfollowable, Walk
from vnet.topology.inventory import expand
from vnet.topology.load import load_text
from vnet.topology.model import ClaimKind


def check(builder: Builder, *claims: str) -> list[ClaimResult]:
    builder.claims.clear()
    topology, inventory = builder.verify(*claims).build()
    return list(verify(topology, inventory, compile(topology, inventory).flows))


def test_all_claims_of_three_tier_hold() -> None:
    topology, inventory = three_tier().build()
    results = verify(topology, inventory, compile(topology, inventory).flows)
    assert len(results) == 6
    assert all(result.holds and result.checked for result in results)


@pytest.mark.parametrize(
    ("claim", "holds"),
    [
        ("allow web -> app:8080/tcp", True),
        ("allow web -> app:icmp", True),
        ("allow vm:web-1 -> vm:app:8080/tcp", True),
        ("allow web -> app:8080/udp", False),
        ("allow web -> app:8080-8081/tcp", False),
        ("allow web -> app", False),
        ("allow web -> db:5432/tcp", False),
        ("allow nobody -> db:5432/tcp", False),
        ("allow db -> app:8080/tcp", False),
        ("deny app -> db:22/tcp", True),
        ("deny app -> db:5000-6000/tcp", False),
        ("deny app -> db:icmp", True),
        ("deny web -> app:icmp", False),
        ("deny app -> web", True),
        ("deny any -> db:5432/tcp", False),
        ("deny 10.10.20.11/32 -> db:5432/tcp", False),
        ("deny 10.10.20.99/32 -> db:5432/tcp", True),
        ("never web -> db", True),
        ("never app -> db", False),
        ("never db -> any", True),
        ("never vm:intruder -> any", True),
        ("only app -> db:5432/tcp", True),
        ("only app -> db:5431-5432/tcp", False),
        ("only app -> db", False),
        ("only vm:web -> vm:app:8080/tcp", False),
        ("only any -> db:5432/tcp", False),
    ],
)
def test_claims_about_three_tier(claim: str, holds: bool) -> None:
    (result,) = check(three_tier(), claim)
    assert result.holds is holds, str(result)
    assert (result.counterexample is None) is holds


def example(builder: Builder, claim: str) -> str:
    (result,) = check(builder, claim)
    assert not result.holds
    return str(result.counterexample)


def test_a_broken_ban_shows_the_packet_and_the_rule_that_lets_it_pass() -> None:
    assert example(three_tier(), "never app -> db") == (
        "tcp from app.eth1 10.10.20.11 port 40000 to db.eth0 10.10.20.12 port 5432 passes: "
        "allowed by policy db-from-app ingress rule 1 (test.vnet.yaml:11)"
    )


def test_a_broken_promise_shows_the_packet_and_what_stops_it() -> None:
    assert example(three_tier(), "allow app -> db:22/tcp") == (
        "tcp from app.eth1 10.10.20.11 port 40000 to db.eth0 10.10.20.12 port 22 is lost: "
        "denied by policy db-from-app ingress rule 2 (test.vnet.yaml:12)"
    )


def test_only_shows_a_packet_of_another_service() -> None:
    assert example(three_tier(), "only vm:web -> vm:app:8080/tcp").startswith("icmp type 8 from web-1.eth0")


def test_vms_without_a_common_network_cannot_be_promised_anything() -> None:
    assert "web-1 and db share no network" in example(three_tier(), "allow web -> db:80/tcp")


def two_networks() -> Builder:
    """a and b meet on two networks; the policy opens one of them only."""
    return (
        Builder()
        .network("one", 10, "10.1.0.0/24")
        .network("two", 20, "10.2.0.0/24")
        .vm("a", "one", "two", groups=["a"])
        .vm("b", "one", "two", groups=["b"])
        .policy("p", "b", ingress=["allow 10.2.0.0/24 80/tcp"])
    )


def test_allow_needs_one_common_network_and_deny_needs_all() -> None:
    allowed, denied = check(two_networks(), "allow a -> b:80/tcp", "deny a -> b:80/tcp")
    assert allowed.holds
    assert not denied.holds


def test_both_address_families_must_be_reachable() -> None:
    builder = Builder().network("net", 10, "10.0.0.0/24", "fd00::/64").vm("a", "net", groups=["a"])
    builder.vm("b", "net", groups=["b"]).policy("p", "b", ingress=["allow 10.0.0.0/24 80/tcp"])
    assert "fd00::b" in example(builder, "allow a -> b:80/tcp")


def test_link_local_addresses_count_for_bans() -> None:
    builder = Builder().network("net", 10, "fd00::/64").vm("a", "net", groups=["a"])
    builder.vm("b", "net", groups=["b"]).policy("p", "b", ingress=["allow fe80::/10 80/tcp"])
    assert "fe80::" in example(builder, "never a -> b")


def test_a_vm_may_talk_to_itself() -> None:
    builder = Builder().network("net", 10, "10.0.0.0/24").vm("a", "net", "net", groups=["a"])
    (result,) = check(builder.policy("p", "a", ingress=["allow a"]), "never any -> a")
    assert result.holds


def tampered(*more: Flow, without: int | None = None) -> list[ClaimResult]:
    """The claims of three-tier, on flows that somebody changed behind the controller's back."""
    topology, inventory = three_tier().build()
    flows = [flow for flow in compile(topology, inventory).flows if flow.table != without]
    return list(verify(topology, inventory, [*flows, *more]))


def test_claims_are_decided_on_the_flows_not_on_the_file() -> None:
    backdoor = Flow(
        Stage.INGRESS + 1, 65000, match(reg3=6 << 16 | 22), Instructions(goto=Stage.DELIVER), make("backdoor")
    )
    broken = [result for result in tampered(backdoor) if not result.holds]
    assert [result.claim.text for result in broken] == [
        "deny app -> db:22/tcp",
        "deny app -> web",
        "only app -> db:5432/tcp",
    ]
    assert "a flow that this topology does not know" in str(broken[0].counterexample)


def test_a_hole_in_the_source_guard_breaks_a_ban() -> None:
    """The intruder pretends to be app: with its guard gone, the identity is app's."""
    topology, inventory = three_tier().build()
    compiled = compile(topology, inventory)
    app = next(nic for nic in inventory.nics if nic.name == "app.eth1")
    intruder = next(nic for nic in inventory.nics if nic.name == "intruder.eth1")
    guard = next(
        flow
        for flow in compiled.flows
        if flow.table == 1
        and flow.match.get("ipv4_src") == (int(app.addresses[0].ip), 0xFFFFFFFF)
        and flow.match.get("in_port") == (app.port, 0xFFFFFFFF)
    )
    opened = replace(
        guard, match=match(in_port=intruder.port, eth_type=0x0800, ipv4_src=int(app.addresses[0].ip))
    )
    result = verify(topology, inventory, [*compiled.flows, opened])[-1]
    assert not result.holds
    assert "intruder.eth1 10.10.20.11 (forged)" in str(result.counterexample)


@pytest.mark.parametrize(
    ("table", "reached"), [(Stage.DESTINATION, 4), (Stage.CONNECTION, 4), (Stage.DELIVER, 0)]
)
def test_who_is_told_apart_by_any_flow_is_asked_alone(
    monkeypatch: pytest.MonkeyPatch, table: Stage, reached: int
) -> None:
    """Senders of one identity are proved together, unless some flow ahead lets one of them through."""
    topology, inventory = three_tier().build()
    topology = replace(topology, claims=(claim("never vm:intruder -> db", 1), claim("never web -> db", 2)))
    nics = {nic.name: nic for nic in inventory.nics}
    db, intruder = nics["db.eth0"], nics["intruder.eth1"]
    address = int(intruder.addresses[0].ip)
    doors = (
        {"in_port": intruder.port},
        {"eth_src": intruder.mac},
        {"eth_type": 0x800, "ipv4_src": address},
        {"eth_type": 0x800, "ip_proto": 17, "udp_src": 4711},
    )
    found = []
    for door in doors:
        through = Flow(table, 65_000, match(**door), Instructions((PopVlan(), Output(db.port))), make("door"))
        flows = (*compile(topology, inventory).flows, through)
        together = [result.holds for result in verify(topology, inventory, flows)]
        with monkeypatch.context() as patch:
            patch.setattr(Walk, "are_lost", lambda *_: False)
            assert [result.holds for result in verify(topology, inventory, flows)] == together
        found.append(together[0])
    assert found.count(False) == reached


def test_an_empty_switch_keeps_bans_and_breaks_promises() -> None:
    topology, inventory = three_tier().build()
    results = verify(topology, inventory, [])
    assert [result.holds for result in results] == [False, False, True, True, True, False]
    assert "no flow takes it" in str(results[0].counterexample)


def test_flows_that_cannot_be_followed_prove_nothing() -> None:
    odd = Flow(0, 65535, match(), Instructions(write=(Output(1),)))
    with pytest.raises(Unfollowable):
        tampered(odd)


@pytest.mark.parametrize(
    "odd",
    [
        Instructions((ToGroup(1),)),
        Instructions((Resubmit(table=200),)),
        Instructions((DecMplsTtl(),)),
        Instructions(meter=1),
        Instructions((Conntrack(table=Stage.DESTINATION, nat=Nat()),)),
    ],
)
def test_what_the_proof_has_no_arithmetic_for_proves_nothing(odd: Instructions) -> None:
    _, inventory = three_tier().build()
    intruder = next(nic for nic in inventory.nics if nic.name == "intruder.eth1")
    with pytest.raises(Unfollowable):
        tampered(Flow(0, 65_000, match(in_port=intruder.port), odd, make("odd")))


def test_what_left_and_is_then_lost_has_left() -> None:
    """An output counts also when the table behind it has no flow."""
    topology, inventory = three_tier().build()
    nics = {nic.name: nic for nic in inventory.nics}
    flows = compile(topology, inventory).flows
    through = Flow(
        Stage.DESTINATION,
        65_000,
        match(in_port=nics["intruder.eth1"].port),
        Instructions((PopVlan(), Output(nics["db.eth0"].port)), goto=60),
        make("door"),
    )
    banned = replace(topology, claims=(claim("never vm:intruder -> db", 1),))
    (result,) = verify(banned, inventory, (*flows, through))
    assert not result.holds


@settings(max_examples=15, deadline=None)
@given(worlds(max_packets=20))
def test_what_a_proof_rules_out_never_passes(world: World) -> None:
    """`never any -> any` holds exactly when no honest packet of the world opens a connection."""
    builder = Builder()
    claim = builder.verify("never any -> any").claims
    topology = replace(world.topology, claims=tuple(claim))
    (result,) = verify(topology, world.inventory, compile(topology, world.inventory).flows)
    owner = {name: nic.vm or name for name, nic in plugs(world.inventory).items()}
    fresh = [p for p in world.packets if not p.reply and not p.admitted]
    requests = [p for p in fresh if owner[p.source_nic] != owner[p.target_nic]]
    passing = [p for p in requests if decide(topology, world.inventory, p).allowed]
    assert not (result.holds and passing)


@settings(max_examples=4, deadline=None)
@given(worlds(max_vms=3, max_policies=3, max_packets=1))
def test_proving_together_is_proving_one_by_one(world: World) -> None:
    names = dict.fromkeys(vm.spec for vm in world.inventory.vms)
    claims = [f"{kind} vm:{one} -> any" for one in names for kind in ("never", "only")]
    claims += [f"never any -> vm:{one}" for one in names]
    topology = replace(world.topology, claims=tuple(claim(text, 1) for text in claims))
    flows = compile(topology, world.inventory).flows
    together = verify(topology, world.inventory, flows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Walk, "are_lost", lambda *_: False)
        apart = verify(topology, world.inventory, flows)
    assert [each.holds for each in together] == [each.holds for each in apart]
    held = [(one.checked, other.checked) for one, other in zip(together, apart, strict=True) if one.holds]
    assert all(one == other for one, other in held)


@settings(max_examples=20, deadline=None)
@given(worlds(max_packets=20))
def test_a_walk_of_many_packets_agrees_with_the_walk_of_each(world: World) -> None:
    """Leave a packet's ports open, walk the set, and find the packet in the leaf with its own fate."""
    walk = Walk(compile(world.topology, world.inventory).flows)
    state = CtState.TRK | CtState.NEW
    for packet in world.packets:
        one = exactly(**header(world.inventory, packet))
        (alone,) = walk.leaves(Region(one), state)
        many = {name: bits for name, bits in one.items() if not name.endswith(("tcp_dst", "udp_dst"))}
        holding = [leaf for leaf in walk.leaves(Region(many), state) if _holds(leaf.region, one)]
        assert [leaf.outputs for leaf in holding] == [alone.outputs]
        assert holding[0].trail == alone.trail


def _holds(region: Region, packet: dict[str, tuple[int, int]]) -> bool:
    narrowed = region.meet(packet)
    return narrowed is not None and narrowed.some() is not None


# -- probes ---------------------------------------------------------------------------------------


def test_every_claim_is_represented_by_probes() -> None:
    topology, inventory = three_tier().build()
    tried = {probe.claim.text for probe in probes(topology, inventory)}
    assert tried == {claim.text for claim in topology.claims}


def test_probes_of_allow_expect_success_and_of_bans_failure() -> None:
    for probe in probes(*three_tier().build()):
        if probe.claim.kind is ClaimKind.ALLOW:
            assert probe.allowed
        elif probe.claim.kind is not ClaimKind.ONLY:
            assert not probe.allowed


def test_only_is_probed_with_another_source_and_another_port() -> None:
    of_only = [p for p in probes(*three_tier().build()) if p.claim.kind is ClaimKind.ONLY]
    assert [(p.source_vm, p.port) for p in of_only if p.allowed] == [("app", 5432)]
    assert ("intruder", 5432) in {(p.source_vm, p.port) for p in of_only if not p.allowed}
    assert ("app", 5433) in {(p.source_vm, p.port) for p in of_only if not p.allowed}


def test_probes_expect_what_the_policies_mean_when_the_claims_hold() -> None:
    topology, inventory = three_tier().build()
    by_address = {interface.ip: nic for nic in inventory.nics for interface in nic.addresses}
    for probe in probes(topology, inventory):
        source, target = by_address[probe.source_address], by_address[probe.target_address]
        assert (source.vm, target.vm) == (probe.source_vm, probe.target_vm)
        assert probe.allowed <= (source.network == target.network)


def test_probes_of_one_claim_are_limited() -> None:
    assert len(probes(*three_tier().build(), most=2)) <= 2 * 6


def test_allow_is_probed_on_the_network_that_the_policies_open() -> None:
    builder = two_networks().verify("allow a -> b:80/tcp")
    assert [str(probe.target_address) for probe in probes(*builder.build())] == ["10.2.0.12"]


def attached(claims: str) -> list[tuple[str, int]]:
    """What is not tried of claims, and how many probes there are, of two VMs and two endpoints."""
    text = f"""\
name: mixed
networks: {{lan: {{vlan: 10, subnets: {{cidr: 10.0.0.0/24}}}}}}
vms: {{web: {{networks: [lan]}}, app: {{networks: [lan]}}}}
endpoints:
  win: {{tap: tap-win, network: lan}}
  box: {{netns: blue, network: lan}}
policies: [{{name: all, applied_to: any, ingress: [{{from: any}}]}}]
verify: [{claims}]
"""
    topology = load_text(text, "mixed.vnet.yaml", {})
    inventory = expand(topology, {})
    sent = probes(topology, inventory)
    return [
        (untried(topology, inventory, each), sum(probe.claim == each for probe in sent))
        for each in topology.claims
    ]


def test_a_claim_that_speaks_of_endpoints_says_what_is_not_tried() -> None:
    (to_one,) = attached('"allow vm:web -> vm:win:80/tcp"')
    assert to_one == (
        "win is an endpoint, and nobody there is asked to send or to listen: the rules are proved, but"
        " 1 of 1 pairs is not tried",
        0,
    )
    ((why, tried),) = attached('"allow any -> vm:app:80/tcp"')
    assert why.startswith("box, win are endpoints,")
    assert why.endswith("2 of 3 pairs are not tried")
    assert tried == 1


def test_only_leaves_out_endpoints_that_it_does_not_name() -> None:
    ((why, tried),) = attached('"only vm:web -> vm:app:80/tcp"')
    assert why.endswith("2 of 3 pairs are not tried")
    assert tried > 1


def test_what_names_no_endpoint_is_tried_as_a_whole() -> None:
    ((why, tried),) = attached('"allow vm:web -> vm:app:80/tcp"')
    assert (why, tried > 0) == ("", True)
