"""The cases of the Kubernetes e2e suite for NetworkPolicy, by their titles, with what each expects.

Each step is a cluster with its policies; a case of several steps is one that changes something, which here is
another import. The suite asks of most cases one port and one protocol; here the whole table is expected.

Source: kubernetes/kubernetes, test/e2e/network/netpol/network_policy.go and network_policy_api.go
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.unit.topology.kubernetes.cluster import Labels, address


@dataclass(frozen=True, slots=True)
class Step:
    """Policies in force and the truth table that must follow (`cluster.table`)."""

    policies: str
    expected: tuple[str, ...]
    added: Mapping[str, Labels] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    title: str
    steps: tuple[Step, ...]


def policy(namespace: str, name: str, spec: str) -> str:
    """A NetworkPolicy; `spec` is what stands in the braces of its spec."""
    return (
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n"
        f"metadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n"
    )


def step(policies: str, *expected: str, added: Mapping[str, Labels] | None = None) -> Step:
    return Step(policies, expected, added or {})


NAME = "kubernetes.io/metadata.name"
POD_A, POD_B, POD_C = (f"{{matchLabels: {{pod: {pod}}}}}" for pod in "abc")
NS_X, NS_Y = (f"{{matchLabels: {{{NAME}: {namespace}}}}}" for namespace in "xy")
NOT_X, NOT_Y = (f"{{matchExpressions: [{{key: {NAME}, operator: NotIn, values: [{ns}]}}]}}" for ns in "xy")
TO_A = f"podSelector: {POD_A}, policyTypes: [Ingress]"
ALL = "podSelector: {}"
DENY_INGRESS = policy("x", "deny-ingress", f"{ALL}, policyTypes: [Ingress]")
DENY_ALL = policy("x", "deny-all", f"{ALL}, policyTypes: [Ingress, Egress]")
ALLOW_INGRESS = policy("x", "allow-ingress", f"{ALL}, policyTypes: [Ingress], ingress: [{{}}]")
ALLOW_EGRESS = policy("x", "allow-egress", f"{ALL}, policyTypes: [Egress], egress: [{{}}]")
CLOSED = "deny */* -> x/a"
"""Nobody reaches x/a."""
OTHERS = ("deny x/* -> x/a", "deny z/* -> x/a")
"""Only namespace y reaches x/a."""


def to_a(rule: str) -> str:
    """A policy for x/a with one rule for ingress."""
    return policy("x", "to-a", f"{TO_A}, ingress: [{{{rule}}}]")


def from_a(rule: str) -> str:
    """A policy for x/a with one rule for egress."""
    return policy("x", "from-a", f"podSelector: {POD_A}, policyTypes: [Egress], egress: [{{{rule}}}]")


def for_all(kind: str, rule: str) -> str:
    """A policy for all of x with one rule for Ingress or Egress."""
    return policy("x", "only-80", f"{ALL}, policyTypes: [{kind}], {kind.lower()}: [{{{rule}}}]")


FROM_Y = f"from: [{{namespaceSelector: {NS_Y}}}]"
Y_ON_81 = to_a(f"{FROM_Y}, ports: [{{port: 81, protocol: TCP}}]")
Y_ON_80 = policy("x", "y-on-80", f"{TO_A}, ingress: [{{{FROM_Y}, ports: [{{port: 80, protocol: TCP}}]}}]")
LARGE_WITHOUT_B = f"to: [{{ipBlock: {{cidr: 10.244.0.0/16, except: [{address('x/b')}/32]}}}}]"
EGRESS_PAIR = "".join(
    (
        policy(
            "x",
            "a-to-y-a",
            f"podSelector: {POD_A}, policyTypes: [Egress], "
            f"egress: [{{to: [{{namespaceSelector: {NS_Y}, podSelector: {POD_A}}}]}}]",
        ),
        *(
            policy(
                "y",
                f"x-a-to-{name}",
                f"podSelector: {selector}, policyTypes: [Ingress], "
                f"ingress: [{{from: [{{namespaceSelector: {NS_X}, podSelector: {POD_A}}}]}}]",
            )
            for name, selector in (("a", POD_A), ("b", POD_B))
        ),
    )
)

CASES = (
    Case(
        "should support a 'default-deny-ingress' policy",
        (step(DENY_INGRESS, "deny */* -> x/*"),),
    ),
    Case(
        "should support a 'default-deny-all' policy",
        (step(DENY_ALL, "deny */* -> x/*", "deny x/* -> */*"),),
    ),
    Case(
        "should enforce policy to allow traffic from pods within server namespace based on PodSelector",
        (step(to_a(f"from: [{{podSelector: {POD_B}}}]"), CLOSED, "allow x/b -> x/a"),),
    ),
    Case(
        "should enforce policy to allow ingress traffic for a target",
        (
            step(
                DENY_INGRESS + to_a("from: [{podSelector: {}, namespaceSelector: {}}]"),
                "deny */* -> x/*",
                "allow */* -> x/a",
            ),
        ),
    ),
    Case(
        "should enforce policy to allow ingress traffic from pods in all namespaces",
        (step(to_a("from: [{namespaceSelector: {matchLabels: {}}}]")),),
    ),
    Case(
        "should enforce policy to allow traffic only from a different namespace, based on NamespaceSelector",
        (step(to_a(FROM_Y), *OTHERS),),
    ),
    Case(
        "should enforce policy based on PodSelector with MatchExpressions",
        (
            step(
                to_a("from: [{podSelector: {matchExpressions: [{key: pod, operator: In, values: [b]}]}}]"),
                CLOSED,
                "allow x/b -> x/a",
            ),
        ),
    ),
    Case(
        "should enforce policy based on NamespaceSelector with MatchExpressions",
        (
            step(
                to_a(
                    "from: [{namespaceSelector: "
                    f"{{matchExpressions: [{{key: {NAME}, operator: In, values: [y]}}]}}}}]"
                ),
                *OTHERS,
            ),
        ),
    ),
    Case(
        "should enforce policy based on PodSelector or NamespaceSelector",
        (
            step(
                to_a(f"from: [{{namespaceSelector: {NOT_X}}}, {{podSelector: {POD_B}}}]"),
                "deny x/c -> x/a",
            ),
        ),
    ),
    Case(
        "should enforce policy based on PodSelector and NamespaceSelector",
        (
            step(
                to_a(f"from: [{{namespaceSelector: {NOT_X}, podSelector: {POD_B}}}]"),
                CLOSED,
                "allow y/b -> x/a",
                "allow z/b -> x/a",
            ),
        ),
    ),
    Case(
        "should enforce policy based on Multiple PodSelectors and NamespaceSelectors",
        (
            step(
                to_a(
                    f"from: [{{namespaceSelector: {NOT_X}, podSelector: "
                    "{matchExpressions: [{key: pod, operator: In, values: [b, c]}]}}]"
                ),
                "deny x/* -> x/a",
                "deny */a -> x/a",
            ),
        ),
    ),
    Case(
        "should enforce policy based on any PodSelectors",
        (
            step(
                to_a(f"from: [{{podSelector: {POD_B}}}, {{podSelector: {POD_C}}}]"),
                CLOSED,
                "allow x/b -> x/a",
                "allow x/c -> x/a",
            ),
        ),
    ),
    Case(
        "should enforce policy to allow traffic only from a pod in a different namespace "
        "based on PodSelector and NamespaceSelector",
        (
            step(
                to_a(f"from: [{{namespaceSelector: {NS_Y}, podSelector: {POD_A}}}]"),
                CLOSED,
                "allow y/a -> x/a",
            ),
        ),
    ),
    Case(
        "should enforce policy based on Ports",
        (step(Y_ON_81, CLOSED, "allow y/* -> x/a 81/tcp"),),
    ),
    Case(
        "should enforce multiple, stacked policies with overlapping podSelectors",
        (
            step(Y_ON_81, CLOSED, "allow y/* -> x/a 81/tcp"),
            step(Y_ON_81 + Y_ON_80, CLOSED, "allow y/* -> x/a */tcp"),
        ),
    ),
    Case("should support allow-all policy", (step(ALLOW_INGRESS),)),
    Case(
        "should allow ingress access on one named port",
        (
            step(
                for_all("Ingress", "ports: [{port: serve-81-tcp}]"),
                "deny */* -> x/*",
                "allow */* -> x/* 81/tcp",
            ),
        ),
    ),
    Case(
        "should allow ingress access from namespace on one named port",
        (
            step(
                to_a(f"{FROM_Y}, ports: [{{port: serve-80-tcp, protocol: TCP}}]"),
                CLOSED,
                "allow y/* -> x/a 80/tcp",
            ),
        ),
    ),
    Case(
        "should allow egress access on one named port",
        (
            step(
                for_all("Egress", "ports: [{port: serve-80-tcp}]"),
                "deny x/* -> */*",
                "allow x/* -> */* 80/tcp",
            ),
        ),
    ),
    Case(
        "should enforce updated policy",
        (step(ALLOW_INGRESS), step(DENY_INGRESS, "deny */* -> x/*")),
    ),
    Case(
        "should allow ingress access from updated namespace",
        (
            step(to_a("from: [{namespaceSelector: {matchLabels: {ns2: updated}}}]"), CLOSED),
            step(
                to_a("from: [{namespaceSelector: {matchLabels: {ns2: updated}}}]"),
                CLOSED,
                "allow y/* -> x/a",
                added={"y": {"ns2": "updated"}},
            ),
        ),
    ),
    Case(
        "should allow ingress access from updated pod",
        (
            step(to_a("from: [{podSelector: {matchLabels: {pod: b, pod2: updated}}}]"), CLOSED),
            step(
                to_a("from: [{podSelector: {matchLabels: {pod: b, pod2: updated}}}]"),
                CLOSED,
                "allow x/b -> x/a",
                added={"x/b": {"pod2": "updated"}},
            ),
        ),
    ),
    Case(
        "should deny ingress from pods on other namespaces",
        (
            step(
                for_all("Ingress", "from: [{podSelector: {matchLabels: {}}}]"),
                "deny */* -> x/*",
                "allow x/* -> x/*",
            ),
        ),
    ),
    Case(
        "should deny ingress access to updated pod",
        (
            step(policy("x", "isolate", "podSelector: {matchLabels: {target: isolated}}, ingress: []")),
            step(
                policy("x", "isolate", "podSelector: {matchLabels: {target: isolated}}, ingress: []"),
                CLOSED,
                added={"x/a": {"target": "isolated"}},
            ),
        ),
    ),
    Case(
        "should deny egress from pods based on PodSelector",
        (step(policy("x", "closed", f"podSelector: {POD_A}, policyTypes: [Egress]"), "deny x/a -> */*"),),
    ),
    Case(
        "should deny egress from all pods in a namespace",
        (step(policy("x", "closed", f"{ALL}, policyTypes: [Egress]"), "deny x/* -> */*"),),
    ),
    Case(
        "should work with Ingress, Egress specified together",
        (
            step(
                policy(
                    "x",
                    "both",
                    f"podSelector: {POD_A}, policyTypes: [Egress, Ingress], "
                    f"ingress: [{{from: [{{podSelector: {POD_B}}}]}}], egress: [{{ports: [{{port: 80}}]}}]",
                ),
                CLOSED,
                "allow x/b -> x/a",
                "deny x/a -> */*",
                "allow x/a -> */* 80/tcp",
            ),
        ),
    ),
    Case(
        "should support denying of egress traffic on the client side "
        "(even if the server explicitly allows this traffic)",
        (
            step(
                EGRESS_PAIR,
                "deny x/a -> */*",
                "deny */* -> y/a",
                "deny */* -> y/b",
                "allow x/a -> y/a",
            ),
        ),
    ),
    Case(
        "should enforce egress policy allowing traffic to a server in a different namespace "
        "based on PodSelector and NamespaceSelector",
        (
            step(
                from_a(f"to: [{{namespaceSelector: {NS_Y}, podSelector: {POD_A}}}]"),
                "deny x/a -> */*",
                "allow x/a -> y/a",
            ),
        ),
    ),
    Case(
        "should enforce ingress policy allowing any port traffic to a server on a specific protocol",
        (step(to_a("ports: [{protocol: TCP}]"), CLOSED, "allow */* -> x/a */tcp"),),
    ),
    Case(
        "should enforce multiple ingress policies with ingress allow-all policy taking precedence",
        (
            step(for_all("Ingress", "ports: [{port: 80}]"), "deny */* -> x/*", "allow */* -> x/* 80/tcp"),
            step(for_all("Ingress", "ports: [{port: 80}]") + ALLOW_INGRESS),
        ),
    ),
    Case(
        "should enforce multiple egress policies with egress allow-all policy taking precedence",
        (
            step(for_all("Egress", "ports: [{port: 80}]"), "deny x/* -> */*", "allow x/* -> */* 80/tcp"),
            step(for_all("Egress", "ports: [{port: 80}]") + ALLOW_EGRESS),
        ),
    ),
    Case(
        "should stop enforcing policies after they are deleted",
        (step(DENY_ALL, "deny */* -> x/*", "deny x/* -> */*"), step("")),
    ),
    Case(
        "should allow egress access to server in CIDR block",
        (
            step(
                from_a(f"to: [{{ipBlock: {{cidr: {address('y/b')}/32}}}}]"),
                "deny x/a -> */*",
                "allow x/a -> y/b",
            ),
        ),
    ),
    Case(
        "should enforce except clause while egress access to server in CIDR block",
        (step(from_a(LARGE_WITHOUT_B), "deny x/a -> x/b"),),
    ),
    Case(
        "should ensure an IP overlapping both IPBlock.CIDR and IPBlock.Except is allowed",
        (
            step(from_a(LARGE_WITHOUT_B), "deny x/a -> x/b"),
            step(
                from_a(f"to: [{{ipBlock: {{cidr: {address('x/b')}/32}}}}]"),
                "deny x/a -> */*",
                "allow x/a -> x/b",
            ),
        ),
    ),
    Case(
        "should enforce policies to check ingress and egress policies can be controlled independently "
        "based on PodSelector",
        (
            step(from_a("")),
            step(from_a("") + policy("x", "closed", TO_A), CLOSED),
        ),
    ),
    Case(
        "should not mistakenly treat 'protocol: SCTP' as 'protocol: TCP', "
        "even if the plugin doesn't support SCTP",
        (
            step(
                DENY_INGRESS + to_a("ports: [{port: 81, protocol: SCTP}]"),
                "deny */* -> x/*",
                "allow */* -> x/a 81/sctp",
            ),
        ),
    ),
    Case(
        "should properly isolate pods that are selected by a policy allowing SCTP, "
        "even if the plugin doesn't support SCTP",
        (step(to_a("ports: [{port: 80, protocol: SCTP}]"), CLOSED, "allow */* -> x/a 80/sctp"),),
    ),
    Case(
        "should not allow access by TCP when a policy specifies only UDP",
        (step(to_a("ports: [{port: 81, protocol: UDP}]"), CLOSED, "allow */* -> x/a 81/udp"),),
    ),
    Case(
        "should enforce policy to allow traffic based on NamespaceSelector with MatchLabels "
        "using default ns label",
        (step(to_a(FROM_Y), *OTHERS),),
    ),
    Case(
        "should enforce policy based on NamespaceSelector with MatchExpressions using default ns label",
        (step(from_a(f"to: [{{namespaceSelector: {NOT_Y}}}]"), "deny x/a -> y/*"),),
    ),
    *(
        case
        for protocol in ("UDP", "SCTP")
        for case in (
            Case(
                f"using {protocol}: should support a 'default-deny-ingress' policy",
                (step(DENY_INGRESS, "deny */* -> x/*"),),
            ),
            Case(
                f"using {protocol}: should enforce policy based on Ports",
                (
                    step(
                        to_a(f"{FROM_Y}, ports: [{{port: 81, protocol: {protocol}}}]"),
                        CLOSED,
                        f"allow y/* -> x/a 81/{protocol.lower()}",
                    ),
                ),
            ),
            Case(
                f"using {protocol}: should enforce policy to allow traffic only from a pod "
                "in a different namespace based on PodSelector and NamespaceSelector",
                (
                    step(
                        to_a(f"from: [{{namespaceSelector: {NS_Y}, podSelector: {POD_A}}}]"),
                        CLOSED,
                        "allow y/a -> x/a",
                    ),
                ),
            ),
        )
    ),
)
END_PORT = "should support creating NetworkPolicy API with endport field"
ELSEWHERE: Mapping[str, str] = {
    END_PORT: "passes: the same three forms are refused, the same two are imported",
    "should support creating NetworkPolicy API operations": (
        "does not apply: it creates, lists, watches and patches objects of an API server; here is none"
    ),
}
"""Cases without a truth table: those of the API."""


def conformance_table() -> str:
    """What docs/network-policy.md says of each case."""
    rows = [f"| {case.title} | {_told(case)} |" for case in CASES]
    rows += [f"| {title} | {how} |" for title, how in ELSEWHERE.items()]
    return "\n".join(("| case | here |", "|---|---|", *rows))


def _told(case: Case) -> str:
    return "passes" if len(case.steps) == 1 else f"passes, with {len(case.steps)} imports"


if __name__ == "__main__":
    print(conformance_table())
