"""Services as disjoint spans of ports, and spans as matches on the service register."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vnet.openflow.fields import ICMP, ICMPV6, SCTP, TCP, UDP
from vnet.topology.model import Service

NARROWED = (TCP, UDP, SCTP, ICMP)
"""Protocols whose spans are of ports; of ICMP they are types."""
LAST_PORT = 0xFFFF
PROTOCOL_MASK = 0xFFFF0000


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
        narrowed = service.ports if protocol in NARROWED else None
        by_protocol[protocol].append(narrowed or (0, LAST_PORT))
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
    """Few value/mask pairs over 16 bits that together take exactly `low…high`, in aligned blocks.

    Blocks are powers of four, not two: a range becomes up to half as many flows again, but a table
    needs half as many different masks, and a switch searches mask by mask.
    """
    while low <= high:
        size = 1
        while not low % (size * 4) and low + size * 4 - 1 <= high:
            size *= 4
        yield low, LAST_PORT & ~(size - 1)
        low += size


def packed(protocol: int, port: int = 0) -> int:
    """What the service register holds: the protocol (ICMP for ICMPv6 too) over the server's port."""
    return protocol << 16 | port


def matches(span: Span) -> Iterator[tuple[int, int] | None]:
    """The (value, mask) pairs of the service register that take the span; None takes everything."""
    if span.protocol is None:
        yield None
        return
    for port, mask in masks(span.low, span.high):
        yield packed(span.protocol, port), PROTOCOL_MASK | mask
