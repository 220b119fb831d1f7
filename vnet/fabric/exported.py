"""Observations made into flow records: what flowed in both directions, what was dropped summed up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from vnet.capture.ends import ends_of
from vnet.capture.record import PacketRecord
from vnet.fabric.ipfix import End, Event, FlowRecord, status
from vnet.fabric.observed import Names
from vnet.fabric.scan import Change
from vnet.fabric.who import Directory, address
from vnet.openflow.conntrack import OVER
from vnet.openflow.fields import ICMP, ICMPV6
from vnet.policy.semantics import ECHO_REPLY, REQUEST_TYPE
from vnet.switch.connections import Tracked

MS_NS = 10**6
DROPS_KEPT = 10_000
"""Of drops that differ, between two messages; what is beyond is counted as not told."""

IPAddress = IPv4Address | IPv6Address


def flows(
    changes: Iterable[Change], directory: Directory | None, before_ns: int, clock_ns: int
) -> Iterator[FlowRecord]:
    """A record for each direction in which something flowed.

    Args:
        before_ns: CLOCK_MONOTONIC of the last look; clock_ns: realtime minus monotonic.
    """
    for change in changes:
        one = change.one
        start_ns = one.created_ns if change.is_new else max(one.created_ns, before_ns)
        span_ms = (start_ns + clock_ns) // MS_NS, (max(one.last_seen_ns, start_ns) + clock_ns) // MS_NS
        for back in (0, 1):
            if change.packets[back]:
                yield _flow(change, directory, span_ms, back)


def _flow(change: Change, directory: Directory | None, span_ms: tuple[int, int], back: int) -> FlowRecord:
    one = change.one
    ends = [
        (address(one.client, one.version), one.client_port, one.port),
        (address(one.server, one.version), one.server_port, _port(one, directory)),
    ]
    (source, source_port, ingress), (target, target_port, egress) = reversed(ends) if back else ends
    icmp = 0
    if one.protocol in (ICMP, ICMPV6):
        types = ECHO_REPLY if back else REQUEST_TYPE
        icmp = types[one.protocol] << 8
        source_port, target_port = 0, icmp  # where collectors look for it
    return FlowRecord(
        *span_ms,
        source,
        target,
        one.protocol,
        source_port,
        target_port,
        change.packets[back],
        change.octets[back],
        ingress,
        egress,
        one.zone,
        Event.DELETED if change.has_ended else Event.CREATED if change.is_new else Event.UPDATE,
        _end(change),
        icmp=icmp,
    )


def _end(change: Change) -> End:
    if not change.has_ended:
        return End.ACTIVE
    return End.ENDED if change.one.state in OVER else End.IDLE


def _port(one: Tracked, directory: Directory | None) -> int:
    end = directory.end(one.zone, address(one.server, one.version)) if directory else None
    return end.nic.port if end else 0


@dataclass(slots=True)
class _Sum:
    start_ms: int
    end_ms: int
    packets: int = 0
    octets: int = 0
    flags: int = 0


@dataclass(slots=True)
class Drops:
    """Reported drops, summed up until they are sent; `untold` counts those that found no room."""

    untold: int = 0
    _sums: dict[tuple[IPAddress, IPAddress, int, int, int, int, int, int], _Sum] = field(default_factory=dict)

    def take(self, names: Names, record: PacketRecord) -> None:
        """One more; what is not IP has no flow record."""
        ends = ends_of(record.data)
        if ends.source is None or ends.target is None or ends.protocol is None:
            return
        nic = names.directory.nic(record.port) if names.directory else None
        icmp = (ends.target_port or 0) << 8 if ends.protocol in (ICMP, ICMPV6) else 0
        target_port = icmp or ends.target_port or 0
        ports = ends.source_port or 0, target_port
        where = record.port, nic.vlan if nic else 0
        key = (ends.source, ends.target, ends.protocol, *ports, *where, status(record.reason))
        now_ms = record.time_ns // MS_NS
        known = self._sums.get(key)
        if known is None:
            if len(self._sums) >= DROPS_KEPT:
                self.untold += 1
                return
            known = self._sums[key] = _Sum(now_ms, now_ms)
        known.start_ms, known.end_ms = min(known.start_ms, now_ms), max(known.end_ms, now_ms)
        known.packets += 1
        known.octets += record.original_length
        known.flags |= ends.tcp_flags or 0

    def drain(self) -> Iterator[FlowRecord]:
        """What was summed up."""
        sums, self._sums = self._sums, {}
        for (source, target, protocol, sport, dport, port, vlan, why), one in sums.items():
            yield FlowRecord(
                one.start_ms,
                one.end_ms,
                source,
                target,
                protocol,
                sport,
                dport,
                one.packets,
                one.octets,
                port,
                0,
                vlan,
                Event.DENIED,
                End.ENDED,
                why,
                dport if protocol in (ICMP, ICMPV6) else 0,
                one.flags,
            )
