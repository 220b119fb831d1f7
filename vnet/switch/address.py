"""Where controllers are and where the switch listens for them, in Open vSwitch's notation (ovs-vsctl(8)).

`tcp:HOST[:PORT]`, `ssl:HOST[:PORT]` and `unix:PATH` are called by the switch; on `ptcp:[PORT][:HOST]`,
`pssl:[PORT][:HOST]` and `punix:PATH` it listens. HOST is an IP address, IPv6 in brackets.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address

from vnet.base.errors import InputError

OPENFLOW_PORT = 6653
"""The port that IANA assigned to OpenFlow."""

LOOPBACK = "127.0.0.1"
"""Where a listener without HOST is bound: unlike Open vSwitch's, not to all addresses."""

_FORMS = {
    "tcp": "tcp:HOST[:PORT]",
    "ssl": "ssl:HOST[:PORT]",
    "unix": "unix:PATH",
    "ptcp": "ptcp:[PORT][:HOST]",
    "pssl": "pssl:[PORT][:HOST]",
    "punix": "punix:PATH",
}


class Transport(Enum):
    """What carries the protocol."""

    TCP = "tcp"
    TLS = "ssl"
    UNIX = "unix"


@dataclass(frozen=True, slots=True)
class Address:
    """`passive`: the switch listens there. `path` counts for UNIX, `host` and `port` for the others."""

    transport: Transport
    passive: bool
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        word = "p" * self.passive + self.transport.value
        host = f"[{self.host}]" if ":" in self.host else self.host
        if self.transport is Transport.UNIX:
            return f"{word}:{self.path}"
        return f"{word}:{self.port}:{host}" if self.passive else f"{word}:{host}:{self.port}"


def parse(text: str) -> Address:
    """Raises: InputError in words for what is no address."""
    word, colon, rest = text.partition(":")
    if not colon or word not in _FORMS:
        raise InputError(f"{text!r} is no address: write {', '.join(_FORMS.values())}")
    passive, transport = word.startswith("p"), Transport(word.removeprefix("p"))
    if transport is Transport.UNIX:
        return Address(transport, passive, path=_path(text, word, rest))
    port, host = _listening(rest) if passive else _calling(rest)
    if not passive and not host:
        raise _bad(text, word, "the host is missing")
    return Address(transport, passive, _host(text, word, host or LOOPBACK), _port(text, word, port, passive))


def _listening(rest: str) -> tuple[str, str]:
    port, _, host = rest.partition(":")
    return port, host


def _calling(rest: str) -> tuple[str, str]:
    """(port, host); the colons of an IPv6 address are in brackets."""
    if rest.startswith("["):
        host, bracket, port = rest.partition("]")
        return port.removeprefix(":"), host + bracket
    host, _, port = rest.partition(":")
    return port, host


def _path(text: str, word: str, path: str) -> str:
    if not path:
        raise _bad(text, word, "the path is missing")
    return path


def _host(text: str, word: str, host: str) -> str:
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        return str(ip_address(bare))
    except ValueError:
        raise _bad(text, word, f"{host!r} is no IP address") from None


def _port(text: str, word: str, port: str, passive: bool) -> int:
    """0 lets the kernel choose where the switch listens."""
    if not port:
        return OPENFLOW_PORT
    if not (port.isascii() and port.isdigit()) or not (0 if passive else 1) <= int(port) <= 0xFFFF:
        raise _bad(text, word, f"{port!r} is no port number")
    return int(port)


def _bad(text: str, word: str, why: str) -> InputError:
    return InputError(f"{text!r}: {why}: write {_FORMS[word]}")
