"""Ports of NetworkPolicies as the language writes them, and the numbers behind names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vnet.topology.kubernetes.form import PORT_MAX
from vnet.topology.kubernetes.objects import Pod, PolicyPort


def is_named(port: PolicyPort) -> bool:
    """Whether it means a port of the server's containers by its name."""
    return isinstance(port.port, str)


def service(port: PolicyPort, number: int | None = None) -> str:
    """`80/tcp`, `8000-8999/udp`; all ports of the protocol if none is given.

    Args:
        number: what the name stands for, of a named port.
    """
    protocol = port.protocol.lower()
    if number is None and port.port is None:
        return f"1-{PORT_MAX}/{protocol}"
    first = port.port if number is None else number
    is_range = port.end is not None and port.end != first
    return f"{first}-{port.end}/{protocol}" if is_range else f"{first}/{protocol}"


def numbers(port: PolicyPort, pods: Iterable[Pod]) -> Mapping[int, tuple[Pod, ...]]:
    """What a named port means: each number with the pods that have it under this name; others have none."""
    assert isinstance(port.port, str), "it is named"
    found: dict[int, tuple[Pod, ...]] = {}
    for pod in pods:
        number = pod.ports.get((port.port, port.protocol))
        if number is not None:
            found[number] = (*found.get(number, ()), pod)
    return found
