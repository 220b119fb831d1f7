"""The screens of VMs that have one."""

from __future__ import annotations

from pathlib import Path

from vnet.fabric.live.engine import Engine


async def vnc_socket(engine: Engine, name: str, vm: str) -> Path:
    """Where VNC is spoken with a VM. Raises HostError if it has no screen."""
    return await engine.fabric(name).parts.guests.vnc_socket(engine.guest(name, vm).name)


async def picture(engine: Engine, name: str, vm: str) -> bytes:
    """What is on a VM's screen, as PNG."""
    return await engine.fabric(name).parts.guests.picture(engine.guest(name, vm).name)
