"""Tries whether the targets of published ports answer, from the gateway that sends connections to them."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address

from vnet.services.gateway import AS_HOST, Dead, Forwarding
from vnet.switch.live.netns import inside

PATIENCE_S = 1.0
"""How long a target has to take a connection."""


async def dead(netns: str, forwarding: Forwarding) -> Dead:
    """Those of a gateway's targets that take no connection.

    One that only the host may ask for is tried as the host would: policies tell it from others.
    """
    asked: dict[tuple[str, int], bool] = {}
    for door in forwarding.doors:
        for target in door.checked:
            key = target, door.target_port
            asked[key] = door.is_local and asked.get(key, True)
    answers = await asyncio.gather(*(_answers(netns, *each, as_host) for each, as_host in asked.items()))
    return frozenset(each for each, is_there in zip(asked, answers, strict=True) if not is_there)


async def _answers(netns: str, address: str, port: int, as_host: bool) -> bool:
    with await asyncio.to_thread(_socket, netns, address, as_host) as trial:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.get_running_loop().sock_connect(trial, (address, port))
        except OSError:  # TimeoutError is one
            return False
    return True


def _socket(netns: str, address: str, as_host: bool) -> socket.socket:
    """A socket is in the namespace in which it was made, whoever uses it."""
    family = socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6
    with inside(netns):
        made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    if as_host:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, AS_HOST)
    return made
