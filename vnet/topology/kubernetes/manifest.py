"""From the text of manifests to what they declare, with every fault of all files at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from vnet.base.source import Location
from vnet.topology.kubernetes import form
from vnet.topology.kubernetes.objects import (
    NAMESPACE_NAME,
    Expression,
    IpBlock,
    Manifests,
    Namespace,
    NetworkPolicy,
    Operator,
    Pod,
    PolicyPort,
    PolicyRule,
    Selector,
    Who,
)
from vnet.topology.model import IPAddress, IPNetwork
from vnet.topology.reading import Reading, quoted
from vnet.topology.shape import Entry, Field, Read
from vnet.topology.yaml import ListNode, MapNode, Node, parse_stream

ASK = "kubectl get networkpolicies,namespaces,pods -A -o yaml"
"""What prints all that the import reads."""
_WITHOUT_MEANING = (
    *("ConfigMap", "Secret", "Service", "ServiceAccount", "Endpoints", "EndpointSlice", "Ingress"),
    *("IngressClass", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "PersistentVolume"),
    *("PersistentVolumeClaim", "StorageClass", "LimitRange", "ResourceQuota", "HorizontalPodAutoscaler"),
    *("PodDisruptionBudget", "PriorityClass", "CustomResourceDefinition"),
)
"""Kinds that say nothing of who may talk to whom, and make no pods; of Kubernetes' own API groups."""
_WITH_PODS = (
    *("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "CronJob", "ReplicationController"),
)
_ENDED = ("Succeeded", "Failed")


@dataclass(slots=True)
class _Found:
    """What was read so far, and where each name was declared first."""

    namespaces: dict[str, Namespace] = field(default_factory=dict)
    pods: list[Pod] = field(default_factory=list)
    policies: list[NetworkPolicy] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    first: dict[tuple[str, str, str], Location] = field(default_factory=dict)


def read(texts: Mapping[str, str], reading: Reading) -> Manifests:
    """What the files declare, in their order; faults go to `reading`.

    Args:
        texts: the manifests by the name of their file; YAML or JSON, any number of documents.
    """
    found = _Found()
    for file, text in texts.items():
        of_file = reading.of(file)
        stream = parse_stream(text)
        for problem in stream.problems:
            where = Location(file, problem.line, problem.column)
            reading.fault(where, problem.path, problem.text, problem.hint)
        for node in stream.roots:
            _read_object(node, "", of_file, found)
    if not (found.pods or found.policies or reading.faults):
        where = Location(next(iter(texts)), 1, 1)
        reading.fault(where, "", "there is no NetworkPolicy and no Pod", f"what prints them: {ASK}")
    return Manifests(found.namespaces, tuple(found.pods), tuple(found.policies), found.left_out)


def _read_object(node: Node, path: str, reading: Reading, found: _Found) -> None:
    head = form.HEAD.read(node, path, reading)
    if head is None:
        return
    version, kind = head.value.value(form.API_VERSION), head.value.value(form.KIND)
    if (version, kind) == ("v1", "List"):
        for i, item in enumerate(_items(node, path, reading)):
            _read_object(item, f"{path}.items[{i}]" if path else f"items[{i}]", reading, found)
    elif (version, kind) == ("networking.k8s.io/v1", "NetworkPolicy"):
        _add_policy(form.NETWORK_POLICY.read(node, path, reading), reading, found)
    elif (version, kind) == ("v1", "Namespace"):
        _add_namespace(form.NAMESPACE_OBJECT.read(node, path, reading), reading, found)
    elif (version, kind) == ("v1", "Pod"):
        _add_pod(form.POD.read(node, path, reading), reading, found)
    elif kind not in _WITHOUT_MEANING or not _is_of_kubernetes(version):
        _report_kind(head.value, version, kind, reading)


def _is_of_kubernetes(version: str) -> bool:
    """Whether an apiVersion is of a group of Kubernetes itself: `v1`, `apps/v1`, `storage.k8s.io/v1`.

    Others may use the same names of kinds: a Service of Knative makes pods.
    """
    group = version.rpartition("/")[0]
    return "." not in group or group.endswith(".k8s.io")


def _items(node: Node, path: str, reading: Reading) -> tuple[Node, ...]:
    assert isinstance(node, MapNode), "it has a kind"
    items: Node | None = next((value for key, value in node.entries if key.text == "items"), None)
    if items is None:
        return ()
    if isinstance(items, ListNode):
        return items.items
    where = f"{path}.items" if path else "items"
    reading.fault(reading.at(items), where, "the items of a List are no list")
    return ()


def _report_kind(head: Entry, version: str, kind: str, reading: Reading) -> None:
    where = head.get(form.KIND)
    assert where is not None, "it was read"
    known = {"NetworkPolicy": "networking.k8s.io/v1", "Namespace": "v1", "Pod": "v1", "List": "v1"}
    problem = f"{quoted(f'{version} {kind}')} cannot be imported"
    if kind in known:
        hint = f"its apiVersion is {known[kind]}"
    elif kind in _WITH_PODS:
        hint = f"give the pods that it makes instead: {ASK}"
    else:
        hint = f"remove it; NetworkPolicies, Namespaces and Pods can: {ASK}"
    reading.fault(where.at, where.path, problem, hint)


def _is_new(kind: str, namespace: str, name: Read[str], reading: Reading, found: _Found) -> bool:
    first = found.first.setdefault((kind, namespace, name.value), name.at)
    if first == name.at:
        return True
    problem = f"the {kind} {quoted(f'{namespace}/{name.value}'.strip('/'))} is declared twice"
    reading.fault(name.at, name.path, problem, f"the first one is at {first}")
    return False


def _named(read: Read[Entry]) -> tuple[Read[str], str, Mapping[str, str]]:
    """Name, namespace and labels of an object."""
    metadata: Entry = read.value.value(form.OBJECT_METADATA)
    name = metadata.get(form.NAME)
    assert name is not None, "a section that was read is complete"
    return name, metadata.value(form.NAMESPACE), _labels(metadata, form.LABELS)


def _labels(entry: Entry, key: Field[dict[str, Read[str]]]) -> Mapping[str, str]:
    labels = entry.get(key)
    return {name: value.value for name, value in labels.value.items()} if labels else {}


# ---- Namespace, Pod --------------------------------------------------------------------------


def _add_namespace(read: Read[Entry] | None, reading: Reading, found: _Found) -> None:
    if read is None:
        return
    name, _, labels = _named(read)
    if _is_new("Namespace", "", name, reading, found):
        found.namespaces[name.value] = Namespace(name.value, {**labels, NAMESPACE_NAME: name.value}, name.at)


def _add_pod(read: Read[Entry] | None, reading: Reading, found: _Found) -> None:
    if read is None:
        return
    name, namespace, labels = _named(read)
    spec, status = read.value.get(form.POD_SPEC), read.value.get(form.POD_STATUS)
    if not _is_new("Pod", namespace, name, reading, found):
        return
    phase = status.value.get(form.PHASE) if status else None
    why = "it has ended" if phase and phase.value in _ENDED else ""
    if spec and spec.value.value(form.HOST_NETWORK):
        why = "it has its node's own network"
    if why:
        found.left_out[f"{namespace}/{name.value}"] = f"{name.at}: {why}"
        return
    ports = _named_ports(spec.value, reading) if spec else {}
    addresses = tuple(_addresses(status.value)) if status else ()
    found.pods.append(Pod(namespace, name.value, labels, ports, addresses, name.at, name.path))


def _named_ports(spec: Entry, reading: Reading) -> Mapping[tuple[str, str], int]:
    ports: dict[tuple[str, str], int] = {}
    for port in _container_ports(spec):
        name, number = port.value.get(form.PORT_NAME), port.value.value(form.CONTAINER_PORT)
        if name is None:
            continue
        known = ports.setdefault((name.value, port.value.value(form.PROTOCOL)), number)
        if known != number:
            problem = f"the port {quoted(name.value)} is {known} in another container of this pod"
            reading.fault(name.at, name.path, problem, "give one of them another name")
    return ports


def _container_ports(spec: Entry) -> Iterator[Read[Entry]]:
    """The ports of what goes on running: containers, and init containers that are started again."""
    for key in (form.CONTAINERS, form.INIT_CONTAINERS):
        containers = spec.get(key)
        for container in containers.value if containers else ():
            again = container.value.get(form.RESTART_POLICY)
            ports = container.value.get(form.CONTAINER_PORTS)
            if ports and (key is form.CONTAINERS or (again and again.value == "Always")):
                yield from ports.value


def _addresses(status: Entry) -> Iterator[IPAddress]:
    several, one = status.get(form.POD_IPS), status.get(form.POD_IP)
    if several and several.value:
        yield from (each.value.value(form.IP) for each in several.value)
    elif one:
        yield one.value


# ---- NetworkPolicy ---------------------------------------------------------------------------


def _add_policy(read: Read[Entry] | None, reading: Reading, found: _Found) -> None:
    if read is None:
        return
    name, namespace, _ = _named(read)
    if not _is_new("NetworkPolicy", namespace, name, reading, found):
        return
    spec: Entry = read.value.value(form.SPEC)
    ingress = _rules(spec, form.INGRESS, namespace, reading)
    egress = _rules(spec, form.EGRESS, namespace, reading)
    types = spec.get(form.POLICY_TYPES)
    named = {each.value for each in types.value} if types else set()
    # Without types: always ingress, and egress if there is a rule for it (as the API server completes it).
    speaks = named or ({"Ingress", "Egress"} if egress else {"Ingress"})
    policy = NetworkPolicy(
        namespace,
        name.value,
        Who(namespace, _selector(spec.get(form.POD_SELECTOR), read, reading)),
        ingress if "Ingress" in speaks else None,
        egress if "Egress" in speaks else None,
        name.at,
    )
    found.policies.append(policy)


def _rules(
    spec: Entry, key: Field[tuple[Read[Entry], ...]], namespace: str, reading: Reading
) -> tuple[PolicyRule, ...]:
    rules = spec.get(key)
    toward = form.FROM if key is form.INGRESS else form.TO
    return tuple(_rule(rule, toward, namespace, reading) for rule in (rules.value if rules else ()))


def _rule(
    rule: Read[Entry], toward: Field[tuple[Read[Entry], ...]], namespace: str, reading: Reading
) -> PolicyRule:
    peers, ports = rule.value.get(toward), rule.value.get(form.PORTS)
    who = [_peer(peer, namespace, reading) for peer in (peers.value if peers else ())]
    what = [_port(port, reading) for port in (ports.value if ports else ())]
    known = tuple(each for each in who if each), tuple(each for each in what if each)
    return PolicyRule(*known, rule.at, rule.path)


def _peer(peer: Read[Entry], namespace: str, reading: Reading) -> Who | IpBlock | None:
    entry = peer.value
    pods, namespaces = entry.get(form.POD_SELECTOR), entry.get(form.NAMESPACE_SELECTOR)
    block = entry.get(form.IP_BLOCK)
    if block and (pods or namespaces):
        problem = "an ipBlock stands alone: it cannot be narrowed by a selector"
        reading.fault(block.at, block.path, problem, "make two peers of it")
        return None
    if block:
        return _block(block, reading)
    if not pods and not namespaces:
        hint = "write podSelector: {} for all pods of the namespace, namespaceSelector: {} for all pods"
        reading.fault(peer.at, peer.path, "a peer that names nobody", hint)
        return None
    among = _selector(namespaces, peer, reading) if namespaces else namespace
    return Who(among, _selector(pods, peer, reading))


def _block(block: Read[Entry], reading: Reading) -> IpBlock:
    cidr, exceptions = block.value.value(form.CIDR), block.value.get(form.EXCEPT)
    inside = []
    for each in exceptions.value if exceptions else ():
        if each.value.version != cidr.version or not _is_part(each.value, cidr):
            problem = f"expected a part of {cidr}, found {each.value}"
            reading.fault(each.at, each.path, problem, "what is outside of it is not meant anyhow: remove it")
        else:
            inside.append(each.value)
    return IpBlock(cidr, tuple(inside), block.at, block.path)


def _is_part(one: IPNetwork, other: IPNetwork) -> bool:
    """Whether all of `one`, and not all of `other`, is in both; of one family."""
    return one.prefixlen > other.prefixlen and one.network_address in other


def _port(port: Read[Entry], reading: Reading) -> PolicyPort | None:
    entry = port.value
    number, end = entry.get(form.PORT), entry.get(form.END_PORT)
    first = number.value if number else None
    problem = ""
    if end and first is None:
        problem = '"endPort" needs "port": the range begins there'
    elif end and isinstance(first, str):
        problem = f"a range cannot begin at {quoted(first)}: a named port is one port"
    elif end and isinstance(first, int) and end.value < first:
        problem = f"the range ends at {end.value}, before it begins at {first}"
    if end and problem:
        reading.fault(end.at, end.path, problem)
        return None
    return PolicyPort(entry.value(form.PROTOCOL), first, end.value if end else None, port.at, port.path)


def _selector(read: Read[Entry] | None, owner: Read[Entry], reading: Reading) -> Selector:
    """A selector; one that is not given selects everything."""
    if read is None:
        return Selector({}, (), owner.at, owner.path)
    listed = read.value.get(form.MATCH_EXPRESSIONS)
    expressions = [_expression(each, reading) for each in (listed.value if listed else ())]
    labels = _labels(read.value, form.MATCH_LABELS)
    return Selector(labels, tuple(each for each in expressions if each), read.at, read.path)


def _expression(read: Read[Entry], reading: Reading) -> Expression | None:
    entry = read.value
    operator, given = entry.value(form.OPERATOR), entry.get(form.VALUES)
    values = tuple(each.value for each in given.value) if given else ()
    needs_values = operator in (Operator.IN, Operator.NOT_IN)
    if needs_values and not values:
        reading.fault(read.at, read.path, f'{operator.value} needs "values": at least one')
        return None
    if values and not needs_values:
        problem = f'{operator.value} takes no "values": it looks only whether the label is there'
        reading.fault(read.at, read.path, problem, "write In or NotIn, or remove them")
        return None
    return Expression(entry.value(form.KEY), operator, values)
