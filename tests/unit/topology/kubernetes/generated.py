"""Generated clusters and NetworkPolicies, in every form that the API takes."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.unit.topology.kubernetes.cluster import NAMESPACES, PROTOCOLS, Cluster, address, pods

Plain = dict[str, Any]
_PROTOCOLS = [protocol.upper() for protocol in PROTOCOLS]
_POD_LABELS = {"pod": ["a", "b", "c", "nobody"], "tier": ["front", "back"]}
_NAMESPACE_LABELS = {"kubernetes.io/metadata.name": [*NAMESPACES, "nowhere"], "team": ["red", "blue"]}


def clusters() -> st.SearchStrategy[Cluster]:
    """Some pods and namespaces get a label more; the port `http` is 80 here, 81 there, or absent."""
    tiers = st.dictionaries(st.sampled_from(pods()), _one("tier", _POD_LABELS))
    teams = st.dictionaries(st.sampled_from(NAMESPACES), _one("team", _NAMESPACE_LABELS))
    http = st.dictionaries(st.sampled_from(pods()), st.sampled_from([80, 81]))
    return st.builds(lambda one, other, ports: Cluster({**one, **other}, ports), tiers, teams, http)


def _one(key: str, known: dict[str, list[str]]) -> st.SearchStrategy[dict[str, str]]:
    return st.sampled_from(known[key]).map(lambda value: {key: value})


def _expressions(known: dict[str, list[str]]) -> st.SearchStrategy[Plain]:
    listed = st.sampled_from(sorted(known)).flatmap(
        lambda key: st.fixed_dictionaries(
            {
                "key": st.just(key),
                "operator": st.sampled_from(["In", "NotIn"]),
                "values": st.lists(st.sampled_from(known[key]), min_size=1, max_size=3, unique=True),
            }
        )
    )
    present = st.fixed_dictionaries(
        {"key": st.sampled_from(sorted(known)), "operator": st.sampled_from(["Exists", "DoesNotExist"])}
    )
    return st.one_of(listed, present)


def _selectors(known: dict[str, list[str]]) -> st.SearchStrategy[Plain]:
    labels = st.sampled_from(sorted(known)).flatmap(lambda key: _one(key, known))
    return st.fixed_dictionaries(
        {}, optional={"matchLabels": labels, "matchExpressions": st.lists(_expressions(known), max_size=2)}
    )


def _blocks() -> st.SearchStrategy[Plain]:
    some = st.sampled_from([f"{address(pod)}/32" for pod in pods()])
    large = st.sampled_from(["0.0.0.0/0", "10.244.1.0/24", "10.244.1.8/29", "10.244.1.10/31"])
    inside = st.sampled_from(["10.244.1.10/32", "10.244.1.11/32"])
    excepting = st.builds(
        lambda cidr, without: {"cidr": cidr, "except": without},
        large,
        st.lists(inside, min_size=1, max_size=2, unique=True),
    )
    return st.one_of(some.map(lambda cidr: {"cidr": cidr}), large.map(lambda cidr: {"cidr": cidr}), excepting)


def _peers() -> st.SearchStrategy[Plain]:
    selected = st.fixed_dictionaries(
        {},
        optional={"podSelector": _selectors(_POD_LABELS), "namespaceSelector": _selectors(_NAMESPACE_LABELS)},
    ).filter(bool)
    return st.one_of(selected, selected, _blocks().map(lambda block: {"ipBlock": block}))


def _ports() -> st.SearchStrategy[Plain]:
    protocol = st.fixed_dictionaries({}, optional={"protocol": st.sampled_from(_PROTOCOLS)})
    which: st.SearchStrategy[Plain] = st.sampled_from(
        [
            {},
            {"port": 80},
            {"port": 81},
            {"port": 79, "endPort": 80},
            {"port": 81, "endPort": 65535},
            {"port": "http"},
            {"port": "serve-80-udp"},
            {"port": "nothing"},
        ]
    )
    return st.builds(lambda one, other: {**one, **other}, protocol, which)


def _rules(toward: str) -> st.SearchStrategy[Plain]:
    rules = st.fixed_dictionaries(
        {},
        optional={toward: st.lists(_peers(), max_size=2), "ports": st.lists(_ports(), max_size=2)},
    )
    return rules.filter(lambda rule: toward == "from" or not _asks_names_of_addresses(rule))


def _asks_names_of_addresses(rule: Plain) -> bool:
    """What the import refuses: a named port of an ipBlock."""
    is_named = any(isinstance(port.get("port"), str) for port in rule.get("ports", []))
    return is_named and any("ipBlock" in peer for peer in rule.get("to", []))


def policies() -> st.SearchStrategy[list[Plain]]:
    """Up to four policies; names are given by their place."""
    types = st.sampled_from([["Ingress"], ["Egress"], ["Ingress", "Egress"], []])
    specs = st.fixed_dictionaries(
        {"podSelector": _selectors(_POD_LABELS)},
        optional={
            "policyTypes": types,
            "ingress": st.lists(_rules("from"), max_size=2),
            "egress": st.lists(_rules("to"), max_size=2),
        },
    )
    pairs = st.tuples(st.sampled_from(NAMESPACES), specs)
    return st.lists(pairs, min_size=1, max_size=4).map(
        lambda found: [
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"name": f"policy-{number}", "namespace": namespace},
                "spec": spec,
            }
            for number, (namespace, spec) in enumerate(found)
        ]
    )
