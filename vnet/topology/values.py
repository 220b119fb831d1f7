"""How the scalars of the language are read: pure functions from a Scalar to a value, or Refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface, ip_address, ip_interface
from typing import TypeVar

from vnet.topology.model import ClaimKind, IPInterface, IPNetwork, PeerKind, Service
from vnet.topology.reading import quoted, suggestion
from vnet.topology.shape import Refused, later
from vnet.topology.yaml import Scalar

T = TypeVar("T")

NAME_MAX = 63
"""The length of a DNS label (RFC 1035, 2.3.4)."""
NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
NAME_EXPECTED = 'a name of lowercase letters, digits and "-"'
IFNAME_PATTERN = r"^[a-z][a-z0-9]*$"
IFNAME_MAX = 15
"""IFNAMSIZ - 1 (linux/if.h)."""
CIDR_PATTERN = r"^[0-9A-Fa-f:.]+/[0-9]+$"
MAC_PATTERN = r"^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$"
MEMORY_PATTERN = r"^[0-9]+(\.[0-9]+)?([KMGT](iB|i)?)$"
CLAIM_PATTERN = r"^(allow|deny|never|only)\s+\S+\s*->\s*\S+$"

ICMP, TCP, UDP = 1, 6, 17
"""Protocol numbers (IANA). ICMP stands for ICMP and ICMPv6 alike."""
_PROTOCOLS = {"tcp": TCP, "udp": UDP}
_PORT_MAX = 65535

ANY_SERVICE = Service(None, None, "any")
ICMP_SERVICE = Service(ICMP, None, "icmp")


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


# ---- text, names, numbers --------------------------------------------------------------------


def text(scalar: Scalar) -> str:
    """Free text; a number or a boolean is taken as it is written."""
    return scalar.text


def string(scalar: Scalar) -> str:
    """Text that is not a number or boolean by accident."""
    if not isinstance(scalar.value, str):
        raise Refused(hint="quote it to make it text")
    return scalar.text


def name_of(maximum: int) -> Callable[[Scalar], str]:
    """A DNS label of at most `maximum` characters."""

    def parse(scalar: Scalar) -> str:
        word = scalar.text
        if isinstance(scalar.value, bool | float) or not re.fullmatch(NAME_PATTERN, word):
            legal = re.sub(r"[^a-z0-9-]+", "-", word.lower()).strip("-")
            raise Refused(hint=f'did you mean "{legal}"?' if legal and legal != word else "")
        if len(word) > maximum:
            raise Refused(f"the name is {len(word)} characters long, at most {maximum} are possible")
        return word

    return parse


def interface_name(scalar: Scalar) -> str:
    """The name of a NIC inside the guest."""
    if not re.fullmatch(IFNAME_PATTERN, scalar.text) or len(scalar.text) > IFNAME_MAX:
        raise Refused
    return scalar.text


def integer_from(low: int, high: int) -> Callable[[Scalar], int]:
    """A whole number in an inclusive range."""

    def parse(scalar: Scalar) -> int:
        value = scalar.value
        if isinstance(value, bool) or not isinstance(value, int):
            raise Refused(hint=_unquote_hint(scalar))
        if not low <= value <= high:
            raise Refused
        return value

    return parse


def _unquote_hint(scalar: Scalar) -> str:
    is_quoted_number = isinstance(scalar.value, str) and scalar.text.isdecimal()
    return "remove the quotes" if is_quoted_number else ""


def boolean(scalar: Scalar) -> bool:
    """true or false; YAML 1.1's yes, no, on and off are text."""
    if not isinstance(scalar.value, bool):
        truth = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(scalar.text.lower())
        raise Refused(hint=f'did you mean "{truth}"?' if truth else "")
    return scalar.value


def one_of(values: dict[str, T], coming: tuple[str, ...] = ()) -> Callable[[Scalar], T]:
    """One of a few words; `coming` are words of the language that this version does not have."""

    def parse(scalar: Scalar) -> T:
        if scalar.text in coming:
            raise Refused(later(quoted(scalar.text)))
        if scalar.text not in values:
            raise Refused(hint=suggestion(scalar.text, values))
        return values[scalar.text]

    return parse


def image(scalar: Scalar) -> str:
    """The name of a guest image."""
    if scalar.text != "micro":
        raise Refused(later(f"the image {quoted(scalar.text)}"), 'the only image is "micro"')
    return scalar.text


_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
MEMORY_MIN = 32 << 20
MEMORY_MAX = 4 << 40


def memory(scalar: Scalar) -> int:
    """An amount of memory in bytes; units are powers of 1024, as QEMU and Compose count."""
    word = scalar.text
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([KMGT])(?:iB|i)?", word)
    if not found:
        raise Refused(hint=_memory_hint(word))
    size = float(found[1]) * _UNITS[found[2]]
    if not MEMORY_MIN <= size <= MEMORY_MAX:
        raise Refused(f"expected between 32M and 4T of memory, found {quoted(word)}")
    if size % (1 << 20):
        raise Refused(f"expected a whole number of MiB, found {quoted(word)}")
    return int(size)


def _memory_hint(word: str) -> str:
    if re.fullmatch(r"[0-9]+", word):
        return f'give the unit: did you mean "{word}M"?'
    found = re.fullmatch(r"([0-9.]+)\s*([kmgt])(i?b?)", word, re.IGNORECASE)
    return f'did you mean "{found[1]}{found[2].upper()}"?' if found else ""


# ---- addresses -------------------------------------------------------------------------------


def network(scalar: Scalar) -> IPNetwork:
    """A CIDR without host bits."""
    return _parse_network(scalar.text, "", 0)


def _parse_network(word: str, problem: str, offset: int) -> IPNetwork:
    interface = _parse_interface(word, problem, offset)
    found = interface.network
    if interface.ip != found.network_address:
        width = interface.max_prefixlen
        hint = f'did you mean "{found}", or "{interface.ip}/{width}" for the one address?'
        raise Refused(f"{quoted(word)} has bits set behind its prefix", hint, offset)
    return found


def address(scalar: Scalar) -> IPInterface:
    """The address of a NIC with the prefix of its subnet."""
    if "/" not in scalar.text and _is_address(scalar.text):
        raise Refused(hint="add the length of the subnet's prefix")
    return _parse_interface(scalar.text, "", 0)


def _parse_interface(word: str, problem: str, offset: int) -> IPInterface:
    base, slash, prefix = word.partition("/")
    if "%" in base:
        raise Refused(problem, "remove the zone", offset)
    try:
        width = ip_address(base).max_prefixlen
    except ValueError:
        raise Refused(problem, offset=offset) from None
    if not slash:
        hint = f'add the length of the prefix, as in "{word}/{width}" for the one address'
        raise Refused(problem, hint, offset)
    if not re.fullmatch(r"[0-9]{1,3}", prefix) or int(prefix) > width:
        hint = f"the prefix of an IPv{4 if width == 32 else 6} network is a number from 0 to {width}"
        raise Refused(problem, hint, offset)
    return ip_interface(f"{base}/{int(prefix)}")


def family(of: IPInterface | IPNetwork) -> str:
    """`IPv4` or `IPv6`."""
    return f"IPv{of.version}"


def is_ipv4(of: IPInterface) -> bool:
    return isinstance(of, IPv4Interface)


def mac(scalar: Scalar) -> int:
    """A unicast MAC as a 48-bit integer."""
    word = scalar.text
    if not isinstance(scalar.value, str) or not re.fullmatch(MAC_PATTERN, word):
        digits = re.sub(r"[-:.]", "", word)
        is_other_notation = re.fullmatch(r"[0-9A-Fa-f]{12}", digits)
        raise Refused(hint=f'did you mean "{format_mac(int(digits, 16))}"?' if is_other_notation else "")
    value = int(word.replace(":", ""), 16)
    if value == 0:
        raise Refused("the MAC of all zeros belongs to nobody", 'leave "mac" out to get one')
    if value >> 40 & 1:
        kind = "broadcast" if value == (1 << 48) - 1 else "multicast"
        raise Refused(f"{quoted(word)} is a {kind} address, a NIC needs a unicast one", _unicast(value))
    return value


def _unicast(value: int) -> str:
    return f'did you mean "{format_mac(value & ~(1 << 40))}"?'


def format_mac(value: int) -> str:
    """`52:54:00:12:34:56`."""
    return value.to_bytes(6, "big").hex(":")


# ---- selectors -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Atom:
    """A selector as it is written; `offset` is how many columns behind its value's it stands."""

    kind: PeerKind
    value: str
    offset: int = 0


RESERVED_GROUPS = ("any", "internet", "host", "vm", "network")
"""Words with a meaning of their own in a selector."""
_COMING_PEERS = ("internet", "host")
_PREFIXES = {"vm": PeerKind.VM, "network": PeerKind.NETWORK}
PEER_EXPECTED = 'a group, "vm:NAME", "network:NAME", a CIDR or "any"'


def peer(scalar: Scalar) -> Atom:
    """One selector of a policy."""
    return parse_peer(scalar.text, 0)


def parse_peer(word: str, offset: int) -> Atom:
    """The selector that a word is. Raises Refused with `offset` as the place of the caret."""
    if word == "any":
        return Atom(PeerKind.ANY, "any", offset)
    if word in _COMING_PEERS:
        raise Refused(later(f"the peer {quoted(word)}"), offset=offset)
    if "/" in word or _is_address(word):
        problem = f"expected {PEER_EXPECTED}, found {quoted(word)}"
        return Atom(PeerKind.CIDR, str(_parse_network(word, problem, offset)), offset)
    prefix, colon, name = word.partition(":")
    if colon and prefix not in _PREFIXES:
        hint = f'a group needs no prefix: did you mean "{name}"?' if prefix == "group" else ""
        raise Refused(f"expected {PEER_EXPECTED}, found {quoted(word)}", hint, offset)
    kind, value = (_PREFIXES[prefix], name) if colon else (PeerKind.GROUP, word)
    if not re.fullmatch(NAME_PATTERN, value):
        raise Refused(f"expected {PEER_EXPECTED}, found {quoted(word)}", offset=offset)
    return Atom(kind, value, offset)


def _is_address(word: str) -> bool:
    try:
        ip_address(word)
    except ValueError:
        return False
    return True


# ---- ports and services ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ServiceName:
    """A service by name, built in or declared under `services`; `offset` as in Atom."""

    name: str
    offset: int = 0


Ports = Service | ServiceName
PORTS_EXPECTED = "ports such as 443/tcp or 8000-8999/udp, icmp, any or the name of a service"


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


def parse_ports(word: str, offset: int) -> Ports:
    """Ports or a service's name. Raises Refused with `offset` as the place of the caret."""
    problem = f"expected {PORTS_EXPECTED}, found {quoted(word)}"
    found = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?(?:/(.*))?", word)
    if not found:
        if word in _PROTOCOLS:
            raise Refused(problem, f'all of them: did you mean "1-{_PORT_MAX}/{word}"?', offset)
        if not re.fullmatch(NAME_PATTERN, word):
            raise Refused(problem, offset=offset)
        return ServiceName(word, offset)
    if found[3] is None:
        raise Refused(problem, f'name the protocol: did you mean "{word}/tcp" or "{word}/udp"?', offset)
    if found[3] not in _PROTOCOLS:
        raise Refused(f"expected the protocol tcp or udp, found {quoted(found[3])}", offset=offset)
    first, last = int(found[1]), int(found[2] or found[1])
    if not 1 <= first <= _PORT_MAX or not 1 <= last <= _PORT_MAX:
        raise Refused(f"expected port numbers from 1 to {_PORT_MAX}, found {quoted(word)}", offset=offset)
    if first > last:
        hint = f'did you mean "{last}-{first}/{found[3]}"?'
        raise Refused(f"the range {quoted(word)} ends before it begins", hint, offset)
    return Service(_PROTOCOLS[found[3]], (first, last), _range_text(first, last, found[3]))


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
    if _is_address(word):
        return parse_peer(word, offset), None
    found = _TARGET.fullmatch(word)
    assert found is not None, "the last alternative matches any word"
    wanted = None if found["ports"] is None else parse_ports(found["ports"], offset + found.start("ports"))
    return parse_peer(found["peer"], offset), wanted
