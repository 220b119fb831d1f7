"""Topologies of several files: how they are found, joined and complained about."""

from __future__ import annotations

import pytest

from vnet.base.errors import InputError
from vnet.topology.include import beside, gather
from vnet.topology.load import load_text
from vnet.topology.model import Topology

BASE = """\
name: base
tiers: [admin, application]
defaults: {image: micro, memory: 128M, cpus: 2}
networks: {lan: {vlan: 10, subnets: 10.0.0.0/24}}
groups: {office: {cidrs: [192.0.2.0/24]}}
policies: [{name: ssh, applied_to: any, ingress: [{from: office, ports: [ssh]}]}]
verify: [never office -> web]
"""
LAB = """\
name: lab
include: base/net.yaml
defaults: {memory: 96M}
vms: {web: {networks: [lan], groups: [web]}}
policies: [{name: web, applied_to: web, ingress: [{from: any, ports: [http]}]}]
"""


def load(files: dict[str, str], first: str = "lab.yaml") -> Topology:
    others = gather(first, files[first], files.get)
    return load_text(files[first], first, {}, others)


def faults(files: dict[str, str]) -> list[str]:
    with pytest.raises(InputError) as raised:
        load(files)
    return [f"{fault.where}: {fault.problem}" for fault in raised.value.faults]


def test_a_file_says_what_it_includes_as_if_it_stood_there() -> None:
    topology = load({"lab.yaml": LAB, "base/net.yaml": BASE})
    assert topology.name == "lab", "of single values the last one counts"
    assert topology.tiers == ("admin", "application")
    assert (topology.vms["web"].cpus, topology.vms["web"].memory_bytes) == (2, 96 << 20)
    assert [policy.name for policy in topology.policies] == ["ssh", "web"]
    assert [claim.text for claim in topology.claims] == ["never office -> web"]


def test_every_value_keeps_the_file_and_line_it_came_from() -> None:
    topology = load({"lab.yaml": LAB, "base/net.yaml": BASE})
    assert [str(policy.at) for policy in topology.policies] == ["base/net.yaml:6", "lab.yaml:5"]
    assert str(topology.networks["lan"].at) == "base/net.yaml:4"


def test_an_included_file_needs_no_name_and_the_whole_needs_one() -> None:
    nameless = BASE.replace("name: base\n", "")
    assert load({"lab.yaml": LAB, "base/net.yaml": nameless}).name == "lab"
    found = faults({"lab.yaml": LAB.replace("name: lab\n", ""), "base/net.yaml": nameless})
    assert found == ['lab.yaml:1: a topology needs "name": the fabric\'s name, unique on the host']


def test_what_is_declared_twice_is_a_fault_with_both_places() -> None:
    twice = "networks: {lan: {vlan: 11, subnets: 10.0.1.0/24}}\n"
    assert faults({"lab.yaml": LAB + twice, "base/net.yaml": BASE}) == [
        'lab.yaml:6: "lan" is declared at base/net.yaml:4 already'
    ]


def test_faults_of_all_files_are_told_at_once_each_with_its_own_line() -> None:
    wrong = BASE.replace("vlan: 10", "vlan: 0")
    with pytest.raises(InputError) as raised:
        load({"lab.yaml": LAB.replace("http", "htpp"), "base/net.yaml": wrong})
    told = str(raised.value)
    assert "networks: {lan: {vlan: 0" in told
    assert "ingress: [{from: any, ports: [htpp]}]" in told


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"lab.yaml": LAB}, 'lab.yaml:2: cannot read the file "base/net.yaml"'),
        (
            {"lab.yaml": LAB, "base/net.yaml": BASE + "include: ../lab.yaml\n"},
            'base/net.yaml:8: "lab.yaml" includes itself: lab.yaml includes base/net.yaml includes lab.yaml',
        ),
        ({"lab.yaml": LAB, "base/net.yaml": ""}, "base/net.yaml:1: the file is empty"),
    ],
    ids=["not there", "circle", "empty"],
)
def test_what_cannot_be_included_is_told_where(files: dict[str, str], problem: str) -> None:
    assert problem in faults(files)


def test_a_file_included_from_two_places_counts_once() -> None:
    files = {
        "lab.yaml": LAB.replace("base/net.yaml", "[one.yaml, two.yaml]"),
        "one.yaml": "include: base/net.yaml",
        "two.yaml": "include: [base/net.yaml]",
        "base/net.yaml": BASE,
    }
    assert len(load(files).policies) == 2


def test_paths_are_relative_to_the_file_that_names_them() -> None:
    assert beside("a/b/lab.yaml", "../net.yaml") == "a/net.yaml"
    assert beside("lab.yaml", "/etc/vnet/net.yaml") == "/etc/vnet/net.yaml"
    assert beside("(stdin)", "net.yaml") == "net.yaml"


def test_more_files_than_may_include_one_another_are_refused() -> None:
    files = {f"{number}.yaml": f"include: {number + 1}.yaml" for number in range(12)}
    files["lab.yaml"] = "name: lab\ninclude: 0.yaml"
    assert any("more than 8 files" in found for found in faults(files))


def test_files_that_cloud_init_names_are_gathered_wherever_it_stands_and_what_is_no_file_is_not():
    text = """
defaults: {cloud_init: {ssh_keys: [~/.ssh/id.pub, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 ada"]}}
templates: {t: {cloud_init: {user_data: told/web.yaml}}}
vms:
  a: {cloud_init: {user_data: "#cloud-config\\npackages: []", ssh_keys: keys.pub}}
  b: {cloud_init: true}
"""
    asked: list[str] = []
    found = gather("lab/x.vnet.yaml", text, lambda path: asked.append(path) or f"text of {path}")
    assert asked == ["~/.ssh/id.pub", "lab/told/web.yaml", "lab/keys.pub"]
    assert found == {path: f"text of {path}" for path in asked}
