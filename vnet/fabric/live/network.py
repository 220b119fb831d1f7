"""The `Network` of this host: a namespace with persistent TAPs in it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from vnet.base.errors import HostError
from vnet.fabric.live import netns
from vnet.fabric.live.netns import Namespace
from vnet.fabric.state import CABLE
from vnet.switch.live import ports


class HostNetwork:
    """See `vnet.fabric.live.parts.Network`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._namespace = Namespace(name)

    async def exists(self) -> bool:
        """Whether the namespace is there."""
        return netns.exists(self.name)

    async def create(self) -> None:
        """Make it, and silence the kernel's stack in it."""
        await netns.finished(None, self._create)

    def _create(self) -> None:
        if not netns.exists(self.name):
            netns.create(self.name)
        self._namespace.run_blocking(ports.silence)

    async def remove(self) -> None:
        """Remove it with all that is in it. Raises HostError if interfaces of the host are."""
        if netns.exists(self.name):
            await self._refuse_loss()
        await netns.finished(None, netns.remove, self.name)

    async def _refuse_loss(self) -> None:
        """A veth would be gone, and hardware not be called as it was."""
        of_host = [name for name in await self.interfaces() if name.startswith(CABLE)]
        if of_host:
            back = f"`ip -n {self.name} link set {of_host[0]} netns 1 name NAME`"
            raise HostError(
                f"interfaces of the host are still in the network namespace {self.name}: "
                f"{', '.join(of_host)}; give them back by hand with {back} if `vnet down` cannot"
            )

    async def interfaces(self) -> Mapping[str, str]:
        """Name → kind."""
        return await self._namespace.run(ports.interfaces)

    async def create_port(self, ifname: str) -> None:
        """Make a TAP."""
        await self._namespace.run(ports.create_tap, ifname)

    async def resize_port(self, ifname: str, mtu_bytes: int) -> None:
        """Give an interface an MTU."""
        await self._namespace.run(ports.resize, ifname, mtu_bytes)

    async def remove_port(self, ifname: str) -> None:
        """Delete an interface."""
        await self._namespace.run(ports.remove, ifname)

    def open_tap(self, ifname: str) -> int:
        """A descriptor of a TAP, for QEMU; blocks, so call it from a thread."""
        return self._namespace.run_blocking(ports.open_tap, ifname)

    async def close(self) -> None:
        """End the thread; everything stays."""
        await asyncio.to_thread(self._namespace.close)
