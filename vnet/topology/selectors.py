"""How selectors, ports and claims are read: the parts of the language that are written in one word."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from vnet.base.errors import InputError
from vnet.base.protocols import ICMP, PORT_PROTOCOLS
from vnet.topology.model import ClaimKind, PeerKind, Service
from vnet.topology.reading import quoted, suggestion
from vnet.topology.shape import Refused
from vnet.topology.values import NAME_PATTERN, is_address, parse_network
from vnet.topology.yaml import Scalar

CLAIM_PATTERN = r"^(allow|deny|never|only)\s+\S+\s*->\s*\S+$"

_PROTOCOLS = {name: number for number, name in PORT_PROTOCOLS.items()}
_PORT_MAX = 65535
_ECHO_REQUEST = {"icmp": 8, "icmpv6": 128}
"""The types that open a connection (RFC 792, RFC 4443, section 4.1)."""
PLAIN_PORTS_PATTERN = r"^([0-9]+(-[0-9]+)?/(tcp|udp|sctp)|icmp(:(8|echo-request))?|icmpv6:128|any)$"

ANY_SERVICE = Service(None, None, "any")
ICMP_SERVICE = Service(ICMP, None, "icmp")
"""ICMP stands for ICMP and ICMPv6 alike."""


def _service(port: int, protocol: str) -> Service:
    return Service(_PROTOCOLS[protocol], (port, port), f"{port}/{protocol}")


BUILT_IN_SERVICES: dict[str, tuple[Service, ...]] = {
    "any": (ANY_SERVICE,),
    "icmp": (ICMP_SERVICE,),
    "ssh": (_service(22, "tcp"),),
    "dns": (_service(53, "udp"), _service(53, "tcp")),
    "http": (_service(80, "tcp"),),
    "https": (_service(443, "tcp"),),
    "ntp": (_service(123, "udp"),),
}


# ---- selectors -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Atom:
    """A selector as it is written; `offset` is how many columns behind its value's it stands."""

    kind: PeerKind
    value: str
    offset: int = 0


RESERVED_GROUPS = ("any", "internet", "host", "vm", "network")
"""Words with a meaning of their own in a selector."""
_WORDS = {kind.value: kind for kind in (PeerKind.ANY, PeerKind.INTERNET, PeerKind.HOST)}
_PREFIXES = {"vm": PeerKind.VM, "network": PeerKind.NETWORK}
PEER_EXPECTED = 'a group, "vm:NAME", "network:NAME", a CIDR, "any", "internet" or "host"'


def peer(scalar: Scalar) -> Atom:
    """One selector of a policy."""
    return parse_peer(scalar.text, 0)


def parse_peer(word: str, offset: int) -> Atom:
    """The selector that a word is. Raises Refused with `offset` as the place of the caret."""
    if word in _WORDS:
        return Atom(_WORDS[word], word, offset)
    if "/" in word or is_address(word):
        problem = f"expected {PEER_EXPECTED}, found {quoted(word)}"
        return Atom(PeerKind.CIDR, str(parse_network(word, problem, offset)), offset)
    prefix, colon, name = word.partition(":")
    if colon and prefix not in _PREFIXES:
        hint = f'a group needs no prefix: did you mean "{name}"?' if prefix == "group" else ""
        raise Refused(f"expected {PEER_EXPECTED}, found {quoted(word)}", hint, offset)
    kind, value = (_PREFIXES[prefix], name) if colon else (PeerKind.GROUP, word)
    if not re.fullmatch(NAME_PATTERN, value):
        raise Refused(f"expected {PEER_EXPECTED}, found {quoted(word)}", offset=offset)
    return Atom(kind, value, offset)


# ---- ports and services ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ServiceName:
    """A service by name, built in or declared under `services`; `offset` as in Atom."""

    name: str
    offset: int = 0


Ports = Service | ServiceName
PORTS_EXPECTED = "ports such as 443/tcp or 8000-8999/udp, icmp, any or the name of a service"
_KINDS = "errors about a connection and answers always pass, and what else ICMP has is dropped"


def ports(scalar: Scalar) -> Ports:
    """One item of a rule's `ports`."""
    return parse_ports(scalar.text, 0)


def plain_ports(scalar: Scalar) -> Service:
    """One item of a declared service: no other service's name."""
    found = parse_ports(scalar.text, 0)
    if isinstance(found, Service):
        return found
    if found.name in ("icmp", "any"):
        return BUILT_IN_SERVICES[found.name][0]
    raise Refused(hint="a service cannot contain another one" if found.name in BUILT_IN_SERVICES else "")


def service_of(word: str) -> Service:
    """What a command is given: ports, or the name of a built-in service, of several ports its first.

    Raises: InputError.
    """
    try:
        found = parse_ports(word, 0)
    except Refused as refused:
        raise InputError(f"{word}: {refused.problem}{'; ' if refused.hint else ''}{refused.hint}") from None
    if not isinstance(found, ServiceName):
        return found
    if found.name not in BUILT_IN_SERVICES:
        raise InputError(f"{word}: write ports such as 443/tcp, or one of {', '.join(BUILT_IN_SERVICES)}")
    return BUILT_IN_SERVICES[found.name][0]


def parse_ports(word: str, offset: int) -> Ports:
    """Ports or a service's name. Raises Refused with `offset` as the place of the caret."""
    problem = f"expected {PORTS_EXPECTED}, found {quoted(word)}"
    found = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?(?:/(.*))?", word)
    family, colon, kind = word.partition(":")
    if colon and family in _ECHO_REQUEST:
        return _echo(family, kind, offset)
    if not found:
        if word in _PROTOCOLS:
            raise Refused(problem, f'all of them: did you mean "1-{_PORT_MAX}/{word}"?', offset)
        if not re.fullmatch(NAME_PATTERN, word):
            raise Refused(problem, offset=offset)
        return ServiceName(word, offset)
    if found[3] is None:
        raise Refused(problem, f'name the protocol: did you mean "{word}/tcp" or "{word}/udp"?', offset)
    if found[3] not in _PROTOCOLS:
        raise Refused(f"expected the protocol tcp, udp or sctp, found {quoted(found[3])}", offset=offset)
    first, last = int(found[1]), int(found[2] or found[1])
    if not 1 <= first <= _PORT_MAX or not 1 <= last <= _PORT_MAX:
        raise Refused(f"expected port numbers from 1 to {_PORT_MAX}, found {quoted(word)}", offset=offset)
    if first > last:
        hint = f'did you mean "{last}-{first}/{found[3]}"?'
        raise Refused(f"the range {quoted(word)} ends before it begins", hint, offset)
    return Service(_PROTOCOLS[found[3]], (first, last), _range_text(first, last, found[3]))


def _echo(family: str, kind: str, offset: int) -> Service:
    """The request of this type; by its name over both IPv4 and IPv6."""
    number = _ECHO_REQUEST[family]
    if kind == "echo-request" and family == "icmp":
        return replace(ICMP_SERVICE, text="icmp:echo-request")
    if kind in (str(number), "echo-request"):
        return Service(ICMP, (number, number), f"{family}:{number}")
    problem = f"only echo requests open a connection: expected {family}:{number}, found {quoted(kind)}"
    raise Refused(problem, _KINDS, offset)


def _range_text(first: int, last: int, protocol: str) -> str:
    return f"{first}/{protocol}" if first == last else f"{first}-{last}/{protocol}"


# ---- claims ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClaimText:
    """One line of `verify`, names not yet looked up."""

    kind: ClaimKind
    source: Atom
    target: Atom
    ports: Ports | None
    text: str


CLAIM_EXPECTED = '"allow|deny A -> B[:PORT/PROTO]", "never A -> B" or "only A -> B[:PORT/PROTO]"'
_CLAIM = re.compile(r"\s*(?P<verb>\S+)\s+(?P<source>\S+?)\s*->\s*(?P<target>\S+)\s*")
# An IPv6 CIDR and `vm:NAME` have colons of their own, so they are tried before a bare word.
_TARGET = re.compile(r"(?P<peer>[0-9A-Fa-f:.]+/[0-9]+|(?:vm|network):[^:]*|[^:]*)(?::(?P<ports>.*))?")


def claim(scalar: Scalar) -> ClaimText:
    """One line of `verify`."""
    found = _CLAIM.fullmatch(scalar.text)
    if not found:
        raise Refused(hint="" if "->" in scalar.text else 'put "->" between the two sides')
    kind = _claim_kind(found["verb"], found.start("verb"))
    source = parse_peer(found["source"], found.start("source"))
    target, wanted = _parse_target(found["target"], found.start("target"))
    if kind is ClaimKind.NEVER and wanted is not None:
        hint = '"never" means no port at all: remove the port, or write "deny"'
        raise Refused('"never" takes no port', hint, found.start("target"))
    return ClaimText(
        kind,
        replace(source, offset=_columns(scalar, source.offset)),
        replace(target, offset=_columns(scalar, target.offset)),
        _placed(wanted, scalar),
        " ".join(scalar.text.split()),
    )


def _placed(wanted: Ports | None, scalar: Scalar) -> Ports | None:
    if isinstance(wanted, ServiceName):
        return replace(wanted, offset=_columns(scalar, wanted.offset))
    return wanted


def _columns(scalar: Scalar, offset: int) -> int:
    return scalar.inline - scalar.column + offset if scalar.inline else 0


def _claim_kind(verb: str, offset: int) -> ClaimKind:
    kinds = {kind.value: kind for kind in ClaimKind}
    if verb not in kinds:
        raise Refused(
            f"expected allow, deny, never or only, found {quoted(verb)}", suggestion(verb, kinds), offset
        )
    return kinds[verb]


def _parse_target(word: str, offset: int) -> tuple[Atom, Ports | None]:
    if is_address(word):
        return parse_peer(word, offset), None
    found = _TARGET.fullmatch(word)
    assert found is not None, "the last alternative matches any word"
    wanted = None if found["ports"] is None else parse_ports(found["ports"], offset + found.start("ports"))
    return parse_peer(found["peer"], offset), wanted
