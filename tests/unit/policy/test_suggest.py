"""Rules for what was seen: enough, not one too many, and nothing opened that was not seen."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.generators import Builder, World, three_tier, worlds
from vnet.openflow.fields import ICMP, TCP, UDP
from vnet.policy.compile import compile
from vnet.policy.decisions import Asked
from vnet.policy.endpoint import Endpoint, endpoints
from vnet.policy.matrix import less
from vnet.policy.semantics import decide
from vnet.policy.spans import packed
from vnet.policy.suggest import NO_OPTIONS, Options, Suggested, suggest, with_suggested
from vnet.policy.wanted import ECHO, Wanted, Why, enforced
from vnet.topology.inventory import Inventory
from vnet.topology.model import Topology


def denied(world: World) -> list[Wanted]:
    """The connections of a world, those that its policies refuse and those that they do not."""
    ends = {(end.name, end.address): end for end in endpoints(world.topology, world.inventory)}
    found = []
    for packet in world.packets:
        client = ends.get((packet.source_nic, packet.source))
        server = ends.get((packet.target_nic, packet.target))
        if client and server and not packet.reply:
            port = packet.icmp_type or packet.target_port
            found.append(Wanted(client, server, packet.protocol, port))
    return found


def suggested(world: World, options: Options = NO_OPTIONS) -> tuple[Suggested, Topology]:
    found = suggest(world.topology, world.inventory, denied(world), options)
    return found, with_suggested(world.topology, found.rules, found.policies)


def lost(topology: Topology, inventory: Inventory, wanted: set[Wanted]) -> set[Wanted]:
    strict = enforced(topology)
    return {one for one in wanted if not decide(strict, inventory, one.packet).allowed}


def spans(one: Wanted):
    if one.service == ECHO:
        return tuple((packed(ICMP, kind),) * 2 for kind in (8, 128))
    return ((packed(*one.service),) * 2,)


def pairs(topology: Topology, inventory: Inventory) -> list[tuple[Endpoint, Endpoint]]:
    ends = tuple(endpoints(topology, inventory))
    return [
        (one, other)
        for one, other in product(ends, ends)
        if one.name != other.name
        and one.nic.network == other.nic.network
        and one.address.version == other.address.version
    ]


@settings(max_examples=80, deadline=None)
@given(worlds(max_packets=20), st.booleans(), st.booleans())
def test_all_that_rules_can_allow_is_allowed_and_no_rule_can_be_left_out(
    world: World, overrule: bool, generalize: bool
) -> None:
    found, after = suggested(world, Options(overrule=overrule, generalize=generalize))
    left = {each.wanted for each in found.left}
    wanted = set(denied(world)) - left
    assert lost(world.topology, world.inventory, wanted) == wanted
    assert lost(after, world.inventory, wanted) == set()
    flows = Asked(compile(enforced(after), world.inventory))
    assert all(
        not less(spans(one)[:1], flows.open(one.client, one.server)) for one in wanted if one.port != 128
    )
    for rule in found.rules:
        fewer = with_suggested(
            world.topology, [each for each in found.rules if each is not rule], found.policies
        )
        assert lost(fewer, world.inventory, wanted), rule


@settings(max_examples=60, deadline=None)
@given(worlds(max_packets=16), st.booleans())
def test_nothing_opens_between_vms_that_was_not_seen(world: World, overrule: bool) -> None:
    found, after = suggested(world, Options(overrule=overrule))
    left = {each.wanted for each in found.left}
    seen: dict[tuple[str, str], tuple] = {}
    holders = defaultdict(set)  # rules may name an address, which profiles may allow to several VMs
    for end in endpoints(world.topology, world.inventory):
        holders[end.nic.network, end.address].add(end.vm.name)
    for one in set(denied(world)) - left:
        for names in product(*(holders[end.nic.network, end.address] for end in (one.client, one.server))):
            seen[names] = (*seen.get(names, ()), *spans(one))
    old, new = (Asked(compile(enforced(each), world.inventory)) for each in (world.topology, after))
    for client, server in pairs(world.topology, world.inventory):
        names = client.vm.name, server.vm.name
        if names[0] == names[1]:
            continue
        opened = less(new.open(client, server), old.open(client, server))
        assert not less(opened, seen.get(names, ())), (names, opened)


@settings(max_examples=60, deadline=None)
@given(worlds(max_packets=16), st.booleans())
def test_nothing_closes_as_it_is_enforced_now(world: World, generalize: bool) -> None:
    """A new list for a VM whose egress was open, or that was only audited, would close all else."""
    _, after = suggested(world, Options(generalize=generalize, overrule=True))
    for how in (lambda each: each, enforced):
        old, new = (Asked(compile(how(each), world.inventory)) for each in (world.topology, after))
        for client, server in pairs(world.topology, world.inventory):
            assert not less(old.open(client, server), new.open(client, server)), (str(client), str(server))


@settings(max_examples=40, deadline=None)
@given(worlds(max_packets=16))
def test_what_is_left_out_has_a_reason_that_is_true(world: World) -> None:
    found, _ = suggested(world)
    strict = enforced(world.topology)
    for left in found.left:
        verdict = decide(strict, world.inventory, left.wanted.packet) if left.why is not Why.FABRIC else None
        match left.why:
            case Why.ALLOWED:
                assert verdict and verdict.allowed
            case Why.RULE:
                assert verdict and not verdict.allowed


# -- by example -----------------------------------------------------------------------------------


class Seen:
    """Connections of a fabric by the names of its VMs."""

    def __init__(self, builder: Builder) -> None:
        self.topology, self.inventory = builder.build()
        self.ends = [end for end in endpoints(self.topology, self.inventory) if end.is_given]

    def one(self, text: str) -> Wanted:
        """`web-1 -> app 9090/tcp`, `a -> b icmp`; the first network and family that both are on."""
        client, _, server, service = text.split()
        port, _, name = service.rpartition("/")
        protocol = {"tcp": TCP, "udp": UDP, "icmp": ICMP}[name]
        for one, other in product(self.ends, self.ends):
            names = one.vm.name, other.vm.name
            near = one.nic.network == other.nic.network and one.address.version == other.address.version
            if names == (client, server) and near:
                return Wanted(one, other, protocol, int(port or 8))
        raise AssertionError(f"{text}: they share no network")

    def suggest(self, *texts: str, **options: bool) -> Suggested:
        wanted = [self.one(text) for text in texts]
        return suggest(self.topology, self.inventory, wanted, Options(**options))


def rules(found: Suggested) -> list[str]:
    return [
        f"{each.policy} {each.direction.value} {','.join(map(str, each.peers))} {','.join(each.ports.words)}"
        for each in found.rules
    ]


def reasons(found: Suggested) -> dict[str, str]:
    return {str(each.wanted): each.why.value for each in found.left}


def test_a_policy_that_is_there_is_extended_and_replicas_are_called_by_their_group() -> None:
    found = Seen(three_tier()).suggest("web-1 -> app 9090/tcp", "web-2 -> app 9090/tcp")
    assert rules(found) == ["app-from-web ingress web 9090/tcp"]
    assert found.policies == ()


def test_one_of_two_replicas_is_named_alone_unless_more_is_asked_for() -> None:
    seen = Seen(three_tier())
    assert rules(seen.suggest("web-1 -> app 9090/tcp")) == ["app-from-web ingress vm:web-1 9090/tcp"]
    found = seen.suggest("web-1 -> app 9090/tcp", generalize=True)
    assert rules(found) == ["app-from-web ingress web 9090/tcp"]
    assert found.rules[0].unseen == (("web-2", "app"),)


def test_several_ports_are_one_rule_by_the_names_of_their_services() -> None:
    seen = Seen(three_tier())
    texts = [
        f"intruder -> app {port}" for port in ("22/tcp", "443/tcp", "53/udp", "53/tcp", "icmp", "9000/tcp")
    ]
    assert rules(seen.suggest(*texts)) == ["app-from-web ingress vm:intruder dns,https,ssh,icmp,9000/tcp"]


def test_ports_become_a_range_only_when_asked() -> None:
    seen = Seen(three_tier())
    texts = [f"intruder -> app {port}/tcp" for port in (9000, 9001, 9002, 9003, 9007)]
    assert rules(seen.suggest(*texts)) == [
        "app-from-web ingress vm:intruder 9000/tcp,9001/tcp,9002/tcp,9003/tcp,9007/tcp"
    ]
    assert rules(seen.suggest(*texts, ranges=True)) == [
        "app-from-web ingress vm:intruder 9000-9003/tcp,9007/tcp"
    ]


def test_both_sides_get_a_rule_where_both_say_no() -> None:
    found = Seen(three_tier()).suggest("db -> app 80/tcp")
    assert rules(found) == ["db-from-app egress app http", "app-from-web ingress db http"]


def test_a_rule_comes_before_the_one_that_closes_the_list() -> None:
    builder = three_tier()
    builder.claims.clear()
    found = Seen(builder).suggest("app -> db 80/tcp")
    assert rules(found) == ["db-from-app ingress app http"]
    before = found.rules[0].before
    assert before is not None
    assert before.number == 2


def test_what_a_claim_forbids_is_not_suggested() -> None:
    found = Seen(three_tier()).suggest("app -> db 22/tcp", "intruder -> db 5432/tcp", "app -> web-1 80/tcp")
    assert rules(found) == []
    assert set(reasons(found).values()) == {"claim"}
    assert {str(each.text) for each in found.left} == {
        "deny app -> db:22/tcp",
        "only app -> db:5432/tcp",
        "deny app -> web",
    }


def test_a_rule_that_denies_by_name_is_overruled_only_when_asked() -> None:
    builder = Builder().network("n", 1, "10.0.0.0/24").vm("a", "n").vm("b", "n").vm("c", "n")
    builder.policy("p", "vm:b", ingress=["deny vm:a 22/tcp", "allow vm:c", "deny any"])
    seen = Seen(builder)
    found = seen.suggest("a -> b 22/tcp", "a -> b 80/tcp")
    assert rules(found) == ["p ingress vm:a http"]
    assert reasons(found) == {"a -> b:22/tcp": "rule"}
    assert found.left[0].at.line == builder.policies[0].ingress[0].at.line
    found = seen.suggest("a -> b 22/tcp", overrule=True)
    assert rules(found) == ["p ingress vm:a ssh"]
    assert found.rules[0].before == builder.policies[0].ingress[0]


def test_an_audited_vm_is_not_closed_by_a_new_policy() -> None:
    builder = Builder().network("n", 1, "10.0.0.0/24").vm("a", "n").vm("b", "n")
    builder.policy("watch", "any", ingress=[], egress=[], enforcement="audit")
    found = Seen(builder).suggest("a -> b 80/tcp")
    assert {each.enforcement.value for each in found.policies} == {"audit"}
    assert len(found.rules) == 2


def test_a_denied_pass_and_an_earlier_tier_are_got_ahead_of() -> None:
    builder = Builder().network("n", 1, "10.0.0.0/24").vm("a", "n").vm("b", "n").vm("c", "n")
    builder.policy("lid", "any", ingress=["deny any"], tier="admin").policy(
        "p", "vm:b", ingress=["allow vm:c"]
    )
    found = Seen(builder).suggest("a -> b 80/tcp")
    assert [(each.tier, each.before and each.before.name) for each in found.policies] == [("admin", "lid")]


def test_a_scan_is_not_answered_with_rules() -> None:
    texts = [f"intruder -> app {port}/tcp" for port in range(1, 41)]
    found = Seen(three_tier()).suggest(*texts)
    assert rules(found) == []
    assert set(reasons(found).values()) == {"scan"}
    assert len(rules(Seen(three_tier()).suggest(*texts, ranges=True))) == 1


def test_isolated_vms_cannot_be_joined_by_a_rule() -> None:
    builder = Builder().network("n", 1, "10.0.0.0/24", isolated=True).vm("a", "n").vm("b", "n")
    assert reasons(Seen(builder).suggest("a -> b 80/tcp")) == {"a -> b:80/tcp": "fabric"}


@pytest.mark.parametrize("protocol", [47, 89])
def test_a_protocol_that_no_rule_can_name_is_left_out(protocol: int) -> None:
    seen = Seen(three_tier())
    one = replace(seen.one("web-1 -> app 80/tcp"), protocol=protocol, port=0)
    found = suggest(seen.topology, seen.inventory, [one])
    assert [each.why for each in found.left] == [Why.FABRIC]


def test_who_talk_among_themselves_are_one_rule() -> None:
    builder = Builder().network("n", 1, "10.0.0.0/24")
    for number in range(1, 5):
        builder.vm(f"c-{number}", "n", spec="c", groups=["c"])
    texts = [f"c-{a} -> c-{b} 80/tcp" for a, b in product(range(1, 5), repeat=2) if a != b]
    found = Seen(builder).suggest(*texts)
    assert rules(found) == ["c-ingress-as-seen ingress c http"]
