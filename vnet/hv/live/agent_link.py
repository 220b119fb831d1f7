"""The way to the agent in one guest: vnet's own, or the one that distributions bring."""

from __future__ import annotations

import asyncio
import secrets
import time
from pathlib import Path

from vnet.base import paths
from vnet.base.errors import PeerError, TimedOut
from vnet.hv.identity import ENTROPY_BYTES, identity_lines
from vnet.hv.live.agent_client import AgentClient
from vnet.hv.live.agent_connection import AgentConnection
from vnet.hv.live.console import ConsoleTail
from vnet.hv.live.deadline import deadline
from vnet.hv.live.guest_agent import GuestAgentClient
from vnet.hv.spec import GuestSpec

CLONE_TIMEOUT_S = 30.0
BOOT_TIMEOUT_S = 60.0
CONFIGURE_TIMEOUT_S = 20.0


class AgentLink:
    """A connection that is made when somebody needs it, and made anew once it broke."""

    def __init__(self) -> None:
        self._client: AgentConnection | None = None
        self._lock = asyncio.Lock()

    @property
    def connected(self) -> bool:
        """Whether there is a connection and the agent has answered over it."""
        return self._client is not None and self._client.connected

    async def now(self, spec: GuestSpec, timeout_s: float) -> AgentConnection:
        """The agent of a guest, connected if it is not. Raises PeerError, TimedOut if it does not answer."""
        async with deadline(timeout_s, f"{spec.name} is being asked by another, and has not answered"):
            await self._lock.acquire()
        try:
            if self._client is None or not self._client.connected:
                if self._client:
                    await self._client.close()
                self._client = await _connect(spec, timeout_s)
            return self._client
        finally:
            self._lock.release()

    async def await_boot(self, spec: GuestSpec, *, warm: bool, fresh: bool) -> None:
        """Waits until vnet's own agent answers in a guest that has begun to run.

        A boot that hangs is explained by the end of its console.

        Args:
            warm: whether it is a clone, which has booted already.
            fresh: whether nobody has spoken to it before.
        """
        timeout_s = CLONE_TIMEOUT_S if warm else BOOT_TIMEOUT_S
        console = ConsoleTail(paths.vm_run_dir(spec.fabric, spec.name) / "console.sock")
        try:
            self._client = await AgentClient.connect(_socket(spec), timeout_s=timeout_s, fresh=fresh)
        except TimedOut as error:
            raise TimedOut(f"{spec.name}: {error}; its console ends with:\n{console.text}") from error
        finally:
            await console.close()

    async def configure(self, spec: GuestSpec) -> None:
        """Tells a guest of vnet's who it is: its name, its addresses, the time."""
        assert self._client is not None
        lines = identity_lines(spec, time.time() + 0.5, secrets.token_bytes(ENTROPY_BYTES))
        await configure(self._client, spec.name, lines)

    def tell_time(self) -> None:
        """What time it is, to a distribution's guest that stood still."""
        if isinstance(self._client, GuestAgentClient) and self._client.connected:
            self._client.tell_time(time.time_ns())

    async def close(self) -> None:
        """Lets go of the connection; nobody finds it any more."""
        client, self._client = self._client, None
        if client:
            await client.close()


async def configure(agent: AgentConnection, name: str, lines: bytes) -> None:
    """Has a guest of vnet's do what lines of `vnet.hv.identity` say. Raises PeerError, TimedOut."""
    done = await agent.run(["/sbin/configure"], stdin=lines, timeout_s=CONFIGURE_TIMEOUT_S)
    if done.exit_code:
        text = (done.stderr + done.stdout).decode(errors="replace").strip()
        raise PeerError(f"{name} could not configure itself ({done.exit_code}): {text}")


def _socket(spec: GuestSpec) -> Path:
    return paths.vm_run_dir(spec.fabric, spec.name) / "agent.sock"


async def _connect(spec: GuestSpec, timeout_s: float) -> AgentConnection:
    if spec.is_micro:
        return await AgentClient.connect(_socket(spec), timeout_s=timeout_s)
    try:
        agent = await GuestAgentClient.connect(_socket(spec), timeout_s=timeout_s)
        try:
            await agent.thaw_what_was_left()
        except BaseException:
            await agent.close()
            raise
        return agent
    except TimedOut as error:
        name = spec.name
        raise TimedOut(
            f"{name}: {error}. Is it still booting (`vnet logs {name}`)? Without qemu-guest-agent in it "
            f"there is `vnet console {name}`, `vnet screenshot {name}`, and its network"
        ) from error
