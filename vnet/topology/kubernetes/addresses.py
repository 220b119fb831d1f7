"""Addresses of pods and of ipBlocks, on the one network that all pods share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network

from vnet.topology.kubernetes.objects import IpBlock, Pod
from vnet.topology.model import IPNetwork
from vnet.topology.reading import Reading, quoted


def cidrs(block: IpBlock) -> tuple[IPNetwork, ...]:
    """The fewest CIDRs that hold the addresses of a block and none of its exceptions."""
    left: list[IPNetwork] = [block.cidr]
    for exception in block.exceptions:
        left = [piece for network in left for piece in _without(network, exception)]
    return tuple(left)


def _without(network: IPNetwork, exception: IPNetwork) -> Iterable[IPNetwork]:
    """What of a network is not in the exception, ascending; both are of one family."""
    if not network.overlaps(exception):
        return (network,)
    if network.prefixlen >= exception.prefixlen:
        return ()
    if isinstance(network, IPv4Network):
        assert isinstance(exception, IPv4Network), "an exception is part of its block"
        return sorted(network.address_exclude(exception))
    assert isinstance(exception, IPv6Network), "an exception is part of its block"
    return sorted(network.address_exclude(exception))


class PodAddresses:
    """Which addresses the pods have, as far as the manifests say."""

    def __init__(self, pods: Sequence[Pod], subnets: Sequence[IPNetwork], reading: Reading) -> None:
        self._pods = pods
        self._subnets = subnets
        self._reading = reading

    def check(self) -> None:
        """Reports addresses that no subnet has, and those of two pods."""
        owners: dict[object, Pod] = {}
        for pod in self._pods:
            for address in pod.addresses:
                if not any(address in subnet for subnet in self._subnets):
                    known = ", ".join(map(str, self._subnets))
                    problem = f"its address {address} is in no subnet of the pods ({known})"
                    self._reading.fault(pod.at, pod.path, problem, "give theirs: --subnet CIDR")
                elif owners.setdefault(address, pod) is not pod:
                    problem = f"the pod {owners[address]} has its address {address} already"
                    self._reading.fault(pod.at, pod.path, problem, "leave out the one that is gone")

    def given(self, pod: Pod) -> list[str]:
        """The pod's addresses as its NIC has them, with the length of the subnet's prefix."""
        return [
            f"{address}/{subnet.prefixlen}"
            for address in pod.addresses
            for subnet in self._subnets
            if address in subnet
        ]

    def check_block(self, block: IpBlock) -> None:
        """Reports a block that cuts through the pods' subnets, where some pod's address is not known."""
        unknown = next((pod for pod in self._pods if not pod.addresses), None)
        if unknown is None:
            return
        for network in (block.cidr, *block.exceptions):
            if any(network.overlaps(subnet) and not _covers(network, subnet) for subnet in self._subnets):
                name = quoted(str(unknown))
                problem = f"{network} means some of the pods, and the address of {name} is not known"
                hint = "give the pods as they run, with status.podIP, or select them by labels"
                self._reading.fault(block.at, block.path, problem, hint)
                return


def _covers(network: IPNetwork, subnet: IPNetwork) -> bool:
    """Whether all of a subnet that overlaps with the network is in it."""
    return network.prefixlen <= subnet.prefixlen
