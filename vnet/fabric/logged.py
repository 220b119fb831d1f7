"""What `log: true` tells: sightings of the switch, made into records by who declared the fabric.

A sighting is one packet: the first of a connection that rules allow, or one that a rule refuses. It names
rules by the low half of their cookies. A record names policy, rule and line, and both ends.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from vnet.base.protocols import SERVICE_PROTOCOLS
from vnet.fabric.declared import Declared
from vnet.openflow import cookie
from vnet.openflow.fields import ICMP, ICMPV6, SCTP, TCP, UDP
from vnet.openflow.message import PacketIn
from vnet.openflow.packet import Malformed, Packet, parse
from vnet.policy.endpoint import endpoints
from vnet.policy.origin import Lets
from vnet.policy.outside import Outside, of_fabric
from vnet.policy.pipeline import LOGGED_BY

REFERENCE_MASK = 0xFFFFFFFF
PORTS = {TCP: ("tcp_src", "tcp_dst"), UDP: ("udp_src", "udp_dst"), SCTP: ("sctp_src", "sctp_dst")}
TYPES = {ICMP: "icmpv4_type", ICMPV6: "icmpv6_type"}


class Verdict(StrEnum):
    """What became of the packet. AUDIT: it passed, though a rule that is not enforced says no."""

    ALLOW = "allow"
    DENY = "deny"
    REJECT = "reject"
    AUDIT = "audit"


@dataclass(frozen=True, slots=True)
class Sighting:
    """One packet that rules want logged.

    `cookie` is that of the flow that told of it, `references` the low halves of the rules' cookies.
    `time_ns` is since 1970, `port` the one it came in by, `data` its first bytes with their tag, `length` its
    size. `is_reply`: the server of its connection sent it.
    """

    time_ns: int
    port: int
    cookie: int
    references: tuple[int, ...]
    data: bytes
    length: int
    is_reply: bool = False


def sighting(packet: PacketIn, time_ns: int) -> Sighting | None:
    """A packet that was sent to the controller, None if not for the log."""
    if not cookie.is_logged(packet.cookie):
        return None
    by = (packet.match.get(register) for register in LOGGED_BY.values())
    references = tuple(found[0] for found in by if found)
    port = (packet.match.get("in_port") or (0, 0))[0]
    return Sighting(time_ns, port, packet.cookie, references, packet.frame, packet.total_len)


@dataclass(frozen=True, slots=True)
class Rule:
    """Which rule it was; what is not known is empty, `verdict` None. No rule, no policy: `text` says why."""

    verdict: Verdict | None = None
    policy: str = ""
    rule: str = ""
    at: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class End:
    """One end of a connection: the VM's name, empty for none of the fabric's, and the address it used.

    `port` is 0 where the protocol has none.
    """

    vm: str = ""
    address: IPv4Address | IPv6Address | None = None
    port: int = 0


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One line of the log: a packet, or `count` of them that differ in nothing but their client's port.

    `is_lost`: of `count` packets nothing is known but the rule, and of some the client. `count` None: an
    unknown number.
    """

    time_ns: int
    rule: Rule
    client: End = End()
    server: End = End()
    protocol: str = ""
    icmp_type: int | None = None
    is_reply: bool = False
    count: int | None = 1
    is_lost: bool = False

    @property
    def alike(self) -> LogRecord:
        """The same for all packets that one line may stand for."""
        return replace(self, time_ns=0, client=replace(self.client, port=0))

    def plain(self) -> Mapping[str, Any]:
        """The fields of `vnet policy log -o json`; what is not known is null."""
        return {
            "time": stamp(self.time_ns),
            "verdict": self.rule.verdict,
            "policy": self.rule.policy or None,
            "rule": self.rule.rule or None,
            "at": self.rule.at or None,
            "text": self.rule.text or None,
            "client": self.client.vm or None,
            "client_address": _text(self.client.address),
            "client_port": self.client.port or None,
            "server": self.server.vm or None,
            "server_address": _text(self.server.address),
            "server_port": self.server.port or None,
            "protocol": self.protocol or None,
            "icmp_type": self.icmp_type,
            "reply": self.is_reply,
            "count": self.count,
            "lost": self.is_lost,
        }

    def json(self) -> str:
        """One line, as it is kept and printed."""
        return json.dumps(self.plain(), ensure_ascii=False, separators=(",", ":"))


def _text(address: IPv4Address | IPv6Address | None) -> str | None:
    return None if address is None else str(address)


def stamp(time_ns: int) -> str:
    """A time as RFC 3339 has it, in UTC, to the microsecond."""
    seconds, rest_ns = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest_ns // 1000:06d}Z"


@dataclass(frozen=True, slots=True)
class Names:
    """What sightings are named by: rules by reference, VMs by port, and by network and address."""

    rules: Mapping[int, Rule] = field(default_factory=dict)
    vms: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    """By port: VM and network."""
    addresses: Mapping[tuple[str, IPv4Address | IPv6Address], str] = field(default_factory=dict)
    outside: Outside | None = None
    """Whoever is not of the fabric is `internet` or `host`."""

    def rule(self, reference: int) -> Rule:
        """The rule, as well as it is known."""
        return self.rules.get(reference & REFERENCE_MASK, Rule())

    def records(self, seen: Sighting) -> tuple[LogRecord, ...]:
        """One record for each rule that wants it told."""
        packet = _read(seen)
        vm, network = self.vms.get(seen.port, ("", ""))
        sender, receiver = self._ends(packet, vm, network)
        client, server = (receiver, sender) if seen.is_reply else (sender, receiver)
        number = packet.get("ip_proto") if packet else None
        kind = packet.get(TYPES[number]) if packet and number in TYPES else None
        protocol = "" if number is None else SERVICE_PROTOCOLS.get(number, f"ip-{number}")
        return tuple(
            LogRecord(
                seen.time_ns, self.rule(reference), client, server, protocol, kind, is_reply=seen.is_reply
            )
            for reference in seen.references
        )

    def _ends(self, packet: Packet | None, vm: str, network: str) -> tuple[End, End]:
        if packet is None:
            return End(vm), End()
        source, target = _addresses(packet)
        ports = PORTS.get(packet.get("ip_proto") or 0, ("", ""))
        source_port, target_port = (packet.get(name) or 0 for name in ports)
        receiver = self._owner(network, target) if target is not None else ""
        vm = vm or (self.outside.who(source) if self.outside and source is not None else "")
        return End(vm, source, source_port), End(receiver, target, target_port)

    def _owner(self, network: str, address: IPv4Address | IPv6Address) -> str:
        """Who of the sender's network has an address, or outside; of any, if the sender is in none."""
        near = self.addresses.get((network, address))
        others = (vm for (_, other), vm in self.addresses.items() if other == address and not network)
        return near or next(others, self.outside.who(address) if self.outside else "")


def _read(seen: Sighting) -> Packet | None:
    """The packet, of which only the first bytes are there."""
    missing = max(0, seen.length - len(seen.data))
    try:
        return parse(seen.data + bytes(missing))
    except Malformed:
        return None


def _addresses(
    packet: Packet,
) -> tuple[IPv4Address | IPv6Address | None, IPv4Address | IPv6Address | None]:
    for kind, names in ((IPv4Address, ("ipv4_src", "ipv4_dst")), (IPv6Address, ("ipv6_src", "ipv6_dst"))):
        source, target = map(packet.get, names)
        if source is not None and target is not None:
            return kind(source), kind(target)
    return None, None


def names(provenance: Mapping[int, Mapping[str, str]], declared: Declared | None) -> Names:
    """The names of a generation; without what was declared only those of the rules."""
    rules = {
        number & REFERENCE_MASK: Rule(_verdict(number, texts), *(texts[word] for word in _RULE))
        for number, texts in provenance.items()
        if cookie.is_logged(number)
    }
    if declared is None:
        return Names(rules)
    vms = {nic.port: (nic.vm, nic.network) for nic in declared.inventory.nics}
    ends = endpoints(declared.topology, declared.inventory)
    outside = of_fabric(declared.topology, declared.inventory)
    return Names(rules, vms, {(end.nic.network, end.address): end.vm.name for end in ends}, outside)


_RULE = ("policy", "rule", "at", "text")


def _verdict(number: int, texts: Mapping[str, str]) -> Verdict:
    if texts.get("lets") == Lets.AUDITED.value:
        return Verdict.AUDIT
    if not number >> 48 & cookie.REASON_MASK:
        return Verdict.ALLOW
    return Verdict.REJECT if cookie.reason(number).name == "REJECTED" else Verdict.DENY
