"""What the import makes of manifests, and what it refuses, with the line and what to do."""

from __future__ import annotations

import json
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.topology.kubernetes.asked import by_import
from tests.unit.topology.kubernetes.cases import ALL, for_all, policy, to_a
from tests.unit.topology.kubernetes.cluster import QUESTIONS, Cluster
from vnet.base.errors import InputError
from vnet.policy.compile import compile
from vnet.policy.reach import reach
from vnet.topology.inventory import expand
from vnet.topology.kubernetes.convert import imported
from vnet.topology.load import load_text

ROOT = Path(__file__).resolve().parents[4]
POD = "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {}, namespace: x, labels: {{app: {}}}}}\n"


def made(*manifests: str) -> dict[str, Any]:
    return imported({f"{number}.yaml": text for number, text in enumerate(manifests, 1)}, "lab")


def refused(*manifests: str) -> str:
    with pytest.raises(InputError) as caught:
        made(*manifests)
    return str(caught.value)


def named(document: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (each for each in document["policies"] if each["name"] == name)
    return dict(found)


# ---- what becomes of what --------------------------------------------------------------------


def test_the_example_of_the_manual_is_what_the_import_makes() -> None:
    page = (ROOT / "docs/manual/coming-from.md").read_text(encoding="utf-8")
    manifest, topology = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    document = imported({"db.yaml": manifest}, "kubernetes")
    assert document == yaml.safe_load(topology)
    load_text(topology, "example", {})


def test_policies_alone_are_part_of_a_topology_whose_vms_carry_the_labels() -> None:
    part = yaml.safe_dump(made(to_a("from: [{podSelector: {matchLabels: {pod: b}}}]")))
    whole = (
        "include: part.yaml\nname: whole\nnetworks: {lan: {vlan: 5, subnets: 10.0.0.0/24}}\n"
        'vms: {a: {networks: [lan], labels: {pod: a, "namespace:kubernetes.io/metadata.name": x}}}\n'
    )
    topology = load_text(whole, "whole.yaml", {}, {"part.yaml": part})
    assert [each.name for each in topology.policies] == ["x-to-a", "isolated", "open"]


def test_a_list_of_kubectl_in_json_is_read_too() -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "x"}}
    items = [namespace, {**pod, "status": {"podIP": "10.244.0.9"}}]
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    (vm,) = made(listed)["vms"].values()
    assert vm["interfaces"]["eth0"]["addresses"] == ["10.244.0.9/16"]


def test_kinds_that_say_nothing_of_policies_are_passed_over() -> None:
    service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 80}]}\n"
    assert list(made(service + POD.format("web", "x"))["vms"]) == ["x-web"]


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ("apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: a}", "cannot be imported"),
        ("apiVersion: v1\nkind: List\nitems: {a: {kind: NetworkPolicy}}", "no list"),
    ],
)
def test_what_only_looks_like_something_known_is_refused(manifest: str, words: str) -> None:
    assert words in refused(manifest)


def test_pods_that_are_not_on_the_network_are_left_out_and_listed() -> None:
    ended = POD.format("job", "x") + "status: {phase: Succeeded, podIP: 10.9.9.9}\n"
    proxy = POD.format("proxy", "x") + "spec: {hostNetwork: true}\n"
    document = made(ended + proxy + POD.format("web", "x"))
    assert list(document["vms"]) == ["x-web"]
    assert document["x-left-out"] == {
        "x/job": "1.yaml:4: it has ended",
        "x/proxy": "1.yaml:9: it has its node's own network",
    }


def test_without_policy_types_ingress_is_meant_and_egress_if_it_has_rules() -> None:
    document = made(
        policy("x", "p", ALL),
        policy("x", "q", ALL + ", egress: [{}]"),
        policy("x", "r", ALL + ", egress: []"),
    )
    assert [
        sorted({"ingress", "egress"} & named(document, name).keys()) for name in ("x-p", "x-q", "x-r")
    ] == [["ingress"], ["egress", "ingress"], ["ingress"]]


def test_a_direction_that_the_types_leave_out_is_not_spoken_of() -> None:
    only_egress = named(made(policy("x", "p", ALL + ", policyTypes: [Egress], ingress: [{}]")), "x-p")
    assert "ingress" not in only_egress and only_egress["egress"] == []


def test_keys_with_nothing_behind_them_are_as_if_not_given() -> None:
    head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, labels: }\n"
    spec = "spec:\n  podSelector:\n  policyTypes:\n  ingress:\n  - from:\n    ports:\n"
    assert named(made(head + spec), "default-p")["ingress"] == [{"from": ["any"]}]


def test_exceptions_are_cut_out_of_the_block() -> None:
    four = "{ipBlock: {cidr: 10.1.0.0/30, except: [10.1.0.1/32]}}"
    nobody = '{ipBlock: {cidr: "fd00::/127", except: ["fd00::/128", "fd00::1/128"]}}'
    document = made(to_a(f"from: [{four}, {nobody}]"))
    assert named(document, "x-to-a")["ingress"] == [{"from": ["10.1.0.0/32", "10.1.0.2/31"]}]


def test_a_rule_of_which_nobody_is_left_opens_nothing() -> None:
    nobody = "from: [{ipBlock: {cidr: 10.1.0.0/31, except: [10.1.0.0/32, 10.1.0.1/32]}}]"
    assert named(made(to_a(nobody)), "x-to-a")["ingress"] == []


def test_a_port_name_of_two_numbers_makes_a_policy_for_each() -> None:
    cluster = Cluster(http={"x/a": 80, "x/b": 81})
    document = made(cluster.manifest(), for_all("Ingress", "ports: [{port: http}, {port: 9, protocol: UDP}]"))
    assert named(document, "x-only-80")["ingress"] == [{"from": ["any"], "ports": ["9/udp"]}]
    assert named(document, "x-only-80-http-80")["ingress"] == [{"from": ["any"], "ports": ["80/tcp"]}]
    group = named(document, "x-only-80-http-81")["applied_to"]
    (label,) = document["groups"][group]["labels"]
    assert [name for name, vm in document["vms"].items() if label in vm["labels"]] == ["x-b"]


def test_names_that_are_long_strange_or_alike_are_told_apart() -> None:
    document = made(
        POD.format("b.c", "x"),
        POD.format("b-c", "x"),
        POD.format("l" * 200, "x"),
        policy("x-y", "z", ALL),
        policy("x", "y-z", ALL),
    )
    assert list(document["vms"])[:2] == ["x-b-c", "x-b-c-2"] and len(list(document["vms"])[2]) == 40
    assert [each["name"] for each in document["policies"]][:2] == ["x-y-z", "x-y-z-2"]


def test_groups_do_not_take_words_with_a_meaning_of_their_own() -> None:
    selectors = [
        "{podSelector: {matchLabels: {}}, namespaceSelector: {matchLabels: {any: x}}}",
        '{namespaceSelector: {}, podSelector: {matchLabels: {pods: ""}}}',
    ]
    document = made(to_a(f"from: [{', '.join(selectors)}]"))
    assert (
        "pods-2" in document["groups"]
        and not {"any", "host", "vm", "internet", "network"} & document["groups"].keys()
    )


def test_demands_that_contradict_each_other_are_a_group_of_nobody() -> None:
    selector = "{matchLabels: {pod: a}, matchExpressions: [{key: pod, operator: In, values: [b]}]}"
    document = made(to_a(f"from: [{{podSelector: {selector}}}]"))
    ((group,),) = (rule["from"] for rule in named(document, "x-to-a")["ingress"])
    assert list(document["groups"][group]["labels"]) == [f"selector:{group}"]


def test_of_many_combinations_the_pods_get_a_label() -> None:
    values = ", ".join(f"v{number}" for number in range(20))
    rule = f"from: [{{podSelector: {{matchExpressions: [{{key: app, operator: In, values: [{values}]}}]}}}}]"
    document = made(POD.format("one", "v7"), POD.format("two", "w"), to_a(rule))
    ((group,),) = (each["from"] for each in named(document, "x-to-a")["ingress"])
    assert [name for name, vm in document["vms"].items() if f"selector:{group}" in vm["labels"]] == ["x-one"]


@pytest.mark.parametrize(
    ("expression", "sources"),
    [
        ("{key: tier, operator: In, values: [front, mid]}", {"x/a", "x/c"}),
        ("{key: tier, operator: NotIn, values: [front]}", {"x/b", "x/c"}),
        ("{key: tier, operator: Exists}", {"x/a", "x/c"}),
        ("{key: tier, operator: DoesNotExist}", {"x/b"}),
        ("{key: tier, operator: Exists}, {key: pod, operator: NotIn, values: [a]}", {"x/c"}),
    ],
)
def test_each_operator_selects_whom_it_says(expression: str, sources: set[str]) -> None:
    cluster = Cluster({"x/a": {"tier": "front"}, "x/c": {"tier": "mid"}})
    rule = f"from: [{{podSelector: {{matchExpressions: [{expression}]}}}}]"
    asked = by_import(cluster.manifest(), for_all("Ingress", rule))
    reached = {each.source for each in QUESTIONS if each.target.startswith("x/") and asked.means(each)}
    assert reached == sources


@pytest.mark.parametrize(
    ("port", "services"),
    [
        ("{}", {"80/tcp", "81/tcp"}),
        ("{protocol: UDP}", {"80/udp", "81/udp"}),
        ("{protocol: SCTP}", {"80/sctp", "81/sctp"}),
        ("{port: 80, endPort: 80}", {"80/tcp"}),
        ("{port: 80, endPort: 81, protocol: SCTP}", {"80/sctp", "81/sctp"}),
        ("{port: 81, endPort: 90, protocol: UDP}", {"81/udp"}),
        ("{port: serve-81-sctp, protocol: SCTP}", {"81/sctp"}),
        ("{port: serve-81-sctp}", set()),
        ("{port: nothing}", set()),
    ],
)
@pytest.mark.parametrize("kind", ["Ingress", "Egress"])
def test_each_form_of_ports_opens_what_it_says(kind: str, port: str, services: set[str]) -> None:
    asked = by_import(Cluster().manifest(), for_all(kind, f"ports: [{port}]"))
    pair = [each for each in QUESTIONS if (each.source, each.target) == ("x/a", "x/b")]
    assert {f"{each.port}/{each.protocol}" for each in pair if asked.tables(each)} == services


def test_ports_of_init_containers_count_if_they_go_on_running() -> None:
    def containers(again: str) -> str:
        ports = f"ports: [{{name: http, containerPort: 8}}]{again}"
        return POD.format("a", "x") + f"spec: {{initContainers: [{{{ports}}}]}}\n"

    web = policy("x", "p", ALL + ", ingress: [{ports: [{port: http}]}]")
    always, once = made(containers(", restartPolicy: Always"), web), made(containers(""), web)
    assert named(always, "x-p")["ingress"] == [{"from": ["any"], "ports": ["8/tcp"]}]
    assert named(once, "x-p")["ingress"] == []


def test_pods_of_two_families_keep_both_addresses() -> None:
    pods = "".join(
        POD.format(name, "x") + f"status: {{podIPs: [{{ip: 10.1.0.{i}}}, {{ip: 'fd00::{i}'}}]}}\n"
        for i, name in enumerate("ab", 5)
    )
    rule = "from: [{ipBlock: {cidr: 10.1.0.6/32}}, {ipBlock: {cidr: 'fd00::/64', except: ['fd00::6/128']}}]"
    subnets = (ip_network("10.1.0.0/24"), ip_network("fd00::/64"))
    document = imported(
        {"a.yaml": pods, "b.yaml": policy("x", "p", f"{ALL}, ingress: [{{{rule}}}]")}, "lab", subnets
    )
    topology = load_text(yaml.safe_dump(document), "lab", {})
    inventory = expand(topology, {})
    told = {
        (pair.source, pair.target): pair.ports
        for pair in reach(topology, inventory, compile(topology, inventory))
    }
    assert told == {("x-a", "x-b"): "IPv4: -; IPv6: any", ("x-b", "x-a"): "IPv4: any; IPv6: -"}


# ---- what is refused -------------------------------------------------------------------------

PEERLESS = "podSelector: {}, namespaceSelector: {}, ipBlock: {cidr: 10.0.0.0/8}"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("podSelector: {app: web}", 'podSelector.app: a label selector has no key "app"'),
        ("podSelector: {matchLabel: {app: web}}", 'did you mean "matchLabels"?'),
        ("podSelector: {matchLabels: {app: 1}}", "quote it to make it text"),
        ("podSelector: {matchLabels: {app: }}", "found nothing"),
        ("podSelector: {matchLabels: {app: a b}}", "expected a label's value"),
        ("podSelector: {matchLabels: {-app: a}}", "expected the name of a label"),
        ("podSelector: {matchExpressions: [{key: a, operator: Is}]}", "expected In, NotIn, Exists or"),
        ("podSelector: {matchExpressions: [{key: a, operator: In}]}", 'In needs "values"'),
        ("podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}", 'takes no "values"'),
        ("policyTypes: [ingress]", 'did you mean "Ingress"?'),
        ("ingres: []", 'did you mean "ingress"?'),
        ("ingress: {}", "expected a list of rules, found a map"),
        ("ingress: [null]", "expected an ingress rule, found nothing"),
        ("ingress: [{to: []}]", '"to" belongs into an egress rule'),
        ("ingress: [{from: [{}]}]", "a peer that names nobody"),
        ("ingress: [{from: [{podSelector: }]}]", "write podSelector: {} for all pods of the namespace"),
        (f"ingress: [{{from: [{{{PEERLESS}}}]}}]", "an ipBlock stands alone"),
        ("ingress: [{from: [{ipBlock: {cidr: 10.0.0.0}}]}]", "add the length of the prefix"),
        ("ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}]", "expected a CIDR"),
        ("ingress: [{from: [{ipBlock: {except: []}}]}]", 'an ipBlock needs "cidr"'),
        ("ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/8]}}]}]", "expected a part of"),
        ("ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}]", "expected a part of"),
        ("ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: ['fd00::/9']}}]}]", "expected a part of"),
        ("ingress: [{ports: [{port: 0}]}]", "expected a port from 1 to 65535"),
        ("ingress: [{ports: [{port: 080}]}]", "expected a port from 1 to 65535"),
        ("ingress: [{ports: [{port: '80'}]}]", "remove the quotes"),
        ("ingress: [{ports: [{port: HTTP}]}]", "or the name of one"),
        ("ingress: [{ports: [{port: 80, protocol: tcp}]}]", "expected TCP, UDP or SCTP"),
        ("ingress: [{ports: [{port: 80, protocol: ICMP}]}]", "expected TCP, UDP or SCTP"),
        ("ingress: [{ports: [{endPort: 80}]}]", '"endPort" needs "port"'),
        ("ingress: [{ports: [{port: http}]}]", "depends on the pods, and none are declared"),
        ("podSelector: {matchExpressions: [{key: a, operator: Exists}]}", "none are declared"),
        (
            "ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: a, operator: Exists}]}}]}]",
            "add them: kubectl get",
        ),
    ],
)
def test_what_a_policy_cannot_say_is_refused_with_its_line(spec: str, words: str) -> None:
    text = policy("x", "p", spec)
    said = refused(text)
    assert words in said
    assert said.startswith("1.yaml:5:"), "the line of the spec"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("apiVersion: apps/v1\nkind: Deployment", "give the pods that it makes instead: kubectl get"),
        ("apiVersion: extensions/v1beta1\nkind: NetworkPolicy", "its apiVersion is networking.k8s.io/v1"),
        ("apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy", "cannot be imported"),
        ("apiVersion: policy.networking.k8s.io/v1alpha1\nkind: AdminNetworkPolicy", "cannot be imported"),
        ("kind: Pod", 'a manifest needs "apiVersion"'),
    ],
)
def test_kinds_that_are_not_understood_are_refused(kind: str, words: str) -> None:
    said = refused("---\n" + kind + "\nmetadata: {name: a}\n")
    assert said.startswith("1.yaml:") and words in said


def test_faults_of_all_files_are_told_at_once() -> None:
    said = refused(policy("x", "p", "ingress: {}"), policy("x", "q", "egress: {}"), "a: [")
    assert [line.split(":")[0] for line in said.splitlines() if ".yaml:" in line] == [
        "1.yaml",
        "2.yaml",
        "3.yaml",
    ]


def test_what_is_declared_twice_is_refused_with_both_places() -> None:
    said = refused(policy("x", "p", ALL), policy("x", "p", ALL))
    assert '2.yaml:4:18: metadata.name: the NetworkPolicy "x/p" is declared twice' in said
    assert "the first one is at 1.yaml:4" in said


def test_the_same_names_in_other_namespaces_and_kinds_are_others() -> None:
    made(policy("x", "p", ALL), policy("y", "p", ALL), POD.format("p", "x"))


def test_a_selector_of_namespaces_whose_labels_are_not_known_is_refused() -> None:
    rule = "from: [{namespaceSelector: {matchLabels: {team: red}}}]"
    said = refused(POD.format("a", "x"), to_a(rule))
    assert said.startswith("2.yaml:5:") and 'the labels of the namespace "x" are not known' in said


def test_the_name_of_a_namespace_is_known_without_it() -> None:
    made(
        POD.format("a", "x"),
        to_a("from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: x}}}]"),
    )


def test_a_named_port_of_addresses_is_refused() -> None:
    rule = "to: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: serve-80-tcp}]"
    assert "write the number" in refused(Cluster().manifest(), for_all("Egress", rule))


def test_a_block_of_some_pods_needs_their_addresses() -> None:
    block = "from: [{{ipBlock: {{cidr: {}}}}}]"
    said = refused(POD.format("a", "x"), to_a(block.format("10.244.1.0/24")))
    assert said.startswith("2.yaml:5:") and "with status.podIP, or select them by labels" in said
    made(POD.format("a", "x"), to_a(block.format("10.0.0.0/8")))


def test_addresses_outside_of_the_subnets_or_given_twice_are_refused() -> None:
    outside = refused(POD.format("a", "x") + "status: {podIPs: [{ip: 10.9.0.1}]}\n")
    assert "1.yaml:4:" in outside and "give theirs: --subnet CIDR" in outside
    same = (POD.format(name, "x") + "status: {podIP: 10.244.0.9}\n" for name in "ab")
    assert "has its address 10.244.0.9 already" in refused(*same)


@pytest.mark.parametrize(
    "text", ["", "# nothing\n---\n", "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n"]
)
def test_manifests_without_anything_to_import_are_refused(text: str) -> None:
    assert "there is no NetworkPolicy and no Pod" in refused(text)


def test_a_port_name_of_two_numbers_in_one_pod_is_refused() -> None:
    ports = ", ".join(f"{{ports: [{{name: http, containerPort: {number}}}]}}" for number in (80, 81))
    said = refused(POD.format("a", "x") + f"spec: {{containers: [{ports}]}}\n")
    assert "is 80 in another container" in said


def test_dollar_signs_mean_nothing_in_manifests() -> None:
    ports = "spec: {containers: [{ports: [{name: '$X', containerPort: 1}]}]}\n"
    made(POD.format("a", "x") + ports)
