"""IP protocols: their numbers (IANA, Assigned Internet Protocol Numbers) and what they are called here."""

from __future__ import annotations

from collections.abc import Mapping

TCP, UDP, SCTP, ICMP, ICMPV6 = 6, 17, 132, 1, 58
PORT_PROTOCOLS: Mapping[int, str] = {TCP: "tcp", UDP: "udp", SCTP: "sctp"}
"""Those with ports, as in `443/tcp` and in names of match fields."""
PROTOCOLS: Mapping[int, str] = {**PORT_PROTOCOLS, ICMP: "icmp", ICMPV6: "icmpv6"}
SERVICE_PROTOCOLS: Mapping[int, str] = {**PROTOCOLS, ICMPV6: "icmp"}
"""As policies name them: their `icmp` means ICMPv6 too."""


def protocol_name(number: int) -> str:
    """`tcp`; `ip-47` for one without a name here."""
    return PROTOCOLS.get(number, f"ip-{number}")
