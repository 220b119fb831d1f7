"""File systems of guests at rest, so that disks alone make sense: asked of whichever agent a guest has."""

from __future__ import annotations

from contextlib import suppress

from vnet.base.errors import PeerError, VnetError
from vnet.hv import saving
from vnet.hv.live.agent_client import AgentClient
from vnet.hv.live.guest import Guest
from vnet.hv.live.guest_agent import GuestAgentClient

_TIMEOUT_S = 10.0


async def freeze(guest: Guest) -> bool:
    """Whether all that a guest held back is on its disks, and no more comes until `thaw`.

    Called by who holds the guest's lock. A guest that cannot is as it was before.
    """
    try:
        agent = await _agent(guest)
        if isinstance(agent, GuestAgentClient):
            return await agent.freeze(_TIMEOUT_S) > 0
        await _run(agent, saving.FREEZE)
    except VnetError:
        await thaw(guest)  # some of them may be frozen
        return False
    return True


async def thaw(guest: Guest) -> None:
    """It goes on writing. Nothing is wrong with one that was not frozen."""
    with suppress(VnetError):
        agent = await _agent(guest)
        if isinstance(agent, GuestAgentClient):
            await agent.thaw(_TIMEOUT_S)
        else:
            await _run(agent, saving.THAW)


async def _agent(guest: Guest) -> AgentClient | GuestAgentClient:
    return await guest.agent_now(_TIMEOUT_S)


async def _run(agent: AgentClient, script: str) -> None:
    done = await agent.run(["sh", "-c", script], stdin=b"", timeout_s=_TIMEOUT_S)
    if done.exit_code:
        raise PeerError(done.stderr.decode(errors="replace"))
