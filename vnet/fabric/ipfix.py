"""Flow records as IPFIX has them: values in, the bytes of messages out.

Source: RFC 7011 (messages), RFC 7012 and IANA's registry of information elements (numbers, sizes), RFC 7270
(forwardingStatus). All integers are in network byte order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from ipaddress import IPv4Address, IPv6Address

from vnet.base.drop import DropReason

VERSION = 10
TEMPLATES, OPTIONS_TEMPLATES = 2, 3
"""Set IDs (RFC 7011, section 3.3.2)."""
MESSAGE_BYTES = 1400
"""A message is one datagram that no network cuts (RFC 7011, section 10.3.3)."""
VARIABLE = 0xFFFF

Field = tuple[int, int]
"""Information element and size in bytes."""

_BEGIN: tuple[Field, ...] = ((152, 8), (153, 8))
"""flowStartMilliseconds, flowEndMilliseconds."""
_V4: tuple[Field, ...] = ((8, 4), (12, 4))
_V6: tuple[Field, ...] = ((27, 16), (28, 16))
_REST: tuple[Field, ...] = (
    (7, 2),  # sourceTransportPort
    (11, 2),  # destinationTransportPort
    (4, 1),  # protocolIdentifier
    (233, 1),  # firewallEvent
    (89, 1),  # forwardingStatus
    (136, 1),  # flowEndReason
    (10, 4),  # ingressInterface
    (14, 4),  # egressInterface
    (58, 2),  # vlanId
    (1, 8),  # octetDeltaCount
    (2, 8),  # packetDeltaCount
)
_REST_FORMAT = "HHBBBBIIHQQ"
_ICMP_V4, _ICMP_V6, _FLAGS = (32, 2), (139, 2), (6, 1)

FLOW_V4, FLOW_V6, DROP_V4, DROP_V6, INTERFACE, DOMAIN, METERING, EXPORTING = range(256, 264)
FIELDS: Mapping[int, tuple[Field, ...]] = {
    FLOW_V4: (*_BEGIN, *_V4, *_REST, _ICMP_V4),
    FLOW_V6: (*_BEGIN, *_V6, *_REST, _ICMP_V6),
    DROP_V4: (*_BEGIN, *_V4, *_REST, _ICMP_V4, _FLAGS),
    DROP_V6: (*_BEGIN, *_V6, *_REST, _ICMP_V6, _FLAGS),
}
"""By template."""
OPTIONS: Mapping[int, tuple[Field, ...]] = {
    INTERFACE: ((10, 4), (82, VARIABLE)),  # ingressInterface: interfaceName
    DOMAIN: ((149, 4), (300, VARIABLE)),  # observationDomainId: observationDomainName
    METERING: ((143, 4), (164, 8)),  # meteringProcessId: ignoredPacketTotalCount
    EXPORTING: ((144, 4), (165, 8)),  # exportingProcessId: notSentFlowTotalCount
}
"""By options template; the first field is the scope."""


class Event(IntEnum):
    """firewallEvent."""

    CREATED = 1
    DELETED = 2
    DENIED = 3
    UPDATE = 5


class End(IntEnum):
    """flowEndReason."""

    IDLE = 1
    ACTIVE = 2
    """It goes on; this is what it did since the last record."""
    ENDED = 3


FORWARDED, DROPPED = 64, 128
"""forwardingStatus, reason unknown."""
_STATUS = {
    DropReason.REJECTED: 129,  # ACL deny
    DropReason.NO_ROUTE: 131,
    DropReason.NO_DST: 131,  # unroutable
    DropReason.MTU: 133,  # fragmentation and DF set
    DropReason.TTL: 137,
    DropReason.RATE: 138,
    DropReason.STORM: 138,
    DropReason.REFUSAL_QUOTA: 138,  # policer
    DropReason.SPOOF_IP: 140,  # reverse path
    DropReason.NO_PORT: 142,
    DropReason.SAME_PORT: 142,  # bad output interface
}
_BY_RULE = range(DropReason.POLICY, DropReason.POLICY + 64)


def status(reason: DropReason) -> int:
    """The forwardingStatus nearest to a reason: of what a rule or a guard drops 130, ACL drop."""
    return _STATUS.get(reason, 130 if reason in _BY_RULE else DROPPED)


def domain(fabric: str) -> int:
    """The observation domain of a fabric: a number made of its name; 0 would stand for all of them."""
    return int.from_bytes(blake2b(fabric.encode(), digest_size=4).digest(), "big") or 1


@dataclass(frozen=True, slots=True)
class FlowRecord:
    """Packets of one direction. Times are milliseconds since 1970; `ingress` and `egress` are port numbers.

    `icmp` is type << 8 | code. `tcp_flags`, in one octet (RFC 7125, section 3), is None for what the
    switch let pass: it does not keep them.
    """

    start_ms: int
    end_ms: int
    source: IPv4Address | IPv6Address
    target: IPv4Address | IPv6Address
    protocol: int
    source_port: int
    target_port: int
    packets: int
    octets: int
    ingress: int
    egress: int
    vlan: int
    event: Event
    end: End
    status: int = FORWARDED
    icmp: int = 0
    tcp_flags: int | None = None

    @property
    def template(self) -> int:
        """The template that it is of."""
        if self.tcp_flags is None:
            return FLOW_V4 if self.source.version == 4 else FLOW_V6
        return DROP_V4 if self.source.version == 4 else DROP_V6

    def encode(self) -> bytes:
        """Its bytes, as the template says."""
        rest = struct.pack(
            f"!{_REST_FORMAT}H",
            self.source_port,
            self.target_port,
            self.protocol,
            self.event,
            self.status,
            self.end,
            self.ingress,
            self.egress,
            self.vlan,
            self.octets,
            self.packets,
            self.icmp,
        )
        times = struct.pack("!QQ", self.start_ms, self.end_ms)
        flags = b"" if self.tcp_flags is None else struct.pack("!B", self.tcp_flags)
        return times + self.source.packed + self.target.packed + rest + flags


@dataclass(frozen=True, slots=True)
class Named:
    """A name for a number: of an interface, or of the domain."""

    template: int
    number: int
    name: str

    def encode(self) -> bytes:
        """Number and name with its length (RFC 7011, section 7)."""
        name = self.name.encode()[:254]
        return struct.pack("!IB", self.number, len(name)) + name


@dataclass(frozen=True, slots=True)
class Losses:
    """What is missing: packets that were dropped and not told, or records that could not be sent."""

    template: int
    count: int

    def encode(self) -> bytes:
        """The process, of which there is one, and its count."""
        return struct.pack("!IQ", 1, self.count)


Record = FlowRecord | Named | Losses


def template_sets() -> bytes:
    """The sets that tell all templates."""
    plain = b"".join(_template(number, fields) for number, fields in FIELDS.items())
    options = b"".join(_options_template(number, fields) for number, fields in OPTIONS.items())
    return _set(TEMPLATES, plain) + _set(OPTIONS_TEMPLATES, options)


def _template(number: int, fields: Sequence[Field]) -> bytes:
    return struct.pack("!HH", number, len(fields)) + _fields(fields)


def _options_template(number: int, fields: Sequence[Field]) -> bytes:
    return struct.pack("!HHH", number, len(fields), 1) + _fields(fields)


def _fields(fields: Sequence[Field]) -> bytes:
    return b"".join(struct.pack("!HH", *field) for field in fields)


def _set(number: int, body: bytes) -> bytes:
    return struct.pack("!HH", number, 4 + len(body)) + body


@dataclass(slots=True)
class Encoder:
    """The messages of one observation domain. `sequence` counts data records that were made before."""

    domain: int
    sequence: int = 0

    def templates(self, now_s: int) -> bytes:
        """A message with all templates: to be sent first, and again every now and then."""
        return self._message(template_sets(), now_s, 0)

    def messages(self, records: Iterable[Record], now_s: int) -> Iterator[tuple[bytes, int]]:
        """Messages with the records, each with how many are in it; those of one template side by side."""
        sets: dict[int, list[bytes]] = {}
        size = 16
        for record in records:
            data = record.encode()
            more = len(data) + (0 if record.template in sets else 4)
            if size + more > MESSAGE_BYTES and sets:
                yield self._data(sets, now_s)
                sets, size = {}, 16
                more = len(data) + 4
            sets.setdefault(record.template, []).append(data)
            size += more
        if sets:
            yield self._data(sets, now_s)

    def _data(self, sets: Mapping[int, list[bytes]], now_s: int) -> tuple[bytes, int]:
        body = b"".join(_set(number, b"".join(records)) for number, records in sets.items())
        count = sum(map(len, sets.values()))
        return self._message(body, now_s, count), count

    def _message(self, body: bytes, now_s: int, records: int) -> bytes:
        header = struct.pack("!HHIII", VERSION, 16 + len(body), now_s, self.sequence, self.domain)
        self.sequence = (self.sequence + records) & 0xFFFFFFFF
        return header + body
