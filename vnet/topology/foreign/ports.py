"""Published ports as Docker writes them.

Source: https://github.com/compose-spec/compose-spec/blob/main/05-services.md#ports
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from vnet.topology.foreign.tree import Tree

_SHORT = re.compile(
    r"(?:(?P<ip>\[[0-9A-Fa-f:.]+\]|[0-9]+(?:\.[0-9]+){3}):)?(?:(?P<host>[0-9]+(?:-[0-9]+)?)?:)?"
    r"(?P<guest>[0-9]+(?:-[0-9]+)?)(?:/(?P<protocol>[a-z]+))?"
)
_RANGE_MAX = 256
ANYWHERE = "0.0.0.0"


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """`text` as the language has it and `guest` for a rule; or why it is not published."""

    guest: str
    text: str = ""
    why: str = ""


def published(tree: Tree) -> Iterator[PublishedPort]:
    """What one entry of `ports` publishes."""
    if tree.is_map:
        parts = {key: value.text() for key, value in tree.entries() if not value.is_map}
        found = (
            parts.get("host_ip", ""),
            parts.get("published", ""),
            parts.get("target", ""),
            parts.get("protocol", "tcp"),
        )
    else:
        match = _SHORT.fullmatch(tree.text())
        if match is None:
            tree.fault(f"expected a port such as 8080:80/tcp, found {tree.text()!r}")
            return
        found = (match["ip"] or "", match["host"] or "", match["guest"], match["protocol"] or "tcp")
    yield from _each(tree, *found)


def _each(tree: Tree, ip: str, host: str, guest: str, protocol: str) -> Iterator[PublishedPort]:
    inside, outside = _numbers(guest), _numbers(host)
    if not inside or len(inside) > _RANGE_MAX or (outside and len(outside) != len(inside)):
        tree.fault("expected a port, or two ranges of one length, at most 256 ports")
        return
    if protocol not in ("tcp", "udp"):
        yield PublishedPort(f"{guest}/{protocol}", why=f"{protocol} is not published")
    elif not outside:
        yield PublishedPort(
            f"{guest}/{protocol}", why="it names no port of the host, and none is chosen here"
        )
    else:
        where = f"[{ip}]" if ":" in ip and not ip.startswith("[") else ip or ANYWHERE
        for one, other in zip(outside, inside, strict=True):
            yield PublishedPort(f"{other}/{protocol}", f"{where}:{one}:{other}/{protocol}")


def _numbers(text: str) -> range:
    first, _, last = text.partition("-")
    if not first.isdecimal() or (last and not last.isdecimal()):
        return range(0)
    return range(int(first), int(last or first) + 1)
