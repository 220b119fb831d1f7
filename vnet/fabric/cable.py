"""Interfaces of the host that uplinks name: which can be taken, and what is remembered to give them back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

MOVABLE = ("", "veth")
"""Kinds of interfaces that are taken: hardware, whose kind has no name, and ends of a veth."""


class LinkState(StrEnum):
    """Of the interface of an uplink."""

    UP = "up"
    DOWN = "down"
    """It has no carrier: the cable is out, or the other end is switched off."""
    MISSING = "missing"
    """It is neither in the fabric nor on the host."""


class Presence(StrEnum):
    """Whether anybody is at the other side. WAITING: the TAP is there, and no program has it open."""

    CONNECTED = "connected"
    WAITING = "waiting"
    ABSENT = "absent"
    """There is no such interface, or no such namespace."""


@dataclass(frozen=True, slots=True)
class Interface:
    """One as it is on the host. `master` and `carried` are names: what it is a part of, and what uses it.

    `addresses` are `IP/PREFIX` without those that the kernel makes itself, `routes` those by it in words.
    """

    name: str
    kind: str = ""
    master: str = ""
    carried: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    is_wireless: bool = False


@dataclass(frozen=True, slots=True)
class Was:
    """What of an interface does not come back by itself when it comes back to the host.

    `settings` are the kernel's, by their path below /proc/sys/net.
    """

    is_up: bool = False
    is_promiscuous: bool = False
    has_lro: bool = False
    mtu: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why an interface cannot be taken, and what to do."""

    problem: str
    hint: str

    def __str__(self) -> str:
        return f"{self.problem}; {self.hint}"


def obstacle(found: Interface, also: tuple[str, ...] = ()) -> Obstacle | None:
    """The first reason why this one must stay with the host; `also` are other kinds that will do."""
    return next(_obstacles(found, (*MOVABLE, *also)), None)


def missing(name: str, there: tuple[str, ...], owner: str = "") -> Obstacle:
    """That the host has no interface of the name. `owner` is the fabric that has taken it."""
    if owner:
        problem = f"the fabric {owner} has the interface {name} already"
        return Obstacle(problem, f"an interface can be one port only; `vnet down -n {owner}` gives it back")
    fitting = f"it has {', '.join(there)}" if there else "it has none that could be taken"
    return Obstacle(f"there is no interface {name} on this host", f"{fitting}; `ip link` lists all")


def lent(name: str, fabric: str, router: str) -> Obstacle:
    """That the gateway of a router has the interface."""
    problem = f"the gateway of router {router} in fabric {fabric} has the interface {name}"
    return Obstacle(problem, "`vnet up` without that uplink gives it back; then name it here")


def _obstacles(found: Interface, kinds: tuple[str, ...]) -> Iterator[Obstacle]:
    name = found.name
    if found.kind not in kinds:
        hint = "name a physical interface, or one end of a veth"
        yield Obstacle(f"the interface {name} is of the kind {found.kind}", hint)
    if found.is_wireless:
        hint = "an access point takes frames of its own station only; name a wired interface"
        yield Obstacle(f"the interface {name} is wireless", hint)
    if found.master:
        hint = f"take it out first: `ip link set {name} nomaster`"
        yield Obstacle(f"the interface {name} is a member of {found.master}", hint)
    if found.carried:
        hint = f"remove them first: `ip link delete {found.carried[0]}`"
        yield Obstacle(f"the interface {name} carries {', '.join(found.carried)}", hint)
    if found.addresses:
        hint = (
            f"whatever uses them would be cut off: free it with `ip address flush dev {name}`, and have"
            " nothing configure it again, or use another interface"
        )
        yield Obstacle(f"the host has the addresses {', '.join(found.addresses)} on {name}", hint)
    if found.routes:
        hint = f"remove them with `ip route flush dev {name}`, or use another interface"
        yield Obstacle(f"the host has routes by {name}: {', '.join(found.routes)}", hint)
