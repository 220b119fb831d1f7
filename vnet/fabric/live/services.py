"""The `Services` of this host: for each network a namespace, a veth into the switch, and a dnsmasq.

A network has two folders: that of its name is dnsmasq's own. In the other, `NETWORK.d`, which is root's,
stands what dnsmasq is told, and what was asked for: so the next daemon knows what runs, and what should.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vnet.base import paths
from vnet.base.errors import HostError
from vnet.fabric.live import dnsmasq, netns, service_port
from vnet.fabric.live.dnsmasq import Folders
from vnet.fabric.live.service_port import WantedPort
from vnet.fabric.state import GATEWAY, SERVICE, NetworkService, Port, ifname, remnant
from vnet.hv.live import cgroup, users
from vnet.services.dhcp import Files
from vnet.services.leases import Lease, read
from vnet.switch.live.netns import NETNS_DIR

ASKED = "service.json"
MEMORY_BYTES = 64 << 20
"""What one may take: a name and a lease are some hundred bytes."""


class HostServices:
    """See `vnet.fabric.live.parts.Services`. `netns` is the fabric's namespace."""

    def __init__(self, fabric: str, netns: str) -> None:
        self._fabric, self._netns = fabric, netns
        self._folder = paths.service_dir(fabric)
        self._lock = asyncio.Lock()

    async def observed(self) -> frozenset[NetworkService]:
        """Those that answer, as they were put; of all else that is there a `remnant`."""
        return await asyncio.to_thread(self._observed)

    async def networks(self) -> tuple[str, ...]:
        """The networks of which anything is there."""
        return await asyncio.to_thread(self._networks)

    async def put(self, service: NetworkService) -> None:
        """Have the guests of its network answered so."""
        async with self._lock:
            await netns.finished(None, self._put, service)

    async def remove(self, network: str) -> None:
        """End it and remove all that was made for it."""
        async with self._lock:
            await netns.finished(None, self._remove, network)

    async def revive(self) -> tuple[NetworkService, ...]:
        """Start again those that have died."""
        async with self._lock:
            return await netns.finished(None, self._revive)

    async def dead(self) -> tuple[str, ...]:
        """The networks whose guests should be answered and are not."""
        return await asyncio.to_thread(self._dead)

    async def leases(self) -> tuple[tuple[str, Lease], ...]:
        """What guests have got by DHCP, with their networks."""
        return await asyncio.to_thread(self._leases)

    # blocking

    def _names(self, network: str) -> tuple[str, str, str]:
        """Its port, the fabric's namespace and its own: no fabric's name has a dot."""
        own = f"{self._netns}.{network}"
        return ifname(f"{SERVICE}{network}"), self._netns, own

    def _networks(self) -> tuple[str, ...]:
        prefix = f"{self._netns}."
        there = {path.name.removeprefix(prefix) for path in NETNS_DIR.glob(f"{prefix}[!{GATEWAY}]*")}
        return tuple(sorted({*self._kept(), *there}))

    def _kept(self) -> list[str]:
        """The networks whose guests should be answered."""
        return sorted(path.parent.stem for path in self._folder.glob(f"*.d/{ASKED}"))

    def _folders(self, network: str, user: int = 0) -> Folders:
        return Folders(self._folder / f"{network}.d", self._folder / network, user)

    def _wanted(self, network: str) -> NetworkService | None:
        """What was put; what cannot be read is not there, so that it is put again."""
        try:
            return _service(json.loads((self._folders(network).told / ASKED).read_text()))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _is_alive(self, network: str) -> bool:
        found = dnsmasq.find(self._folders(network))
        if found is None:
            return False
        found.close()
        return True

    def _observed(self) -> frozenset[NetworkService]:
        there = netns.exists(self._netns)
        return frozenset((there and self._answering(each)) or remnant(each) for each in self._networks())

    def _answering(self, network: str) -> NetworkService | None:
        """A service with all that belongs to it."""
        if not self._is_alive(network) or not service_port.exists(*self._names(network)):
            return None
        return self._wanted(network)

    def _dead(self) -> tuple[str, ...]:
        return tuple(network for network in self._kept() if not self._is_alive(network))

    def _put(self, service: NetworkService) -> None:
        network = service.network
        was = self._wanted(network)
        folders = self._folders(network, users.claim_dir(self._folder / network))
        is_new = service_port.make(*self._names(network), _wanted_port(service))
        dnsmasq.write(folders, service.files)
        _keep(folders.told / ASKED, service)
        if not is_new and was is not None and _may_go_on(was, service):
            found = dnsmasq.find(folders)
            if found is not None:
                found.tell(signal.SIGHUP)
                found.close()
                return
        dnsmasq.end(folders)
        self._start(network, folders)

    def _start(self, network: str, folders: Folders) -> None:
        group = cgroup.create(self._fabric, f"service-{network}", MEMORY_BYTES)
        group.add(dnsmasq.start(folders, NETNS_DIR / self._names(network)[2]))

    def _remove(self, network: str) -> None:
        folders = self._folders(network)
        dnsmasq.end(folders)
        service_port.remove(*self._names(network))
        if folders.told.exists():
            cgroup.create(self._fabric, f"service-{network}", MEMORY_BYTES).remove()
        for folder in (folders.own, folders.told):
            shutil.rmtree(folder, ignore_errors=True)
        for empty in (self._folder, self._folder.parent):
            with suppress(OSError):
                empty.rmdir()

    def _revive(self) -> tuple[NetworkService, ...]:
        revived = []
        for network in self._dead() if netns.exists(self._netns) else ():
            service = self._wanted(network)
            if service is None:
                continue
            folders = self._folders(network, users.claim_dir(self._folder / network))
            service_port.make(*self._names(network), _wanted_port(service))
            dnsmasq.write(folders, service.files)
            self._start(network, folders)
            revived.append(service)
        return tuple(revived)

    def _leases(self) -> tuple[tuple[str, Lease], ...]:
        return tuple(
            (network, lease)
            for network in self._kept()
            for lease in read(dnsmasq.leases(self._folders(network)))
        )


def _may_go_on(was: NetworkService, becomes: NetworkService) -> bool:
    """Whether a dnsmasq needs no more than a hint to read its files again."""
    one, other = ((each.addresses, each.mac, each.files.config) for each in (was, becomes))
    return one == other


def _keep(path: Path, service: NetworkService) -> None:
    fresh = path.with_suffix(".new")
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(asdict(service), file)
        fresh.replace(path)
    except OSError as error:
        raise HostError(f"cannot write {path}: {error.strerror}") from error


def _service(plain: Any) -> NetworkService:
    port, files = Port(**plain["port"]), Files(**plain["files"])
    return NetworkService(
        plain["network"],
        port,
        plain["mac"],
        tuple(plain["addresses"]),
        files,
        tuple(plain["forwarders"]),
        plain["mtu_bytes"],
    )


def _wanted_port(service: NetworkService) -> WantedPort:
    return WantedPort(service.mac, service.addresses, service.mtu_bytes, service.forwarders)
