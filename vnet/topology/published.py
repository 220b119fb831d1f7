"""How published ports are read: `8443:443/tcp`, `0.0.0.0:8443:443/tcp`, `[::]:8443:443/tcp`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address

from vnet.base.protocols import TCP, UDP
from vnet.topology.model import IPAddress
from vnet.topology.reading import quoted
from vnet.topology.shape import Refused
from vnet.topology.yaml import Scalar

EXPECTED = 'a port such as "8443:443/tcp" or "0.0.0.0:8443:443/tcp"'
PATTERN = r"^((\[[0-9A-Fa-f:.]+\]|[0-9.]+):)?[0-9]+:[0-9]+/(tcp|udp)$"
LOOPBACK = IPv4Address("127.0.0.1")
PORT_MAX = 65535
_PROTOCOLS = {"tcp": TCP, "udp": UDP}
_SHAPE = re.compile(r"(?:(?:\[(.+)\]|([^:\[\]]+)):)?([0-9]+):([0-9]+)/([a-z]+)")


@dataclass(frozen=True, slots=True)
class PortText:
    """One port as the file has it; see `model.Published`."""

    listen: IPAddress
    port: int
    guest_port: int
    protocol: int


def port(scalar: Scalar) -> PortText:
    """A published port."""
    found = _SHAPE.fullmatch(scalar.text)
    if found is None or found[5] not in _PROTOCOLS:
        raise Refused(hint=_hint(scalar.text))
    numbers = int(found[3]), int(found[4])
    for number in numbers:
        if not 0 < number <= PORT_MAX:
            raise Refused(f"expected a port from 1 to {PORT_MAX}, found {number}")
    return PortText(_listen(found[1] or found[2]), *numbers, _PROTOCOLS[found[5]])


def _listen(word: str | None) -> IPAddress:
    if word is None:
        return LOOPBACK
    try:
        listen = ip_address(word)
    except ValueError:
        raise Refused(f"{quoted(word)} is no IP address") from None
    if listen.version == 6 and listen.is_loopback:
        hint = f'use "{LOOPBACK}", or an address that others reach too'
        raise Refused("nothing can be published at ::1: Linux sends nothing from it to another device", hint)
    if listen.is_multicast:
        raise Refused(f"{listen} is a multicast address, and nobody can connect to one")
    return listen


def _hint(word: str) -> str:
    if re.fullmatch(r"[0-9]+:[0-9]+", word):
        return f'name the protocol: did you mean "{word}/tcp"?'
    if re.fullmatch(r"[0-9]+/(tcp|udp)", word):
        return f'did you mean "{word.partition("/")[0]}:{word}"?'
    return ""
