"""Expansion of a topology into concrete VMs and NICs, and what it promises about changes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from ipaddress import ip_interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnet.base.errors import InputError
from vnet.topology.inventory import Assignment, Inventory, derived_mac, expand
from vnet.topology.load import load_text
from vnet.topology.model import Topology

NETWORKS = (
    'networks: {front: {vlan: 10, subnets: [10.0.0.0/24, "fd00::/64"]}, '
    "back: {vlan: 20, subnets: 10.0.1.0/28}}"
)


def topology(vms: str, networks: str = NETWORKS) -> Topology:
    return load_text(f"name: lab\n{networks}\nvms: {vms}\n", "lab.vnet.yaml", {})


def fresh(vms: str) -> Inventory:
    return expand(topology(vms), {})


def addresses(inventory: Inventory) -> dict[str, list[str]]:
    return {nic.name: [str(each) for each in nic.addresses] for nic in inventory.nics}


def test_addresses_are_the_lowest_free_hosts_after_the_gateway_s() -> None:
    assert addresses(fresh("{a: {networks: [front, back]}, b: {networks: [front]}}")) == {
        "a.eth0": ["10.0.0.2/24", "fd00::2/64"],
        "a.eth1": ["10.0.1.2/28"],
        "b.eth0": ["10.0.0.3/24", "fd00::3/64"],
    }


def test_declared_addresses_are_taken_exactly_and_avoided_by_others() -> None:
    vms = "{a: {networks: [front]}, b: {interfaces: {eth0: {network: front, addresses: [10.0.0.2/24]}}}}"
    assert addresses(fresh(vms)) == {"a.eth0": ["10.0.0.3/24", "fd00::2/64"], "b.eth0": ["10.0.0.2/24"]}


def test_replicas_are_numbered_from_one() -> None:
    inventory = fresh(
        "{web: {networks: [back], replicas: 2}, db: {networks: [back]}, off: {networks: [], replicas: 0}}"
    )
    assert [(vm.name, vm.spec) for vm in inventory.vms] == [("web-1", "web"), ("web-2", "web"), ("db", "db")]
    assert [nic.name for nic in inventory.nics] == ["web-1.eth0", "web-2.eth0", "db.eth0"]


def test_ports_count_from_one_in_file_order() -> None:
    assert [nic.port for nic in fresh("{a: {networks: [front, back]}, b: {networks: [front]}}").nics] == [
        1,
        2,
        3,
    ]


def test_a_mac_depends_on_the_names_only() -> None:
    alone, among = fresh("{b: {networks: [front]}}"), fresh("{a: {networks: [front]}, b: {networks: [back]}}")
    assert alone.nics[0].mac == among.nics[1].mac == derived_mac("lab", "b.eth0")
    assert alone.nics[0].mac >> 24 == 0x525400


def test_a_mac_that_somebody_declares_is_replaced_for_the_other() -> None:
    mac = derived_mac("lab", "a.eth0").to_bytes(6, "big").hex(":")
    inventory = fresh(
        f"{{a: {{networks: [front]}}, b: {{interfaces: {{eth0: {{network: front, mac: '{mac}'}}}}}}}}"
    )
    assert inventory.nics[0].mac == derived_mac("lab", "a.eth0", attempt=1)


def test_groups_are_those_listed_and_those_whose_labels_match() -> None:
    text = (
        f"name: lab\n{NETWORKS}\ngroups: {{p: {{labels: {{env: p, rank: a}}}}, q: {{labels: {{env: p}}}}}}\n"
    )
    text += "vms: {a: {networks: [back], groups: [g], labels: {env: p}}}\n"
    assert expand(load_text(text, "x", {}), {}).vms[0].groups == {"g", "q"}


def test_a_nic_keeps_its_address_when_the_file_is_reordered() -> None:
    first = fresh("{a: {networks: [front]}, b: {networks: [front]}}")
    second = expand(topology("{b: {networks: [front]}, a: {networks: [front]}}"), first.assignments)
    assert second.assignments == first.assignments


def test_a_previous_address_that_another_nic_now_declares_is_given_up() -> None:
    first = fresh("{a: {networks: [back]}}")
    vms = "{a: {networks: [back]}, b: {interfaces: {eth0: {network: back, addresses: [10.0.1.2/28]}}}}"
    second = expand(topology(vms), first.assignments)
    assert addresses(second) == {"a.eth0": ["10.0.1.3/28"], "b.eth0": ["10.0.1.2/28"]}
    assert second.nics[0].port == first.nics[0].port


def test_an_address_outside_the_changed_subnets_is_replaced() -> None:
    first = fresh("{a: {networks: [front]}}")
    moved = NETWORKS.replace("10.0.0.0/24", "10.9.0.0/24")
    second = expand(topology("{a: {networks: [front]}}", moved), first.assignments)
    assert addresses(second) == {"a.eth0": ["10.9.0.2/24", "fd00::2/64"]}


def test_a_kept_address_takes_the_prefix_of_the_changed_subnet() -> None:
    first = fresh("{a: {networks: [front]}}")
    grown = NETWORKS.replace("10.0.0.0/24", "10.0.0.0/25")
    second = expand(topology("{a: {networks: [front]}}", grown), first.assignments)
    assert addresses(second)["a.eth0"][0] == "10.0.0.2/25"


def test_a_new_nic_avoids_what_a_removed_one_had_while_there_is_room() -> None:
    first = fresh("{a: {networks: [back]}}")
    second = expand(topology("{b: {networks: [back]}}"), first.assignments)
    assert (second.nics[0].port, addresses(second)["b.eth0"]) == (2, ["10.0.1.3/28"])


def test_the_address_of_a_removed_nic_is_used_when_no_other_is_left() -> None:
    networks = "networks: {lan: {vlan: 1, subnets: 10.0.0.0/30}}"
    first = expand(topology("{a: {networks: [lan]}}", networks), {})
    second = expand(topology("{b: {networks: [lan]}}", networks), first.assignments)
    assert addresses(second) == {"b.eth0": ["10.0.0.2/30"]}


def test_an_exhausted_subnet_is_an_input_error_for_each_nic_left_over() -> None:
    full = topology("{a: {networks: [back], replicas: 12}}")
    vms = {"a": replace(full.vms["a"], replicas=15)}
    with pytest.raises(InputError) as raised:
        expand(replace(full, vms=vms), {})
    assert [fault.problem for fault in raised.value.faults] == [
        "the subnet 10.0.1.0/28 has no address left for a-14.eth0",
        "the subnet 10.0.1.0/28 has no address left for a-15.eth0",
    ]


def test_contradictory_previous_assignments_are_resolved_in_file_order() -> None:
    same = Assignment(7, 0x525400000001, (ip_interface("10.0.1.9/28"),))
    inventory = expand(
        topology("{a: {networks: [back]}, b: {networks: [back]}}"), {"a.eth0": same, "b.eth0": same}
    )
    a, b = inventory.nics
    assert (a.port, a.mac, a.addresses) == (same.port, same.mac, same.addresses)
    assert (b.port, b.mac, b.addresses) == (1, derived_mac("lab", "b.eth0"), (ip_interface("10.0.1.2/28"),))


# ---- properties ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wish:
    """A VM of a generated topology."""

    networks: tuple[str, ...]
    replicas: int | None
    host: int | None
    """The last byte of a declared address in `front`, for a VM without replicas."""


WISHES = st.dictionaries(
    st.sampled_from([f"vm{i}" for i in range(8)]),
    st.builds(
        Wish,
        st.lists(st.sampled_from(["front", "back"]), min_size=1, max_size=2, unique=True).map(tuple),
        st.none() | st.integers(0, 3),
        st.none() | st.integers(2, 12),
    ),
    max_size=6,
)
ROOMY = NETWORKS.replace("/28", "/24")


def written(wishes: dict[str, Wish]) -> Topology:
    """The topology of some wishes; the first to declare an address gets it."""
    lines, taken = [], set()
    for name, wish in wishes.items():
        if wish.replicas is None and wish.host is not None and wish.host not in taken:
            taken.add(wish.host)
            nic = f"{{network: front, addresses: [10.0.0.{wish.host}/24]}}"
            lines.append(f"{name}: {{interfaces: {{eth0: {nic}}}}}")
        else:
            count = "" if wish.replicas is None else f", replicas: {wish.replicas}"
            lines.append(f"{name}: {{networks: [{', '.join(wish.networks)}]{count}}}")
    return topology("{" + ", ".join(lines) + "}", ROOMY)


@given(WISHES)
def test_no_two_nics_share_port_mac_or_address(wishes: dict[str, Wish]) -> None:
    nics = expand(written(wishes), {}).nics
    shared = Counter(
        key
        for nic in nics
        for key in [("port", nic.port), ("mac", nic.mac), *(("ip", each.ip) for each in nic.addresses)]
    )
    assert all(times == 1 for times in shared.values())


@given(WISHES)
def test_expanding_again_changes_nothing(wishes: dict[str, Wish]) -> None:
    once = expand(written(wishes), {})
    assert expand(written(wishes), once.assignments) == once


@given(WISHES, WISHES)
def test_adding_and_removing_vms_changes_no_nic_that_stays(
    before: dict[str, Wish], after: dict[str, Wish]
) -> None:
    after = {name: before.get(name, wish) for name, wish in after.items()}
    old = expand(written(before), {})
    new = expand(written(after), old.assignments)
    declared = {
        each.ip for spec in written(after).vms.values() for nic in spec.interfaces for each in nic.addresses
    }
    for nic in new.nics:
        had = old.assignments.get(nic.name)
        if had is None or any(each.ip in declared for each in (*had.addresses, *nic.addresses)):
            continue
        assert Assignment(nic.port, nic.mac, nic.addresses) == had


@given(WISHES, WISHES)
def test_no_nic_takes_over_what_another_had_before(before: dict[str, Wish], after: dict[str, Wish]) -> None:
    old = expand(written(before), {})
    new = expand(written(after), old.assignments)
    declared = {
        each.ip for spec in written(after).vms.values() for nic in spec.interfaces for each in nic.addresses
    }
    owners = {each.ip: name for name, had in old.assignments.items() for each in had.addresses}
    for nic in new.nics:
        for each in nic.addresses:
            assert each.ip in declared or owners.get(each.ip, nic.name) == nic.name


@given(WISHES)
def test_automatic_addresses_are_hosts_and_never_the_gateway_s(wishes: dict[str, Wish]) -> None:
    found = written(wishes)
    for nic in expand(found, {}).nics:
        for each, subnet in zip(nic.addresses, found.networks[nic.network].subnets, strict=False):
            assert each.network == subnet
            assert int(each.ip) > int(subnet.network_address) + 1
