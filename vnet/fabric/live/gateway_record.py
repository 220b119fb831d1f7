"""What was put of gateways and what the host had before, in one file of each router."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vnet.base.errors import HostError
from vnet.fabric.live.gateway_links import Moved
from vnet.fabric.state import Gateway, Port
from vnet.services.gateway import Address, Dead, Door, Floating, Forwarding, Route


@dataclass(frozen=True, slots=True)
class Kept:
    """A gateway as it was put.

    `own_rules` and `host_rules` are digests of the kernel's tables. `proxies` are the addresses that the host
    answers for, `moved` is what the interface was that it has from the host.
    """

    gateway: Gateway
    dead: Dead = frozenset()
    own_rules: str = ""
    host_rules: str = ""
    proxies: tuple[Address, ...] = ()
    moved: Moved | None = None


class Records:
    """Those of one fabric. What cannot be read is not there, so that it is put again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def routers(self) -> tuple[str, ...]:
        """Those that have one."""
        return tuple(sorted(path.stem for path in self._folder.glob("*.json")))

    def load(self, router: str) -> Kept | None:
        """That of a router."""
        return _load(self._folder / f"{router}.json")

    def elsewhere(self) -> Iterator[tuple[str, Kept]]:
        """Those of the other fabrics of this host, with their names."""
        for path in sorted(self._folder.parent.glob("*/*.json")):
            kept = _load(path)
            if kept is not None and path.parent != self._folder:
                yield path.parent.name, kept

    def save(self, kept: Kept) -> None:
        """Keep it."""
        path = self._folder / f"{kept.gateway.router}.json"
        plain = asdict(kept) | {"dead": sorted(kept.dead)}
        fresh = path.with_suffix(".new")
        try:
            self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(plain, file)
            fresh.replace(path)
        except OSError as error:
            raise HostError(f"cannot write {path}: {error.strerror}") from error

    def remove(self, router: str) -> None:
        """Forget it."""
        (self._folder / f"{router}.json").unlink(missing_ok=True)
        for empty in (self._folder, self._folder.parent):
            with suppress(OSError):
                empty.rmdir()


def _load(path: Path) -> Kept | None:
    try:
        return _kept(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _kept(plain: Any) -> Kept:
    moved = plain["moved"]
    return Kept(
        _gateway(plain["gateway"]),
        frozenset((address, port) for address, port in plain["dead"]),
        plain["own_rules"],
        plain["host_rules"],
        tuple(Address(**each) for each in plain["proxies"]),
        None if moved is None else _moved(moved),
    )


def _gateway(plain: Any) -> Gateway:
    given = plain["forwarding"]
    doors = tuple(Door(**{**each, "targets": tuple(each["targets"])}) for each in given["doors"])
    floating = tuple(Floating(**each) for each in given["floating"])
    lists = {name: tuple(given[name]) for name in ("subnets", "addresses", "next_hops", "host")}
    forwarding = Forwarding(**{**given, **lists, "doors": doors, "floating": floating})
    return Gateway(plain["router"], Port(**plain["port"]), plain["mac"], forwarding)


def _moved(plain: Any) -> Moved:
    routes = tuple(Route(**each) for each in plain["routes"])
    return Moved(plain["boot"], plain["is_up"], tuple(plain["addresses"]), routes)
