"""Manifests of Kubernetes to a document of the topology language.

Each NetworkPolicy becomes a policy of the tier `application` with its rules, which all allow, so that
they add up there as they do in Kubernetes. What holds for a pod of which no policy speaks stands in the
tier `baseline`: `isolated` closes the ingress of all whom some policy for ingress selects, `open` opens
that of the others. For egress the language has Kubernetes' default: open, until some policy lists it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_network
from typing import Any

from vnet.base.errors import InputError
from vnet.topology.kubernetes.addresses import PodAddresses, cidrs
from vnet.topology.kubernetes.groups import ALL_PODS, Groups
from vnet.topology.kubernetes.manifest import read
from vnet.topology.kubernetes.objects import IpBlock, Manifests, NetworkPolicy, Pod, PolicyPort, PolicyRule
from vnet.topology.kubernetes.ports import is_named, numbers, service
from vnet.topology.language import VM_NAME_MAX
from vnet.topology.model import IPNetwork
from vnet.topology.names import Names
from vnet.topology.reading import Reading, quoted

Plain = dict[str, Any]
NETWORK = "pods"
VLAN = 10
SUBNETS: tuple[IPNetwork, ...] = (ip_network("10.244.0.0/16"),)
"""Where the pods of clusters made with kubeadm usually are."""
_ISOLATED, _OPEN = "isolated", "open"


def imported(texts: Mapping[str, str], fabric: str, subnets: Sequence[IPNetwork] = SUBNETS) -> Plain:
    """The topology that stands for the manifests.

    Args:
        texts: the manifests by the name of their file; YAML or JSON, any number of documents.
        fabric: what it is to be called.
        subnets: of the network that all pods share.

    Raises: InputError with every fault found, among them all that cannot be expressed.
    """
    reading = Reading("", texts, None)
    manifests = read(texts, reading)
    document = {} if reading.faults else _Import(manifests, subnets, reading).document(fabric)
    if reading.faults:
        raise InputError(reading.faults)
    return document


class _Import:
    def __init__(self, manifests: Manifests, subnets: Sequence[IPNetwork], reading: Reading) -> None:
        self._manifests = manifests
        self._subnets = subnets
        self._reading = reading
        self._groups = Groups(manifests, reading)
        self._addresses = PodAddresses(manifests.pods, subnets, reading)
        self._names = Names(taken=(_ISOLATED, _OPEN))

    def document(self, fabric: str) -> Plain:
        self._addresses.check()
        names = [self._names.fresh(f"{each.namespace}-{each.name}") for each in self._manifests.policies]
        policies = [
            plain
            for name, policy in zip(names, self._manifests.policies, strict=True)
            for plain in self._policy(name, policy)
        ]
        vms = self._vms()  # after the policies: what they ask for are labels of the VMs
        network = {NETWORK: {"vlan": VLAN, "subnets": [str(subnet) for subnet in self._subnets]}}
        document: Plain = {"name": fabric, "networks": network if vms else {}, "vms": vms}
        document["groups"] = {
            name: {"labels": dict(labels)} for name, labels in self._groups.declared.items()
        }
        document["policies"] = [*policies, *self._baseline()]
        document["x-left-out"] = dict(self._manifests.left_out)
        return {key: value for key, value in document.items() if value}

    # -- VMs

    def _vms(self) -> Plain:
        names = Names(VM_NAME_MAX)
        return {names.fresh(f"{pod.namespace}-{pod.name}"): self._vm(pod) for pod in self._manifests.pods}

    def _vm(self, pod: Pod) -> Plain:
        addresses = self._addresses.given(pod)
        nics: Plain = {"networks": [NETWORK]}
        if addresses:
            nics = {"interfaces": {"eth0": {"network": NETWORK, "addresses": addresses}}}
        return {"x-source": str(pod.at), **nics, "labels": dict(self._groups.labels(pod))}

    # -- policies

    def _baseline(self) -> Iterator[Plain]:
        isolating = [each.selected for each in self._manifests.policies if each.ingress is not None]
        groups = list(dict.fromkeys(group for who in isolating for group in self._groups.of(who)))
        if groups:
            yield {
                "name": _ISOLATED,
                "tier": "baseline",
                "applied_to": groups,
                "ingress": [{"from": "any", "action": "deny"}],
            }
        yield {"name": _OPEN, "tier": "baseline", "applied_to": ALL_PODS, "ingress": [{"from": "any"}]}

    def _policy(self, name: str, policy: NetworkPolicy) -> Iterator[Plain]:
        """The policy, and one more for each number that a port's name has for some of its pods only."""
        head: Plain = {"x-source": str(policy.at), "applied_to": list(self._groups.of(policy.selected))}
        main: Plain = {"name": name, **head}
        more: list[Plain] = []
        if policy.ingress is not None:
            main["ingress"] = []
            for rule in policy.ingress:
                main["ingress"] += self._ingress(name, policy, rule, more)
        if policy.egress is not None:
            main["egress"] = [plain for rule in policy.egress for plain in self._egress(rule)]
        yield main
        yield from more

    def _ingress(
        self, name: str, policy: NetworkPolicy, rule: PolicyRule, more: list[Plain]
    ) -> Iterator[Plain]:
        """The rule for all pods of the policy; what holds for some of them goes to `more`."""
        peers = self._peers(rule)
        services = [service(port) for port in rule.ports if not is_named(port)]
        for port in filter(is_named, rule.ports):
            pods = self._groups.members(policy.selected, f"the number of {quoted(str(port.port))}", port)
            for number, having in numbers(port, pods).items():
                if len(having) == len(pods):
                    services.append(service(port, number))
                elif peers:
                    more.append(self._of_some(name, policy, port, number, having, peers))
        if peers and (services or not rule.ports):
            yield {"from": peers, **({"ports": services} if services else {})}

    def _of_some(
        self,
        name: str,
        policy: NetworkPolicy,
        port: PolicyPort,
        number: int,
        pods: Sequence[Pod],
        peers: list[str],
    ) -> Plain:
        called = f"{name}-{port.port}-{number}"
        return {
            "name": self._names.fresh(called),
            "x-source": str(policy.at),
            "applied_to": self._groups.of_pods(called, pods),
            "ingress": [{"from": peers, "ports": [service(port, number)]}],
        }

    def _egress(self, rule: PolicyRule) -> Iterator[Plain]:
        peers = self._peers(rule)
        services = [service(port) for port in rule.ports if not is_named(port)]
        if peers and (services or not rule.ports):
            yield {"to": peers, **({"ports": services} if services else {})}
        for port in filter(is_named, rule.ports):
            for number, having in numbers(port, self._targets(rule, port)).items():
                group = self._groups.of_pods(f"port-{port.port}-{number}-{port.protocol}", having)
                yield {"to": group, "ports": [service(port, number)]}

    def _targets(self, rule: PolicyRule, port: PolicyPort) -> list[Pod]:
        """The pods to which an egress rule leads, whose ports a name means."""
        question = f"the number of {quoted(str(port.port))}"
        if not rule.peers:
            return list(self._groups.every(question, port))
        found: dict[Pod, None] = {}
        for peer in rule.peers:
            if isinstance(peer, IpBlock):
                problem = f"{question} is not known for the addresses of an ipBlock"
                self._reading.fault(port.at, port.path, problem, "write the number")
            else:
                found |= dict.fromkeys(self._groups.members(peer, question, port))
        return list(found)

    def _peers(self, rule: PolicyRule) -> list[str]:
        """The selectors for a rule's peers; none if they mean nobody."""
        if not rule.peers:
            return ["any"]
        found: dict[str, None] = {}
        for peer in rule.peers:
            if isinstance(peer, IpBlock):
                self._addresses.check_block(peer)
                found |= dict.fromkeys(map(str, cidrs(peer)))
            else:
                found |= dict.fromkeys(self._groups.of(peer))
        return list(found)
