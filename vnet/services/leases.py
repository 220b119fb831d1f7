"""What dnsmasq has handed out, read from its lease file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address


@dataclass(frozen=True, slots=True)
class Lease:
    """One address that somebody has asked for. `expires_s` is since 1970, None for never.

    `client` is the MAC in IPv4, the DUID in IPv6, as text.
    """

    address: IPv4Address | IPv6Address
    expires_s: int | None
    client: str
    name: str


def read(text: str) -> Iterator[Lease]:
    """The leases of a file; what is half written is left out.

    Source: dnsmasq 2.90, src/lease.c, lease_update_file: `EXPIRES MAC ADDRESS NAME CLIENT-ID`, after a line
    `duid ...` in IPv6 `EXPIRES IAID ADDRESS NAME DUID`. An expiry of 0 is never; no name is `*`.
    """
    for line in text.splitlines():
        words = line.split()
        if len(words) != 5 or not words[0].isdecimal():
            continue
        try:
            address = ip_address(words[2])
        except ValueError:
            continue
        client = words[1] if address.version == 4 else words[4]
        yield Lease(address, int(words[0]) or None, client, "" if words[3] == "*" else words[3])
