"""What NetworkPolicies mean, read straight off the objects: slow, plain, shares nothing with the import.

Source: the API reference of NetworkPolicy v1, https://kubernetes.io/docs/concepts/services-networking/network-policies/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from typing import Any

from tests.unit.topology.kubernetes.cluster import Cluster, Labels, Question, address

Plain = Mapping[str, Any]


def allowed(cluster: Cluster, policies: Sequence[Plain], question: Question) -> bool:
    """Whether both the client's egress and the server's ingress let the connection begin."""
    return _side(cluster, policies, question, "Egress", question.source, question.target) and _side(
        cluster, policies, question, "Ingress", question.target, question.source
    )


def _side(
    cluster: Cluster, policies: Sequence[Plain], question: Question, kind: str, subject: str, peer: str
) -> bool:
    isolating = [policy for policy in policies if _isolates(cluster, policy, kind, subject)]
    rules = [rule for policy in isolating for rule in policy["spec"].get(kind.lower()) or []]
    homes = [policy["metadata"]["namespace"] for policy in isolating]
    if not isolating:
        return True
    assert len(set(homes)) == 1, "a policy selects pods of its own namespace"
    return any(_lets(cluster, rule, kind, homes[0], peer, question) for rule in rules)


def _isolates(cluster: Cluster, policy: Plain, kind: str, subject: str) -> bool:
    spec = policy["spec"]
    types = spec.get("policyTypes")
    if not types:
        types = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    is_home = policy["metadata"]["namespace"] == subject.partition("/")[0]
    return kind in types and is_home and _selects(spec.get("podSelector") or {}, cluster.labels(subject))


def _lets(cluster: Cluster, rule: Plain, kind: str, home: str, peer: str, question: Question) -> bool:
    peers, ports = rule.get("from" if kind == "Ingress" else "to"), rule.get("ports")
    if peers and not any(_is_peer(cluster, each, home, peer) for each in peers):
        return False
    return not ports or any(_is_port(cluster, port, question) for port in ports)


def _is_peer(cluster: Cluster, peer: Plain, home: str, pod: str) -> bool:
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        outside = any(address(pod) in ip_network(each) for each in block.get("except", []))
        return address(pod) in ip_network(block["cidr"]) and not outside
    namespace = pod.partition("/")[0]
    if "namespaceSelector" not in peer:
        is_near = namespace == home
    else:
        is_near = _selects(peer["namespaceSelector"], cluster.namespace_labels(namespace))
    return is_near and _selects(peer.get("podSelector", {}), cluster.labels(pod))


def _is_port(cluster: Cluster, port: Plain, question: Question) -> bool:
    protocol = port.get("protocol", "TCP")
    if protocol != question.protocol.upper():
        return False
    number = port.get("port")
    if number is None:
        return True
    if isinstance(number, str):
        return cluster.ports(question.target).get((number, protocol)) == question.port
    return bool(number <= question.port <= port.get("endPort", number))


def _selects(selector: Plain, labels: Labels) -> bool:
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for each in selector.get("matchExpressions") or []:
        key, listed = each["key"], each.get("values", [])
        holds = {
            "In": key in labels and labels[key] in listed,
            "NotIn": key not in labels or labels[key] not in listed,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not holds[each["operator"]]:
            return False
    return True
