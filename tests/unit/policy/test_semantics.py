"""What a policy means, case by case; the words are those of the manual."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tests.generators import Builder, three_tier
from vnet.base.drop import DropReason
from vnet.openflow.fields import ICMP, ICMPV6, TCP, UDP
from vnet.policy.endpoint import endpoints, link_local
from vnet.policy.semantics import Packet, Verdict, decide


def lab() -> Builder:
    """Two VMs on one network with both address families: a (group one) and b (group two)."""
    return (
        Builder()
        .network("net", 10, "10.0.0.0/24", "fd00::/64")
        .vm("a", "net", groups=["one"])
        .vm("b", "net", groups=["two"])
    )


def ask(
    builder: Builder,
    source: str,
    target: str,
    protocol: int = TCP,
    port: int = 80,
    *,
    family: int = 4,
    reply: bool = False,
    source_port: int = 40000,
) -> Verdict:
    """The verdict on a packet between the first NICs that two VMs have in common."""
    topology, inventory = builder.build()
    ends = [end for end in endpoints(topology, inventory) if end.address.version == family]
    one, other = next(
        (a, b)
        for a in ends
        for b in ends
        if (a.vm.name, b.vm.name) == (source, target) and a.nic.network == b.nic.network
    )
    addressed = (one.name, one.address, other.name, other.address)
    if protocol == ICMP:
        kind = {4: (ICMP, 8), 6: (ICMPV6, 128)}[family]
        packet = Packet(*addressed, kind[0], icmp_type=kind[1])
    else:
        ports = (port, source_port) if reply else (source_port, port)
        packet = Packet(*addressed, protocol, *ports, reply=reply)
    return decide(topology, inventory, packet)


def allows(*args: object, **options: object) -> bool:
    return ask(*args, **options).allowed  # type: ignore[arg-type]


def test_ingress_is_closed_without_any_policy() -> None:
    verdict = ask(lab(), "a", "b")
    assert verdict.reason is DropReason.POLICY
    assert "no policy applies" in verdict.origin.text
    assert str(verdict.origin.at) == "test.vnet.yaml:3"  # the line of b


def test_a_rule_opens_ingress_for_its_peer_and_port_only() -> None:
    builder = lab().policy("p", "two", ingress=["allow one 80/tcp"])
    assert allows(builder, "a", "b", TCP, 80)
    assert not allows(builder, "a", "b", TCP, 81)
    assert not allows(builder, "a", "b", UDP, 80)
    assert not allows(builder, "b", "a", TCP, 80)


def test_replies_pass_by_the_rule_of_their_connection() -> None:
    builder = lab().policy("p", "two", ingress=["allow one 80/tcp"])
    assert allows(builder, "b", "a", TCP, 80, reply=True)
    assert not allows(builder, "b", "a", TCP, 81, reply=True)


def test_a_change_of_policy_cuts_replies_too() -> None:
    assert not allows(lab(), "b", "a", TCP, 80, reply=True)


def test_both_families_mean_the_same() -> None:
    builder = lab().policy("p", "two", ingress=["allow one 80/tcp,icmp"])
    for family in (4, 6):
        assert allows(builder, "a", "b", TCP, 80, family=family)
        assert allows(builder, "a", "b", ICMP, family=family)
        assert not allows(builder, "a", "b", UDP, 80, family=family)


def test_egress_is_open_until_a_policy_that_applies_lists_it() -> None:
    def opened(**lists: list[str]) -> Builder:
        return lab().policy("in", "two", ingress=["allow any"]).policy("out", "one", **lists)

    assert allows(opened(ingress=[]), "a", "b")
    assert not allows(opened(egress=[]), "a", "b")
    assert not allows(opened(egress=["allow two 443/tcp"]), "a", "b", TCP, 80)
    assert allows(opened(egress=["allow two 443/tcp"]), "a", "b", TCP, 443)


def test_egress_listed_for_others_leaves_egress_open() -> None:
    builder = lab().policy("in", "two", ingress=["allow any"]).policy("out", "two", egress=[])
    assert allows(builder, "a", "b")


def test_egress_of_the_client_and_ingress_of_the_server_must_both_allow() -> None:
    builder = lab().policy("out", "one", egress=["allow two"])
    verdict = ask(builder, "a", "b")
    assert not verdict.allowed
    assert verdict.egress is not None
    assert verdict.egress.policy == "out"


def test_the_first_matching_rule_decides() -> None:
    deny_first = lab().policy("p", "two", ingress=["deny one 80-90/tcp", "allow any 85/tcp,443/tcp"])
    assert not allows(deny_first, "a", "b", TCP, 85)
    assert allows(deny_first, "a", "b", TCP, 443)
    allow_first = lab().policy("p", "two", ingress=["allow any 85/tcp", "deny one 80-90/tcp"])
    assert allows(allow_first, "a", "b", TCP, 85)


def test_policies_of_one_tier_are_asked_in_file_order() -> None:
    builder = lab().policy("no", "two", ingress=["deny one"]).policy("yes", "two", ingress=["allow one"])
    assert ask(builder, "a", "b").origin.policy == "no"


def test_tiers_come_before_file_order() -> None:
    builder = (
        lab()
        .policy("base", "two", ingress=["deny any"], tier="baseline")
        .policy("app", "two", ingress=["allow one"])
        .policy("admin", "two", ingress=["deny one 22/tcp"], tier="admin")
    )
    assert ask(builder, "a", "b", TCP, 22).origin.policy == "admin"
    assert ask(builder, "a", "b", TCP, 80).origin.policy == "app"


@pytest.mark.parametrize(
    ("selector", "meant"),
    [
        ("any", True),
        ("one", True),
        ("two", False),
        ("vm:a", True),
        ("vm:b", False),
        ("network:net", True),
        ("network:other", False),
        ("10.0.0.0/24", True),
        ("10.0.0.11/32", True),
        ("10.0.0.12/32", False),
        ("fd00::/64", False),
        ("ours", True),
        ("nobody", False),
        ("nobody,vm:a", True),
    ],
)
def test_selectors_mean_vms_networks_and_addresses(selector: str, meant: bool) -> None:
    builder = lab().network("other", 20, "10.1.0.0/24").group("ours", "10.0.0.8/29")
    assert allows(builder.policy("p", "two", ingress=[f"allow {selector}"]), "a", "b") is meant


def test_a_cidr_takes_an_address_not_the_vm_that_has_it() -> None:
    builder = lab().policy("p", "two", ingress=["allow 10.0.0.0/24"])
    assert allows(builder, "a", "b", family=4)
    assert not allows(builder, "a", "b", family=6)


def test_a_spec_name_means_all_its_replicas() -> None:
    builder = lab().vm("c-1", "net", spec="c").vm("c-2", "net", spec="c")
    by_spec = builder.policy("p", "two", ingress=["allow vm:c 80/tcp", "allow vm:c-1 81/tcp"])
    assert allows(by_spec, "c-1", "b", TCP, 80)
    assert allows(by_spec, "c-2", "b", TCP, 80)
    assert allows(by_spec, "c-1", "b", TCP, 81)
    assert not allows(by_spec, "c-2", "b", TCP, 81)


def test_link_local_addresses_belong_to_networks_with_an_ipv6_subnet() -> None:
    topology, inventory = three_tier().build()
    local = {end.name for end in endpoints(topology, inventory) if end.address.is_link_local}
    assert local == {"web-1.eth0", "web-2.eth0", "app.eth0", "intruder.eth0"}
    assert link_local(0x5254_0012_3456) == ip_address("fe80::5054:ff:fe12:3456")


def packet(**changes: object) -> Packet:
    fields: dict[str, object] = {
        "source_nic": "a.eth0",
        "source": ip_address("10.0.0.11"),
        "target_nic": "b.eth0",
        "target": ip_address("10.0.0.12"),
        "protocol": UDP,
        "source_port": 40000,
        "target_port": 53,
    }
    return Packet(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"source": ip_address("10.0.0.99")}, DropReason.SPOOF_IP),
        ({"target": ip_address("10.0.0.99")}, DropReason.NO_DST),
        ({"target_nic": "a.eth0", "target": ip_address("10.0.0.11")}, DropReason.SAME_PORT),
        ({"source_port": 67}, DropReason.ROGUE_DHCP),
        ({"protocol": ICMP, "icmp_type": 5}, DropReason.ROGUE_RA),
        ({}, DropReason.NONE),
    ],
)
def test_no_policy_opens_what_a_guard_forbids(changes: dict[str, object], reason: DropReason) -> None:
    topology, inventory = lab().policy("p", "any", ingress=["allow any"]).build()
    assert decide(topology, inventory, packet(**changes)).reason is reason


def test_other_networks_are_out_of_reach() -> None:
    builder = lab().network("other", 20, "10.1.0.0/24").vm("c", "other")
    topology, inventory = builder.policy("p", "any", ingress=["allow any"]).build()
    far = packet(target_nic="c.eth0", target=ip_address("10.1.0.11"))
    assert decide(topology, inventory, far).reason is DropReason.NO_DST


def test_neighbour_discovery_is_no_matter_of_policy() -> None:
    topology, inventory = lab().build()
    solicitation = packet(
        source=ip_address("fd00::b"), target=ip_address("fd00::c"), protocol=ICMPV6, icmp_type=135
    )
    with pytest.raises(ValueError, match="neighbour discovery"):
        decide(topology, inventory, solicitation)


def test_the_nearest_miss_names_the_rule_with_another_port() -> None:
    verdict = ask(three_tier(), "app", "db", TCP, 22)
    assert verdict.origin.policy == "db-from-app"
    assert verdict.origin.rule == "ingress 2"
    assert verdict.nearest is not None
    assert verdict.nearest.origin.rule == "ingress 1"
    assert "only ports 5432/tcp" in verdict.nearest.why


def test_the_nearest_miss_names_the_rule_for_another_peer() -> None:
    verdict = ask(three_tier(), "intruder", "db", TCP, 5432)
    assert verdict.nearest is not None
    assert "intruder is not in app" in verdict.nearest.why


def test_the_nearest_miss_names_an_overruled_rule_first() -> None:
    builder = lab().policy("p", "two", ingress=["allow one 443/tcp", "deny one", "allow one 80/tcp"])
    verdict = ask(builder, "a", "b", TCP, 80)
    assert verdict.nearest is not None
    assert verdict.nearest.origin.rule == "ingress 3"
    assert "comes first" in verdict.nearest.why
