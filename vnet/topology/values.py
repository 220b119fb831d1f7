"""How the scalars of the language are read: pure functions from a Scalar to a value, or Refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from ipaddress import ip_address, ip_interface, ip_network
from typing import TypeVar

from vnet.topology.model import AddressRange, IPAddress, IPInterface, IPNetwork
from vnet.topology.reading import quoted, suggestion
from vnet.topology.shape import Refused
from vnet.topology.yaml import Scalar

T = TypeVar("T")

NAME_MAX = 63
"""The length of a DNS label (RFC 1035, 2.3.4)."""
NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
NAME_EXPECTED = 'a name of lowercase letters, digits and "-"'
IFNAME_PATTERN = r"^[a-z][a-z0-9]*$"
DEVICE_PATTERN = r"^[^/\s:]{1,15}$"
"""What Linux takes for the name of an interface (net/core/dev.c, dev_valid_name)."""
IFNAME_MAX = 15
"""IFNAMSIZ - 1 (linux/if.h)."""
ADDRESSES_PATTERN = r"^[0-9A-Fa-f:.]+(/[0-9]+)?$"
HOST_PATTERN = r"^[0-9A-Fa-f:.]+$"
CIDR_PATTERN = r"^[0-9A-Fa-f:.]+/[0-9]+$"
MAC_PATTERN = r"^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$"
MEMORY_PATTERN = r"^[0-9]+(\.[0-9]+)?([KMGT](iB|i)?)$"

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
        if not isinstance(scalar.value, str):
            raise Refused(hint="quote it to make it text")
        if not re.fullmatch(NAME_PATTERN, word):
            legal = re.sub(r"[^a-z0-9-]+", "-", word.lower()).strip("-")
            raise Refused(hint=f'did you mean "{legal}"?' if legal and legal != word else "")
        if len(word) > maximum:
            raise Refused(f"the name is {len(word)} characters long, at most {maximum} are possible")
        return word

    return parse


def is_name(word: str, maximum: int = NAME_MAX) -> bool:
    """Whether a word could be the name of something."""
    return len(word) <= maximum and re.fullmatch(NAME_PATTERN, word) is not None


def interface_name(scalar: Scalar) -> str:
    """The name of a NIC inside the guest."""
    if not re.fullmatch(IFNAME_PATTERN, scalar.text) or len(scalar.text) > IFNAME_MAX:
        raise Refused
    return scalar.text


def device(scalar: Scalar) -> str:
    """The name of an interface of the host."""
    if not re.fullmatch(DEVICE_PATTERN, scalar.text) or scalar.text in (".", ".."):
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


def mtu_bytes(low: int, high: int) -> Callable[[Scalar], int | None]:
    """A number of bytes in an inclusive range; None for `auto`."""
    number = integer_from(low, high)

    def parse(scalar: Scalar) -> int | None:
        return None if scalar.text == "auto" else number(scalar)

    return parse


def boolean(scalar: Scalar) -> bool:
    """true or false; YAML 1.1's yes, no, on and off are text."""
    if not isinstance(scalar.value, bool):
        truth = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(scalar.text.lower())
        raise Refused(hint=f'did you mean "{truth}"?' if truth else "")
    return scalar.value


def one_of(values: dict[str, T]) -> Callable[[Scalar], T]:
    """One of a few words."""

    def parse(scalar: Scalar) -> T:
        if scalar.text not in values:
            raise Refused(hint=suggestion(scalar.text, values))
        return values[scalar.text]

    return parse


SHA256_PATTERN = r"^[0-9A-Fa-f]{64}$"


def sha256(scalar: Scalar) -> str:
    """A SHA-256 in hexadecimal, written in lowercase."""
    if not isinstance(scalar.value, str) or not re.fullmatch(SHA256_PATTERN, scalar.text):
        is_number = re.fullmatch("[0-9]{64}", scalar.text)
        raise Refused(hint="quote it to make it text" if is_number else "")
    return scalar.text.lower()


def file(scalar: Scalar) -> str:
    """The path of a file, not of a folder."""
    if not isinstance(scalar.value, str) or not scalar.text.strip() or scalar.text.endswith("/"):
        raise Refused
    if "\0" in scalar.text:
        raise Refused("a path has no NUL in it")
    return scalar.text


_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
MEMORY_MIN = 32 << 20
MEMORY_MAX = 4 << 40


def memory(scalar: Scalar) -> int:
    """An amount of memory in bytes; units are powers of 1024, as QEMU and Compose count."""
    size = _amount(scalar.text)
    if not MEMORY_MIN <= size <= MEMORY_MAX:
        raise Refused(f"expected between 32M and 4T of memory, found {quoted(scalar.text)}")
    return size


DISK_MIN = 1 << 20
DISK_MAX = 16 << 40


def disk_size(scalar: Scalar) -> int:
    """The size of a disk in bytes, with the units of `memory`."""
    size = _amount(scalar.text)
    if not DISK_MIN <= size <= DISK_MAX:
        raise Refused(f"expected a disk of 1M to 16T, found {quoted(scalar.text)}")
    return size


def _amount(word: str) -> int:
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([KMGT])(?:iB|i)?", word)
    if not found:
        raise Refused(hint=_memory_hint(word))
    size = float(found[1]) * _UNITS[found[2]]
    if size % (1 << 20):
        raise Refused(f"expected a whole number of MiB, found {quoted(word)}")
    return int(size)


def _memory_hint(word: str) -> str:
    if re.fullmatch(r"[0-9]+", word):
        return f'give the unit: did you mean "{word}M"?'
    found = re.fullmatch(r"([0-9.]+)\s*([kmgt])(i?b?)", word, re.IGNORECASE)
    return f'did you mean "{found[1]}{found[2].upper()}"?' if found else ""


# ---- time ------------------------------------------------------------------------------------

TIME_PATTERN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.]+(Z|[+-][0-9:]+)?)?$"
"""RFC 3339, with less demanded of it."""


def end_of(scalar: Scalar) -> datetime:
    """The instant, in UTC, at which a date has passed or a time is reached; times without a zone are UTC."""
    if not re.fullmatch(TIME_PATTERN, scalar.text):
        raise Refused
    try:
        if len(scalar.text) == len("2026-12-31"):
            day = date.fromisoformat(scalar.text)
            return datetime.combine(day + timedelta(days=1), time(), UTC)
        moment = datetime.fromisoformat(scalar.text)
    except (ValueError, OverflowError):
        raise Refused(f"there is no such time: {quoted(scalar.text)}") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


SPAN_PATTERN = r"^[0-9]+[smhd]$"
_SPAN_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LEASE_MIN_S = 120
"""As dnsmasq(8) has it (dhcp-range)."""
LEASE_MAX_S = 365 * 86400


def lease(scalar: Scalar) -> int:
    """How long a lease lasts, in seconds."""
    if not isinstance(scalar.value, str) or not re.fullmatch(SPAN_PATTERN, scalar.text):
        hint = f'give the unit: did you mean "{scalar.text}s"?' if scalar.text.isdecimal() else ""
        raise Refused(hint=hint)
    span_s = int(scalar.text[:-1]) * _SPAN_UNITS[scalar.text[-1]]
    if not LEASE_MIN_S <= span_s <= LEASE_MAX_S:
        raise Refused(f"expected a lease of 2m to 365d, found {quoted(scalar.text)}")
    return span_s


# ---- addresses -------------------------------------------------------------------------------

RANGE_PATTERN = r"^[0-9A-Fa-f:.]+ *- *[0-9A-Fa-f:.]+$"
NIC_PATTERN = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?\.[a-z][a-z0-9]*$"
DOMAIN_PATTERN = r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
DOMAIN_MAX = 180
"""So that the names of VMs in it stay within 253 characters (RFC 1035, 2.3.4)."""


def address_range(scalar: Scalar) -> AddressRange:
    """The addresses from one to another, both included."""
    words = [word.strip() for word in scalar.text.split("-")]
    if len(words) != 2 or not all(map(is_address, words)):
        raise Refused
    first, last = map(ip_address, words)
    if first.version != last.version:
        raise Refused(f"{first} and {last} are of different versions of IP")
    if int(first) > int(last):
        raise Refused(f"{first} comes behind {last}", f'did you mean "{last}-{first}"?')
    return AddressRange(first, last)


def nic_or_mac(scalar: Scalar) -> str:
    """Whose a reservation is: `VM.INTERFACE`, or a MAC, written in lowercase."""
    if re.fullmatch(MAC_PATTERN, scalar.text):
        return format_mac(mac(scalar))
    if not re.fullmatch(NIC_PATTERN, scalar.text):
        raise Refused
    return scalar.text


def domain(scalar: Scalar) -> str | bool:
    """A DNS domain, or whether there are names at all."""
    if isinstance(scalar.value, bool):
        return scalar.value
    word = scalar.text
    labels = word.split(".")
    truth = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(word)
    if truth:
        raise Refused(hint=f'did you mean "{truth}"?')
    if not re.fullmatch(DOMAIN_PATTERN, word):
        legal = word.lower().strip(".")
        is_near = legal != word and re.fullmatch(DOMAIN_PATTERN, legal)
        raise Refused(hint=f'did you mean "{legal}"?' if is_near else "")
    if len(word) > DOMAIN_MAX or max(map(len, labels)) > NAME_MAX:
        raise Refused(f"the domain is too long: at most {DOMAIN_MAX} characters, {NAME_MAX} between dots")
    if labels[-1].isdecimal():
        raise Refused(f"{quoted(word)} ends like an address")
    return word


def network(scalar: Scalar) -> IPNetwork:
    """A CIDR without host bits."""
    return parse_network(scalar.text, "", 0)


def parse_network(word: str, problem: str, offset: int) -> IPNetwork:
    """The network that a word is. Raises Refused with the problem ("" for "expected ...") and offset."""
    interface = _parse_interface(word, problem, offset)
    found = interface.network
    if interface.ip != found.network_address:
        width = interface.max_prefixlen
        hint = f'did you mean "{found}", or "{interface.ip}/{width}" for the one address?'
        raise Refused(f"{quoted(word)} has bits set behind its prefix", hint, offset)
    return found


def addresses(scalar: Scalar) -> IPNetwork:
    """A CIDR without host bits, or an address, which is one of itself."""
    return ip_network(scalar.text) if is_address(scalar.text) else network(scalar)


def host(scalar: Scalar) -> IPAddress:
    """An address without a prefix."""
    base, slash, _ = scalar.text.partition("/")
    if slash and is_address(base):
        raise Refused(hint=f'leave the prefix out: "{base}"')
    if not is_address(scalar.text):
        raise Refused
    return ip_address(scalar.text)


def address(scalar: Scalar) -> IPInterface:
    """The address of a NIC with the prefix of its subnet."""
    if "/" not in scalar.text and is_address(scalar.text):
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


def is_address(word: str) -> bool:
    """Whether a word is an address without a prefix."""
    try:
        ip_address(word)
    except ValueError:
        return False
    return True
