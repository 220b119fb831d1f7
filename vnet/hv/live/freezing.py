"""File systems of guests at rest, so that disks alone make sense: asked of whichever agent a guest has.

Snapshots and backups do it here alike. Whatever becomes of this daemon, the guest goes on: a watchdog in it
thaws its file systems; qemu-guest-agent, which takes no commands meanwhile, is told by who connects next.
"""

from __future__ import annotations

from contextlib import suppress

from vnet.base.errors import VnetError
from vnet.hv.freeze import FREEZE, NOTHING_THERE, REST, THAW, TIMEOUT_S, WATCH, Freeze
from vnet.hv.live.agent_connection import AgentConnection
from vnet.hv.live.guest import Guest
from vnet.hv.live.guest_agent import GuestAgentClient
from vnet.hv.spec import ExecResult

NOTHING_TO_FREEZE = Freeze(True, "it has no file system of a disk mounted")
"""At rest as it is."""
_ANSWER_S = 5.0
"""An agent that runs answers sooner; a guest without one is not waited for longer."""


async def freeze(guest: Guest) -> Freeze:
    """Let all that a guest held back be written, and no more come until `thaw`; told as it came out.

    A guest that cannot is as it was before.
    """
    if not guest.goes_on:
        return Freeze(False, "it is paused")
    try:
        agent = await guest.agent_now(_ANSWER_S)
    except VnetError as error:
        return Freeze(False, str(error))
    try:
        frozen = await (_by_agent(agent) if isinstance(agent, GuestAgentClient) else _by_script(agent))
    except VnetError as error:
        frozen = Freeze(False, str(error))
    except BaseException:
        await thaw(guest)
        raise
    if not frozen.is_frozen:
        await thaw(guest)  # some of them may be
    return frozen


async def _by_agent(agent: GuestAgentClient) -> Freeze:
    with suppress(VnetError):  # one that may not run commands has no watchdog: whoever connects next thaws
        await _sh(agent, WATCH)
    count = await agent.freeze(TIMEOUT_S)
    return Freeze(True) if count else Freeze(False, "its agent found no file system that can be frozen")


async def _by_script(agent: AgentConnection) -> Freeze:
    done = await _sh(agent, FREEZE)
    if done.exit_code == NOTHING_THERE:
        return NOTHING_TO_FREEZE
    why = (done.stderr or done.stdout).decode(errors="replace").strip()[-500:]
    return Freeze(True) if done.exit_code == 0 else Freeze(False, why or f"exit code {done.exit_code}")


async def thaw(guest: Guest) -> bool:
    """Let it write again. Returns whether it stood still until now."""
    with suppress(VnetError):  # it thaws itself soon
        agent = await guest.agent_now(_ANSWER_S)
        if not isinstance(agent, GuestAgentClient):
            return (await _sh(agent, THAW)).exit_code != NOTHING_THERE
        count = await agent.thaw(TIMEOUT_S)
        with suppress(VnetError):
            await _sh(agent, REST)
        return count > 0
    return False


async def _sh(agent: AgentConnection, script: str) -> ExecResult:
    return await agent.run(["sh", "-c", script], stdin=b"", timeout_s=TIMEOUT_S)
