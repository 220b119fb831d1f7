"""`Seen` as JSON Lines and back: what `--flows FILE` reads, one object a line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from vnet.base.drop import DropReason
from vnet.base.errors import Fault, InputError
from vnet.base.protocols import PROTOCOLS
from vnet.base.source import Location
from vnet.fabric.seen import DecidedBy, Seen, Verdict
from vnet.openflow.fields import ICMP, ICMPV6

NUMBERS = {name: number for number, name in PROTOCOLS.items()}
_ECHO = {ICMP: 8, ICMPV6: 128}
_FAULTS_MAX = 20
_REFUSED = DropReason.POLICY.name


def line(seen: Seen) -> str:
    """One line without its end."""
    by = seen.by
    return json.dumps(
        {
            "source": seen.source,
            "source_address": _text(seen.source_address),
            "destination": seen.destination,
            "destination_address": _text(seen.destination_address),
            "network": seen.network,
            "protocol": None if seen.protocol is None else PROTOCOLS.get(seen.protocol, seen.protocol),
            "port": seen.port,
            "verdict": seen.verdict.value,
            "reason": seen.reason,
            "by": by
            and {"at": by.at, "policy": by.policy, "rule": by.rule, "text": by.text, "cookie": by.cookie},
            "packets": seen.packets,
            "bytes": seen.bytes,
            "first": seen.first.isoformat(),
            "last": seen.last.isoformat(),
            "generation": seen.generation,
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )


def _text(address: IPv4Address | IPv6Address | None) -> str | None:
    return None if address is None else str(address)


def read(lines: Iterable[str], file: str, now: datetime) -> tuple[Seen, ...]:
    """The flows of some lines; empty ones count for nothing.

    Only `source`, `destination`, `protocol` and `verdict` must be there. A time that is missing is `now`.

    Raises: InputError with the faults found, twenty at most.
    """
    found, faults = [], []
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            found.append(_seen(_object(text), now))
        except _Wrong as wrong:
            faults.append(Fault(Location(file, number, 1), wrong.key, str(wrong)))
            if len(faults) >= _FAULTS_MAX:
                break
    if faults:
        raise InputError(faults)
    return tuple(found)


class _Wrong(Exception):
    def __init__(self, key: str, problem: str) -> None:
        super().__init__(problem)
        self.key = key


def _object(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _Wrong("json", f"not JSON: {error}") from None
    if not isinstance(found, dict):
        raise _Wrong("json", "expected an object such as the lines of `vnet policy suggest --flows` have")
    return found


def _seen(raw: Mapping[str, Any], now: datetime) -> Seen:
    verdict = _one(raw, "verdict", _verdict)
    assert verdict is not None
    protocol = _one(raw, "protocol", _protocol)
    first = _one(raw, "first", _time, None)
    last = _one(raw, "last", _time, first)
    return Seen(
        _one(raw, "source", _name),
        _one(raw, "source_address", ip_address, None),
        _one(raw, "destination", _name),
        _one(raw, "destination_address", ip_address, None),
        _one(raw, "network", str, "") or "",
        protocol,
        _one(raw, "port", _number, _ECHO.get(protocol or 0)),
        verdict,
        _one(raw, "reason", _reason, _REFUSED if verdict is Verdict.DENIED else "") or "",
        _one(raw, "by", _by, None),
        _one(raw, "packets", _number, 1) or 0,
        _one(raw, "bytes", _number, 0) or 0,
        first or last or now,
        last or now,
        _one(raw, "generation", _number, 0) or 0,
    )


_NEEDED = object()


def _one(raw: Mapping[str, Any], key: str, read: Callable[[Any], Any], default: Any = _NEEDED) -> Any:
    if key not in raw or (raw[key] is None and default is not _NEEDED):
        if default is _NEEDED:
            raise _Wrong(key, f'a flow needs "{key}"')
        return default
    if raw[key] is None:
        return None
    try:
        return read(raw[key])
    except (ValueError, KeyError, TypeError) as error:
        raise _Wrong(key, f"{json.dumps(raw[key])[:60]} is none: {error}") from None


def _verdict(value: Any) -> Verdict:
    return Verdict(value)


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("expected the name of a NIC such as web-1.eth0")
    return value


def _protocol(value: Any) -> int:
    number = NUMBERS.get(value, value) if isinstance(value, str) else value
    if not isinstance(number, int) or not 0 <= number <= 255:
        raise ValueError(f"expected {', '.join(NUMBERS)} or the number of an IP protocol")
    return number


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("expected a whole number")
    return value


def _reason(value: Any) -> str:
    return DropReason[value].name if value else ""


def _time(value: Any) -> datetime:
    found = datetime.fromisoformat(value)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _by(value: Any) -> DecidedBy:
    at, policy, rule, text = (str(value.get(key, "")) for key in ("at", "policy", "rule", "text"))
    return DecidedBy(at, policy, rule, text, int(value.get("cookie", 0)))


def lines_of(several: Iterable[Seen]) -> Iterator[str]:
    """All of them, each with its end."""
    return (f"{line(each)}\n" for each in several)
