"""From text to a Topology: merging, variables, positions, speed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnet.base.errors import InputError
from vnet.base.source import Location
from vnet.topology.load import load_file, load_text
from vnet.topology.model import Action, Direction, Peer, PeerKind, Topology
from vnet.topology.reading import variables_in

TOPOLOGIES = Path(__file__).parents[3] / "topologies"
HEAD = "name: lab\nnetworks: {lan: {vlan: 1, subnets: 10.0.0.0/24}, wan: {vlan: 2, subnets: 10.0.1.0/24}}\n"


def load(text: str, env: Mapping[str, str] | None = None) -> Topology:
    return load_text(text, "lab.vnet.yaml", env or {})


def faults(text: str, env: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(InputError) as raised:
        load(text, env)
    return [f"{fault.path}: {fault.problem}" for fault in raised.value.faults]


@pytest.mark.parametrize("path", sorted(TOPOLOGIES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_loads(path: Path) -> None:
    assert load_file(path, {}).name


def test_three_tier_is_read_as_it_is_meant() -> None:
    topology = load_file(TOPOLOGIES / "three-tier.vnet.yaml", {})
    db = topology.vms["db"]
    assert topology.networks["front"].subnets == (ip_network("10.10.10.0/24"), ip_network("fd00:10::/64"))
    assert (topology.vms["web"].replicas, topology.vms["app"].replicas) == (2, None)
    assert db.interfaces[0].mac == 0x525400123456
    assert db.interfaces[0].addresses == (ip_interface("10.10.20.11/24"),)
    assert db.memory_bytes == 96 << 20
    policy = topology.policies[1]
    assert policy.egress == ()
    assert policy.ingress is not None
    assert [rule.action for rule in policy.ingress] == [Action.ALLOW, Action.DENY]
    assert topology.policies[0].egress is None
    assert len(topology.claims) == 6


def test_every_value_keeps_the_line_it_came_from() -> None:
    text = HEAD + (
        "vms:\n"
        "  web:\n"
        "    groups: [web]\n"
        "    networks:\n"
        "      - lan\n"
        "policies:\n"
        "  - name: p\n"
        "    applied_to: web\n"
        "    ingress:\n"
        "      - from: any\n"
        "        ports: [ssh]\n"
        "verify:\n"
        "  - deny any -> web\n"
    )
    topology = load(text)
    file = "lab.vnet.yaml"
    assert topology.networks["wan"].at == Location(file, 2, 50)
    assert topology.vms["web"].at == Location(file, 4, 3)
    assert topology.vms["web"].interfaces[0].at == Location(file, 7, 9)
    assert topology.policies[0].at == Location(file, 9, 5)
    assert topology.policies[0].applied_to == (Peer(PeerKind.GROUP, "web", Location(file, 10, 17)),)
    (rule,) = topology.policies[0].ingress or ()
    assert (rule.at, rule.direction, rule.name) == (Location(file, 12, 9), Direction.INGRESS, "ingress[0]")
    assert topology.claims[0].at == Location(file, 15, 5)


def test_vm_wins_over_template_and_template_over_defaults() -> None:
    topology = load(
        HEAD + "defaults: {cpus: 1, memory: 128M, groups: [all], labels: {a: d, b: d, c: d}}\n"
        "templates: {big: {cpus: 2, memory: 256M, labels: {b: t, c: t}}}\n"
        "vms:\n"
        "  web: {template: big, cpus: 4, networks: [lan], groups: [web], labels: {c: v}}\n"
        "  db: {networks: [lan]}\n"
    )
    web, db = topology.vms["web"], topology.vms["db"]
    assert (web.cpus, web.memory_bytes) == (4, 256 << 20)
    assert web.groups == ("web",)
    assert web.labels == {"a": "d", "b": "t", "c": "v"}
    assert (db.cpus, db.memory_bytes, db.groups) == (1, 128 << 20, ("all",))


def test_interfaces_merge_field_by_field() -> None:
    topology = load(
        HEAD + "templates: {two: {interfaces: {eth0: {network: lan}, eth1: {network: wan}}}}\n"
        "vms: {web: {template: two, interfaces: {eth0: {addresses: [10.0.0.9/24]}, eth2: {network: lan}}}}\n"
    )
    found = [(each.name, each.network, len(each.addresses)) for each in topology.vms["web"].interfaces]
    assert found == [("eth0", "lan", 1), ("eth1", "wan", 0), ("eth2", "lan", 0)]


def test_networks_of_a_vm_replace_interfaces_of_its_template() -> None:
    topology = load(
        HEAD + "templates: {one: {interfaces: {eth0: {network: lan}}}}\n"
        "vms: {web: {template: one, networks: [wan]}}\n"
    )
    assert [each.network for each in topology.vms["web"].interfaces] == ["wan"]


def test_a_template_may_be_a_default() -> None:
    text = HEAD + "defaults: {template: t}\ntemplates: {t: {networks: [lan]}, u: {cpus: 3}}\n"
    topology = load(text + "vms: {a: , b: {template: u, networks: [wan]}}\n")
    assert topology.vms["a"].interfaces[0].network == "lan"
    assert topology.vms["b"].cpus == 3


def test_what_nobody_sets_has_a_default() -> None:
    vm = load(HEAD + "vms: {a: {networks: []}}\n").vms["a"]
    assert (vm.image, vm.cpus, vm.memory_bytes, vm.groups, vm.interfaces) == ("micro", 1, 96 << 20, (), ())


def test_a_fault_in_the_defaults_is_reported_once() -> None:
    vms = "".join(f"  v{i}: {{networks: [nolan]}}\n" for i in range(3))
    found = faults(f"{HEAD}defaults: {{memory: 1, networks: [nolan]}}\nvms:\n  a: {{}}\n  b: {{}}\n{vms}")
    assert len(found) == 5


def test_services_are_resolved_and_listed_once() -> None:
    topology = load(
        HEAD + "services: {app: [8080/tcp, 22/tcp]}\nvms: {a: {networks: [lan], groups: [g]}}\npolicies:\n"
        "  - name: p\n    applied_to: g\n"
        "    ingress: [{from: any, ports: [ssh, app, dns]}, {from: any, ports: icmp}]\n"
    )
    first, second = topology.policies[0].ingress or ()
    assert [str(each) for each in first.services] == ["22/tcp", "8080/tcp", "53/udp", "53/tcp"]
    assert [each.protocol for each in second.services] == [1]


def test_groups_are_declared_by_cidr_or_label_or_listed() -> None:
    topology = load(
        HEAD + "groups: {office: {cidrs: [192.0.2.0/24]}, prod: {labels: {env: prod}}}\n"
        "vms: {a: {networks: [lan], groups: [listed], labels: {env: prod, rank: 1}}}\n"
        "policies: [{name: p, applied_to: [prod, listed], ingress: [{from: office}]}]\n"
    )
    assert topology.groups == {"office": (ip_network("192.0.2.0/24"),)}
    assert topology.group_labels == {"prod": {"env": "prod"}}
    assert topology.vms["a"].labels == {"env": "prod", "rank": "1"}


def test_a_subnet_may_be_written_out() -> None:
    topology = load("name: lab\nnetworks: {lan: {vlan: 1, subnets: [{cidr: 10.0.0.0/24}]}}\n")
    assert topology.networks["lan"].subnets == (ip_network("10.0.0.0/24"),)


def test_extension_keys_are_ignored_wherever_keys_are_known() -> None:
    topology = load(HEAD + "x-note: {$what: ever}\nvms: {a: {networks: [lan], x-owner: me}}\n")
    assert list(topology.vms) == ["a"]


def test_a_vm_may_be_called_x_ray() -> None:
    assert "x-ray" in load(HEAD + "vms: {x-ray: {networks: [lan]}}\n").vms


def test_anchors_in_extension_keys_serve_as_templates() -> None:
    topology = load(
        HEAD + "x-small: &small {memory: 128M, cpus: 2}\nvms: {a: {<<: *small, networks: [lan]}}\n"
    )
    assert (topology.vms["a"].memory_bytes, topology.vms["a"].cpus) == (128 << 20, 2)


def test_variables_are_substituted_in_values_and_read_anew() -> None:
    text = (
        "name: ${USER:-lab}\ndescription: a $$5 lab of ${USER:-nobody} ${GREETING}\n"
        'networks: {lan: {vlan: "${VLAN:-10}", subnets: "${NET:?no net}"}}\n'
        'vms: {"${USER}": {networks: [lan]}}\n'
    )
    assert faults(text, {"NET": "10.0.0.0/24", "GREETING": ""})[0].startswith("vms.${USER}: expected a VM")
    topology = load(text.replace('"${USER}"', "a"), {"NET": "10.0.0.0/24", "GREETING": "hi", "USER": ""})
    assert (topology.name, topology.description) == ("lab", "a $5 lab of nobody hi")
    assert topology.networks["lan"].vlan == 10


def test_a_variable_cannot_bring_in_yaml() -> None:
    text = HEAD + "description: ${EVIL}\n"
    assert load(text, {"EVIL": "x\nvms: {a: {}}"}).description == "x\nvms: {a: {}}"


def test_variables_that_a_file_mentions_are_known() -> None:
    assert variables_in("a: ${A}\nb: ${B:-x}${C:?y} $$ $D") == {"A", "B", "C"}


def test_all_faults_are_reported_at_once_in_file_order() -> None:
    with pytest.raises(InputError) as raised:
        load(
            "name: Lab\nnetworks:\n  lan: {vlan: 0}\nvms:\n  a: {networks: [wan]}\n  a: {}\nend-points: {}\n"
        )
    assert [fault.where.line for fault in raised.value.faults] == [1, 3, 3, 5, 6, 7]


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the topology .*No such file"):
        load_file(tmp_path / "none.yaml", {})


def test_a_file_that_is_not_utf8_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "latin.vnet.yaml"
    path.write_bytes("name: lab\ndescription: café\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin.vnet.yaml:2:17: yaml: byte 0xe9 is not UTF-8"):
        load_file(path, {})


def many_vms(count: int) -> str:
    lines = ["name: big", "networks:"]
    lines += [f"  n{i}: {{vlan: {i + 1}, subnets: [10.{i}.0.0/16, 'fd00:{i}::/64']}}" for i in range(10)]
    lines += ["vms:"]
    for i in range(count):
        lines += [
            f"  vm{i}:",
            "    interfaces:",
            f"      eth0: {{network: n{i % 10}}}",
            f"    groups: [g{i % 5}]",
        ]
        lines += ["    memory: 96M", f"    labels: {{number: {i}, rack: r{i % 7}}}"]
    return "\n".join(lines)


def test_a_thousand_vms_load_in_less_than_a_second() -> None:
    text = many_vms(1000)
    started = time.process_time()
    topology = load(text)
    assert time.process_time() - started < 1.0
    assert len(topology.vms) == 1000


@given(st.lists(st.sampled_from(HEAD.splitlines() + many_vms(3).splitlines()), max_size=12))
def test_shuffled_lines_are_read_or_refused_with_faults(lines: list[str]) -> None:
    try:
        load("\n".join(lines))
    except InputError as error:
        refused = error
    else:
        return
    assert refused.faults


def test_a_selector_may_name_one_replica() -> None:
    topology = load(
        HEAD + "vms: {a: {networks: [lan], replicas: 2}}\nverify: ['deny vm:a-1 -> vm:a-2:ssh']\n"
    )
    assert [str(topology.claims[0].source), str(topology.claims[0].target)] == ["vm:a-1", "vm:a-2"]
