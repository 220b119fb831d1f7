"""What the import knows of Kubernetes: pods, namespaces and NetworkPolicies as frozen values with places.

Source: https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv6Address

from vnet.base.source import Location
from vnet.topology.model import IPNetwork

NAMESPACE_NAME = "kubernetes.io/metadata.name"
"""The label that every namespace has: its name."""


class Operator(Enum):
    """How an expression looks at a label."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclass(frozen=True, slots=True)
class Expression:
    """One of `matchExpressions`; `values` is empty for the operators that take none."""

    key: str
    operator: Operator
    values: tuple[str, ...]

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether these labels satisfy it: what is absent is not in any list of values."""
        match self.operator:
            case Operator.IN:
                return labels.get(self.key) in self.values
            case Operator.NOT_IN:
                return labels.get(self.key) not in self.values
            case Operator.EXISTS:
                return self.key in labels
            case Operator.DOES_NOT_EXIST:
                return self.key not in labels


@dataclass(frozen=True, slots=True)
class Selector:
    """A label selector: all of it must hold; the empty one selects everything."""

    labels: Mapping[str, str]
    expressions: tuple[Expression, ...]
    at: Location
    path: str

    @property
    def keys(self) -> frozenset[str]:
        """The labels that it looks at."""
        return frozenset(self.labels) | {each.key for each in self.expressions}

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether it selects who carries these labels."""
        is_equal = self.labels.items() <= labels.items()
        return is_equal and all(each.matches(labels) for each in self.expressions)


@dataclass(frozen=True, slots=True)
class IpBlock:
    """`ipBlock`: the addresses of a CIDR that are in none of the exceptions."""

    cidr: IPNetwork
    exceptions: tuple[IPNetwork, ...]
    at: Location
    path: str


@dataclass(frozen=True, slots=True)
class Who:
    """The pods that `pods` selects, in one namespace or in all that a selector selects."""

    namespaces: str | Selector
    pods: Selector


@dataclass(frozen=True, slots=True)
class PolicyPort:
    """One of a rule's `ports`. `port` is a number, the name of a container's port, or None for all."""

    protocol: str
    port: int | str | None
    end: int | None
    at: Location
    path: str


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """One rule; it only allows. `peers` and `ports` are empty when everybody and everything is meant."""

    peers: tuple[Who | IpBlock, ...]
    ports: tuple[PolicyPort, ...]
    at: Location
    path: str


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """A policy with its types applied: a direction is None when the policy does not speak of it."""

    namespace: str
    name: str
    selected: Who
    ingress: tuple[PolicyRule, ...] | None
    egress: tuple[PolicyRule, ...] | None
    at: Location


@dataclass(frozen=True, slots=True, eq=False)
class Pod:
    """A pod on the cluster's network; equal to itself only. `ports` are its named ones."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    ports: Mapping[tuple[str, str], int]
    """Numbers by name and protocol."""
    addresses: tuple[IPv4Address | IPv6Address, ...]
    at: Location
    path: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace; its labels include the one that is its name."""

    name: str
    labels: Mapping[str, str]
    at: Location


@dataclass(frozen=True, slots=True)
class Manifests:
    """All that some files declare, in their order; namespaces that are only mentioned are left out."""

    namespaces: Mapping[str, Namespace] = field(default_factory=dict)
    pods: tuple[Pod, ...] = ()
    policies: tuple[NetworkPolicy, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Pods that are not on the cluster's network: why, with the place."""

    def labels_of(self, namespace: str) -> Mapping[str, str]:
        """A namespace's labels, as far as they are known."""
        declared = self.namespaces.get(namespace)
        return declared.labels if declared else {NAMESPACE_NAME: namespace}

    def selected(self, who: Who) -> tuple[Pod, ...]:
        """The declared pods that are meant."""
        return tuple(pod for pod in self.pods if self._is_meant(pod, who))

    def _is_meant(self, pod: Pod, who: Who) -> bool:
        if isinstance(who.namespaces, str):
            return pod.namespace == who.namespaces and who.pods.matches(pod.labels)
        return who.namespaces.matches(self.labels_of(pod.namespace)) and who.pods.matches(pod.labels)
