"""Who is meant, as groups of the language.

A selector that only demands labels of certain values becomes a group by labels, or several: whoever
carries the labels is a member, also one who comes later. What else a selector can say (NotIn, Exists,
DoesNotExist), and the number behind a port's name, is worked out for the pods that are declared: they
get a label of its own for it.

A VM carries the labels of its pod, those of the pod's namespace behind `namespace:`, and
`kubernetes:kind`. No label of Kubernetes has a colon in its name, so they are not mistaken for another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from math import prod

from vnet.topology.kubernetes.manifest import ASK
from vnet.topology.kubernetes.objects import (
    NAMESPACE_NAME,
    Expression,
    Manifests,
    Operator,
    Pod,
    PolicyPort,
    Selector,
    Who,
)
from vnet.topology.names import Names
from vnet.topology.reading import Reading, quoted
from vnet.topology.selectors import RESERVED_GROUPS

Labels = Mapping[str, str]
Place = Selector | PolicyPort
"""What a fault can point to."""
ALL_PODS = "pods"
KIND_LABEL: Labels = {"kubernetes:kind": "Pod"}
OF_NAMESPACE = "namespace:"
OF_SELECTOR = "selector:"
ALTERNATIVES_MAX = 16
"""As many groups at most for one selector; beyond that it is worked out for the declared pods."""


class Groups:
    """The groups that some manifests need, as they are asked for."""

    def __init__(self, manifests: Manifests, reading: Reading) -> None:
        self._manifests = manifests
        self._reading = reading
        self._names = Names(taken=(*RESERVED_GROUPS, ALL_PODS))
        self.declared: dict[str, Labels] = {ALL_PODS: KIND_LABEL}
        """The labels of each group's members."""
        self._known: dict[frozenset[tuple[str, str]], str] = {frozenset(KIND_LABEL.items()): ALL_PODS}
        self._members: dict[str, frozenset[Pod]] = {}
        self._of_members: dict[tuple[str, frozenset[Pod]], str] = {}

    def of(self, who: Who) -> tuple[str, ...]:
        """The groups that together are who is meant."""
        self._report_unknown_namespaces(who)
        if _is_plain(who):
            groups = dict.fromkeys(self._by_labels(each) for each in _alternatives(who))
            return tuple(groups) or (self.of_pods(_slug(who), ()),)
        selector = who.pods if isinstance(who.namespaces, str) else who.namespaces
        return (self.of_pods(_slug(who), self.members(who, f"who {_told(who)} means", selector)),)

    def members(self, who: Who, question: str, place: Place) -> tuple[Pod, ...]:
        """The declared pods that are meant; a fault at `place` when none are declared at all."""
        self.every(question, place)
        return self._manifests.selected(who)

    def every(self, question: str, place: Place) -> tuple[Pod, ...]:
        """All declared pods; a fault at `place`, which asks the question, when there are none."""
        if not self._manifests.pods:
            problem = f"{question} depends on the pods, and none are declared"
            self._reading.fault(place.at, place.path, problem, f"add them: {ASK}")
        return self._manifests.pods

    def of_pods(self, name: str, pods: Iterable[Pod]) -> str:
        """A group of exactly these pods."""
        among = frozenset(pods)
        if (name, among) not in self._of_members:
            group = self._names.fresh(name)
            self._of_members[name, among] = group
            self._members[group] = among
            self.declared[group] = {OF_SELECTOR + group: "true"}
        return self._of_members[name, among]

    def labels(self, pod: Pod) -> Labels:
        """All labels that the pod's VM carries."""
        own = self._manifests.labels_of(pod.namespace)
        of_namespace = {OF_NAMESPACE + key: value for key, value in own.items()}
        chosen = {OF_SELECTOR + group: "true" for group, members in self._members.items() if pod in members}
        return {**pod.labels, **of_namespace, **KIND_LABEL, **chosen}

    def _by_labels(self, labels: Labels) -> str:
        key = frozenset(labels.items())
        if key not in self._known:
            self._known[key] = self._names.fresh(_slug_of(labels))
            self.declared[self._known[key]] = labels
        return self._known[key]

    def _report_unknown_namespaces(self, who: Who) -> None:
        """A selector that looks at labels of namespaces needs those of all in which there are pods."""
        if isinstance(who.namespaces, str) or who.namespaces.keys <= {NAMESPACE_NAME}:
            return
        places = dict.fromkeys(pod.namespace for pod in self._manifests.pods)
        unknown = [name for name in places if name not in self._manifests.namespaces]
        if unknown:
            problem = f"the labels of the namespace {quoted(unknown[0])} are not known: it is not declared"
            hint = f"add its Namespace: {ASK}"
            self._reading.fault(who.namespaces.at, who.namespaces.path, problem, hint)


def _is_plain(who: Who) -> bool:
    """Whether it only demands values of labels, in few enough combinations."""
    expressions = [each for _, each in _expressions(who)]
    combinations = prod(len(each.values) for each in expressions)
    return combinations <= ALTERNATIVES_MAX and all(each.operator is Operator.IN for each in expressions)


def _expressions(who: Who) -> Iterator[tuple[str, Expression]]:
    """All expressions with what stands before the names of their labels."""
    if isinstance(who.namespaces, Selector):
        yield from ((OF_NAMESPACE, each) for each in who.namespaces.expressions)
    yield from (("", each) for each in who.pods.expressions)


def _demanded(who: Who) -> Labels:
    """The labels that every member carries."""
    if isinstance(who.namespaces, str):
        of_namespace = {OF_NAMESPACE + NAMESPACE_NAME: who.namespaces}
    else:
        of_namespace = {OF_NAMESPACE + key: value for key, value in who.namespaces.labels.items()}
    return {**of_namespace, **who.pods.labels}


def _alternatives(who: Who) -> Iterator[Labels]:
    """The sets of labels of which each member carries one; for selectors that only demand values."""
    demanded = _demanded(who)
    choices = [[(prefix + each.key, value) for value in each.values] for prefix, each in _expressions(who)]
    for chosen in product(*choices):
        labels = dict(demanded)
        if all(labels.setdefault(key, value) == value for key, value in chosen):
            yield labels or KIND_LABEL


def _slug_of(labels: Labels) -> str:
    """A name for a group by labels: `x-app-web`, `namespace-x`, `namespace-team-a`."""
    rest = {key: value for key, value in labels.items() if key != OF_NAMESPACE + NAMESPACE_NAME}
    namespace = labels.get(OF_NAMESPACE + NAMESPACE_NAME)
    words = [] if namespace is None else [namespace] if rest else ["namespace", namespace]
    for key, value in rest.items():
        before = ["namespace"] if key.startswith(OF_NAMESPACE) else []
        words += [*before, key.removeprefix(OF_NAMESPACE).rpartition("/")[2], value]
    return "-".join(words)


def _slug(who: Who) -> str:
    words = [_slug_of(_demanded(who))]
    for prefix, each in _expressions(who):
        key = prefix.rstrip(":") + "-" + each.key.rpartition("/")[2]
        words += [key, each.operator.value, *each.values]
    return "-".join(words)


def _told(who: Who) -> str:
    return quoted(", ".join(f"{each.key} {each.operator.value}" for _, each in _expressions(who)))
