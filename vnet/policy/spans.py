"""Services as disjoint spans of ports, and spans as the value/mask pairs a flow can match."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vnet.openflow.fields import ETH_IPV4, ETH_IPV6, ICMP, ICMPV6, SCTP, TCP, UDP
from vnet.openflow.flow import Match, match
from vnet.policy.pipeline import SERVICE
from vnet.topology.model import Service

WITH_PORTS = (TCP, UDP, SCTP)
LAST_PORT = 0xFFFF
REGISTER_MASK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Ports `low…high` of one protocol; `protocol` None is everything. ICMP stands for ICMPv6 too."""

    protocol: int | None
    low: int = 0
    high: int = LAST_PORT


EVERYTHING = (Span(None),)


def spans(services: Iterable[Service]) -> tuple[Span, ...]:
    """The services as disjoint spans in ascending order, neighbours joined; none means everything."""
    by_protocol: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for service in services:
        if service.protocol is None:
            return EVERYTHING
        protocol = ICMP if service.protocol == ICMPV6 else service.protocol
        ported = protocol in WITH_PORTS and service.ports is not None
        by_protocol[protocol].append((service.ports or (0, 0)) if ported else (0, LAST_PORT))
    if not by_protocol:
        return EVERYTHING
    return tuple(
        Span(protocol, low, high)
        for protocol in sorted(by_protocol)
        for low, high in _joined(by_protocol[protocol])
    )


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(high, joined[-1][1])
        else:
            joined.append((low, high))
    return joined


def covers(wide: tuple[Span, ...], narrow: tuple[Span, ...]) -> bool:
    """Whether `wide` takes every packet that `narrow` takes."""
    return all(any(_within(span, outer) for outer in wide) for span in narrow)


def _within(span: Span, outer: Span) -> bool:
    if outer.protocol is None:
        return True
    return span.protocol == outer.protocol and outer.low <= span.low and span.high <= outer.high


def masks(low: int, high: int) -> Iterator[tuple[int, int]]:
    """The fewest value/mask pairs (32-bit masks) that together take exactly `low…high`."""
    while low <= high:
        size = low & -low or 1 << 16
        while low + size - 1 > high:
            size >>= 1
        yield low, REGISTER_MASK & ~(size - 1)
        low += size


def matches(span: Span, families: frozenset[int]) -> Iterator[Match]:
    """The matches that take the span in the given IP versions; ports are in the service register."""
    if span.protocol is None:
        yield Match()
        return
    for version in sorted(families):
        icmp = ICMPV6 if version == 6 else ICMP
        protocol = icmp if span.protocol == ICMP else span.protocol
        eth_type = ETH_IPV6 if version == 6 else ETH_IPV4
        if (span.low, span.high) == (0, LAST_PORT):
            yield match(eth_type=eth_type, ip_proto=protocol)
            continue
        for ports in masks(span.low, span.high):
            yield match(eth_type=eth_type, ip_proto=protocol, **{SERVICE: ports})
