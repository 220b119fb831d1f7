"""Carries connections from a TCP port of this machine to a unix socket, until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from vnet.base.errors import HostError
from vnet.cli.output import tell

_READ_BYTES = 1 << 16


def forward(address: tuple[str, int], path: Path, what: str) -> None:
    """Listen, and carry every connection. Raises HostError when the address cannot be had."""
    asyncio.run(_listen(address, path, what))


async def _listen(address: tuple[str, int], path: Path, what: str) -> None:
    host, port = address

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_unix_connection(str(path))
        except OSError as error:
            tell(f"cannot connect to {path}: {error.strerror}")
            writer.close()
            return
        await asyncio.gather(_copy(reader, there[1]), _copy(there[0], writer))

    try:
        server = await asyncio.start_server(carry, host, port)
    except OSError as error:
        raise HostError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    port = server.sockets[0].getsockname()[1]
    tell(f"{what} at {f'[{host}]' if ':' in host else host}:{port}; Ctrl-C ends it")
    async with server:
        await server.serve_forever()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_READ_BYTES):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()
