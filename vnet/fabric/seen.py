"""What was seen: who talked to whom, and what became of it, as one frozen value.

It comes from the history, which sums up what it observes by the minute: `packets` packets that agree in
everything but time and the client's port are one `Seen`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address


class Verdict(StrEnum):
    """What became of it. AUDITED: it passed, though a rule that is not enforced says no."""

    ALLOWED = "allowed"
    DENIED = "denied"
    AUDITED = "audited"


@dataclass(frozen=True, slots=True, order=True)
class DecidedBy:
    """The rule that decided, as the topology of that generation has it.

    `at` is `file:line`, `policy` and `rule` (`ingress 2`) are empty where no rule of a policy did (a default,
    a guard), `text` is the rule in words. `cookie` is that of its flows.
    """

    at: str
    policy: str
    rule: str
    text: str = ""
    cookie: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """Packets from one client to one server.

    `source` and `destination` are `VM.NIC` names, `internet`, `host`, None where the address is nobody's (or
    is not that NIC's); source is the client, also where its server's packet is what was lost. Addresses are
    None for what has none (no IP); the destination and the port are also None where too many were met in a
    minute to keep them apart. `protocol` is the IP protocol number, ICMP (1) and ICMPv6 (58) apart, None
    for what is not IP. `port` is the server's port; of ICMP the request's type; None for other protocols.

    `reason` is the name of a `DropReason`, "" for what passed. `by` is None when no flow decided, or when it
    cannot be told any more which. `packets` and `bytes` are of both directions for what passed, and what
    the switch reported for what was denied, of which it reports a bounded number a second: at least so many.
    `first` and `last` are in UTC; `generation` is that in force then.
    """

    source: str | None
    source_address: IPv4Address | IPv6Address | None
    destination: str | None
    destination_address: IPv4Address | IPv6Address | None
    network: str
    protocol: int | None
    port: int | None
    verdict: Verdict
    reason: str
    by: DecidedBy | None
    packets: int
    bytes: int
    first: datetime
    last: datetime
    generation: int
