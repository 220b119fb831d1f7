"""The `Endpoints` of this host: what others run, joined with ports of the fabric.

A port's interface is one end of a veth. Of a TAP or an interface of the host the other end stays on the host,
and the kernel hands packets from the one to the other (`vnet.switch.live.wire`): the program that opens a TAP
finds it on the host, by its name, and what the switch decides it decides in its own namespace. Of a namespace
the other end lies in it.

What was put is noted beside the fabric's other files, so the next daemon knows what is whose. What is not
there yet, or no more, is waited for: `mend` joins it when it comes.
"""

from __future__ import annotations

import asyncio
import json
import pwd
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

from vnet.base import paths
from vnet.base.errors import HostError
from vnet.fabric.cable import LinkState, Obstacle, Presence
from vnet.fabric.live import cables, interface, netns
from vnet.fabric.live import endpoint_links as links
from vnet.fabric.live.endpoint_links import Veth
from vnet.fabric.state import Endpoint, Port, endpoint_remnant
from vnet.switch.live import nic, ports
from vnet.switch.live.netns import inside
from vnet.topology.endpoints import EndpointKind, EndpointSpec

FOLDER = "endpoints"


class HostEndpoints:
    """See `vnet.fabric.live.parts.Endpoints`.

    `netns` is the fabric's namespace, `host` that of the host if it is another than the daemon's.
    """

    def __init__(self, fabric: str, netns: str, host: str | None = None) -> None:
        self._fabric, self._netns, self._host = fabric, netns, host
        self._folder = paths.fabric_run_dir(fabric) / FOLDER
        self._lock = asyncio.Lock()

    async def observed(self) -> frozenset[Endpoint]:
        """Those that are as they were put; of all else that is there an `endpoint_remnant`."""
        return await asyncio.to_thread(self._observed)

    async def names(self) -> tuple[str, ...]:
        """Those for which anything was done."""
        return await asyncio.to_thread(lambda: tuple(each.name for each in self._notes()))

    async def presence(self) -> Mapping[str, Presence]:
        """Whether anybody is at the other side of each."""
        return await asyncio.to_thread(self._presence)

    async def obstacles(self, endpoints: Iterable[Endpoint]) -> Mapping[str, Obstacle]:
        """Why some of these cannot be put, by their names."""
        return await asyncio.to_thread(self._obstacles, tuple(endpoints))

    async def absent(self, endpoints: Iterable[Endpoint]) -> tuple[str, ...]:
        """The names of those that have nothing to be joined with yet."""
        return await asyncio.to_thread(
            lambda: tuple(each.name for each in endpoints if self._waits(each.where))
        )

    async def put(self, endpoint: Endpoint) -> None:
        """Join it with its port, which is made if it is not there."""
        async with self._lock:
            await netns.finished(None, self._put, endpoint)

    async def remove(self, name: str) -> None:
        """Remove its port, and what was made for it on the host; one that is not there is no error."""
        async with self._lock:
            await netns.finished(None, self._remove, name)

    async def mend(self) -> tuple[Endpoint, ...]:
        """Join again what came back or was damaged. Returns those whose port has a new interface."""
        async with self._lock:
            return await netns.finished(None, self._mend)

    # blocking

    def _observed(self) -> frozenset[Endpoint]:
        return frozenset(
            each if self._is_as_put(each) else endpoint_remnant(each.name) for each in self._notes()
        )

    def _is_as_put(self, endpoint: Endpoint) -> bool:
        return netns.exists(self._netns) and self._veth(endpoint).exists() and self._is_joined(endpoint)

    def _is_joined(self, endpoint: Endpoint) -> bool:
        """Whether packets find their way, as far as there is anything to be joined with."""
        where = endpoint.where
        if where.kind is EndpointKind.NETNS:
            # without a way in, the other end waits on the host
            return not netns.exists(where.target) or links.is_inside(where.target, where.device)
        with inside(self._host):
            if not nic.exists(where.target):
                return where.kind is EndpointKind.INTERFACE
            return links.is_joined(where.target, self._near(endpoint))

    def _presence(self) -> Mapping[str, Presence]:
        return {each.name: self._present(each.where) for each in self._notes()}

    def _present(self, where: EndpointSpec) -> Presence:
        if where.kind is EndpointKind.NETNS:
            is_there = netns.exists(where.target) and links.is_inside(where.target, where.device)
            return Presence.CONNECTED if is_there else Presence.ABSENT
        with inside(self._host):
            if not nic.exists(where.target):
                return Presence.ABSENT
            is_up = interface.state(where.target) is LinkState.UP  # a program has the TAP open
            return Presence.CONNECTED if is_up else Presence.WAITING

    def _put(self, endpoint: Endpoint) -> None:
        noted = next((each for each in self._notes() if each.name == endpoint.name), None)
        if noted is not None and not noted.is_wired_as(endpoint):
            self._remove(endpoint.name)
            noted = None
        found = self._obstacle(endpoint.where) if noted is None else None
        if found is not None:
            raise HostError(str(found))
        self._keep(endpoint)
        self._wire(endpoint)

    def _obstacles(self, endpoints: tuple[Endpoint, ...]) -> Mapping[str, Obstacle]:
        """What the fabric itself has there gives way before an endpoint is put."""
        own = {each.where.place for each in self._notes()}
        found = {each.name: self._obstacle(each.where) for each in endpoints if each.where.place not in own}
        return {name: each for name, each in found.items() if each is not None}

    def _obstacle(self, where: EndpointSpec) -> Obstacle | None:
        """Why nothing can be joined there."""
        target, device = where.target, where.device
        if where.kind is EndpointKind.NETNS:
            is_taken = netns.exists(target) and links.is_inside(target, device)
            problem = f"the namespace {target} has an interface {device} already"
            return Obstacle(problem, "name another one with `device`") if is_taken else None
        owner = self._owner(target)
        if owner:
            return Obstacle(f"the fabric {owner} has the interface {target} already", "name another one")
        with inside(self._host):
            return _tap_obstacle(where) if where.kind is EndpointKind.TAP else links.in_use(target)

    def _waits(self, where: EndpointSpec) -> bool:
        """Whether it is waited for what is there; a TAP is made."""
        if where.kind is EndpointKind.NETNS:
            return not netns.exists(where.target)
        with inside(self._host):
            return where.kind is EndpointKind.INTERFACE and not nic.exists(where.target)

    def _wire(self, endpoint: Endpoint) -> bool:
        """Make what is missing. Returns whether its port has a new interface."""
        where, veth = endpoint.where, self._veth(endpoint)
        is_new = not veth.exists() or self._is_astray(endpoint, veth)
        if is_new:
            veth.remove()
            veth.make(f"vnet {self._fabric} {endpoint.name}")
        if where.kind is EndpointKind.NETNS:
            if netns.exists(where.target):
                if not links.is_inside(where.target, where.device):
                    veth.lead_into(where.target, where.device)
                links.configure(where.target, where.device, endpoint)
            return is_new
        with inside(self._host):
            if where.kind is EndpointKind.TAP and not nic.exists(where.target):
                links.make_tap(where.target, _user(where.owner))
            if nic.exists(where.target):
                links.join(where.target, veth.near, is_ours=where.kind is EndpointKind.TAP)
        return is_new

    def _is_astray(self, endpoint: Endpoint, veth: Veth) -> bool:
        """Whether the other end is in a namespace that nobody can name any more."""
        where = endpoint.where
        is_there = where.kind is EndpointKind.NETNS and netns.exists(where.target)
        if is_there and links.is_inside(where.target, where.device):
            return False
        with inside(self._host):
            return not nic.exists(veth.near)

    def _remove(self, name: str) -> None:
        endpoint = next((each for each in self._notes() if each.name == name), None)
        if endpoint is None:
            return
        where = endpoint.where
        with inside(self._host):
            if where.kind is EndpointKind.TAP:
                ports.remove(where.target)
            elif where.kind is EndpointKind.INTERFACE and nic.exists(where.target):
                links.part(where.target)
        self._veth(endpoint).remove()
        self._path(name).unlink(missing_ok=True)
        with suppress(OSError):
            self._folder.rmdir()

    def _mend(self) -> tuple[Endpoint, ...]:
        if not netns.exists(self._netns):
            return ()
        broken = [each for each in self._notes() if not self._is_as_put(each)]
        return tuple(each for each in broken if self._wire(each))

    # what is remembered

    def _near(self, endpoint: Endpoint) -> str:
        """The name of the veth's end on the host: no other fabric's is called so."""
        return f"ve{blake2b(f'{self._fabric}/{endpoint.name}'.encode(), digest_size=6).hexdigest()}"

    def _veth(self, endpoint: Endpoint) -> Veth:
        return Veth(self._near(endpoint), endpoint.port.ifname, self._netns, self._host)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _notes(self) -> tuple[Endpoint, ...]:
        return tuple(_notes(self._folder))

    def _owner(self, target: str) -> str:
        """Another fabric that has an endpoint or a cable there, if one has."""
        for folder in self._folder.parent.parent.glob(f"*/{FOLDER}"):
            taken = (each.where for each in _notes(folder) if each.where.kind is not EndpointKind.NETNS)
            if folder != self._folder and any(each.target == target for each in taken):
                return folder.parent.name
        return cables.owner(target, self._fabric)

    def _keep(self, endpoint: Endpoint) -> None:
        path = self._path(endpoint.name)
        fresh = path.with_suffix(".new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            plain = asdict(endpoint)
            plain["where"]["kind"] = endpoint.where.kind.value
            fresh.write_text(json.dumps(plain))
            fresh.replace(path)
        except OSError as error:
            raise HostError(f"cannot write {path}: {error.strerror}") from error


def _notes(folder: Path) -> Iterator[Endpoint]:
    for path in sorted(folder.glob("*.json")):
        with suppress(FileNotFoundError):  # another fabric's may go at any time
            yield _read(json.loads(path.read_text()))


def _read(plain: Any) -> Endpoint:
    where = plain["where"]
    return Endpoint(
        plain["name"],
        Port(**plain["port"]),
        EndpointSpec(EndpointKind(where["kind"]), where["target"], where["owner"], where["device"]),
        plain["mac"],
        tuple(plain["addresses"]),
        tuple(plain["gateways"]),
        plain["mtu_bytes"],
    )


def _tap_obstacle(where: EndpointSpec) -> Obstacle | None:
    try:
        _user(where.owner)
    except HostError as error:
        return Obstacle(str(error), "name one that there is, or leave `owner` out")
    if not nic.exists(where.target):
        return None
    hint = f"if it is meant, write `interface: {where.target}` instead of `tap:`, else name another one"
    return Obstacle(f"the host has an interface {where.target} already", hint)


def _user(owner: str) -> int:
    """The number of a user; 0 if none is named."""
    if owner.isdecimal() or not owner:
        return int(owner or 0)
    try:
        return pwd.getpwnam(owner).pw_uid
    except KeyError:
        raise HostError(f"this host has no user {owner}, who is to own a TAP") from None
