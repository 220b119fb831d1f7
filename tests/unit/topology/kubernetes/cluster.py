"""The model cluster of the conformance cases, and the truth tables that they expect.

Namespaces x, y and z with pods a, b and c each; every pod serves ports 80 and 81 over TCP, UDP and SCTP. Who
connects to itself is left out, as there: it never reaches the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

NAMESPACES, PODS = ("x", "y", "z"), ("a", "b", "c")
PORTS = (80, 81)
PROTOCOLS = ("tcp", "udp", "sctp")
Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Question:
    """A connection: `source` and `target` as `x/a`."""

    source: str
    target: str
    port: int
    protocol: str

    def __str__(self) -> str:
        return f"{self.source} -> {self.target} {self.port}/{self.protocol}"


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster with what was added to it."""

    added: Mapping[str, Labels] = field(default_factory=dict)
    """Labels of some namespaces (`y`) and pods (`x/b`)."""
    http: Mapping[str, int] = field(default_factory=dict)
    """Where the TCP port called `http` is, of the pods that have one."""

    def labels(self, pod: str) -> Labels:
        return {"pod": pod.partition("/")[2], **self.added.get(pod, {})}

    def namespace_labels(self, namespace: str) -> Labels:
        return {"kubernetes.io/metadata.name": namespace, **self.added.get(namespace, {})}

    def manifest(self) -> str:
        """Its Namespaces and Pods as YAML."""
        documents = [_namespace(name, self.namespace_labels(name)) for name in NAMESPACES]
        documents += [_pod(pod, self.labels(pod), self.ports(pod)) for pod in pods()]
        return "".join(documents)

    def ports(self, pod: str) -> Mapping[tuple[str, str], int]:
        """The numbers of its named ports, by name and protocol."""
        served = {(f"serve-{port}-{name}", name.upper()): port for port in PORTS for name in PROTOCOLS}
        return {**served, **({("http", "TCP"): self.http[pod]} if pod in self.http else {})}


def pods() -> list[str]:
    return list(_ADDRESSES)


def address(pod: str) -> IPv4Address:
    """What stands in the pod's status."""
    return _ADDRESSES[pod]


_ADDRESSES = {
    f"{namespace}/{pod}": IPv4Address("10.244.1.10") + 3 * i + j
    for i, namespace in enumerate(NAMESPACES)
    for j, pod in enumerate(PODS)
}
QUESTIONS = tuple(
    Question(source, target, port, name)
    for source in _ADDRESSES
    for target in _ADDRESSES
    if source != target
    for port in PORTS
    for name in PROTOCOLS
)
"""Everything that is asked of the cluster: 9 × 8 pairs, 6 services."""


def _namespace(name: str, labels: Labels) -> str:
    return f"---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {_flow(labels)}}}\n"


def _pod(pod: str, labels: Labels, named: Mapping[tuple[str, str], int]) -> str:
    namespace, _, name = pod.partition("/")
    ports = ", ".join(
        f"{{name: {called}, containerPort: {number}, protocol: {protocol}}}"
        for (called, protocol), number in named.items()
    )
    return (
        f"---\napiVersion: v1\nkind: Pod\n"
        f"metadata: {{name: {name}, namespace: {namespace}, labels: {_flow(labels)}}}\n"
        f"spec: {{containers: [{{name: c, ports: [{ports}]}}]}}\n"
        f"status: {{podIP: {address(pod)}}}\n"
    )


def _flow(labels: Labels) -> str:
    return "{" + ", ".join(f'"{key}": "{value}"' for key, value in labels.items()) + "}"


def table(lines: tuple[str, ...]) -> dict[Question, bool]:
    """The truth table that lines like `deny y/* -> x/a 81/tcp` describe: the last that matches counts."""
    return {question: _expected(lines, question) for question in QUESTIONS}


def _expected(lines: tuple[str, ...], question: Question) -> bool:
    allowed = True
    for line in lines:
        verb, source, _, target, *services = line.split()
        service = services[0] if services else "*/*"
        asked = (question.source, question.target, f"{question.port}/{question.protocol}")
        if all(
            _matches(pattern, word) for pattern, word in zip((source, target, service), asked, strict=True)
        ):
            allowed = verb == "allow"
    return allowed


def _matches(pattern: str, word: str) -> bool:
    return all(one in ("*", other) for one, other in zip(pattern.split("/"), word.split("/"), strict=True))
