"""Listening for controllers and calling them, by address."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from vnet.base.errors import AdmissionError, HostError, InputError
from vnet.switch.address import Address, Transport
from vnet.switch.live.tls import Identity

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Accepted = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

CONNECT_S = 10.0
"""How long a call and the handshake of TLS may take."""
_BACKLOG = 64


@dataclass(frozen=True, slots=True)
class Listener:
    """Something that listens; `address` has the port that the kernel chose."""

    address: Address
    server: asyncio.Server
    inode: int = 0

    def close(self) -> None:
        """Listen no more; the name of a socket goes too, unless another process has put its own there."""
        self.server.close()
        path = Path(self.address.path)
        if self.inode and path.exists() and path.stat().st_ino == self.inode:
            path.unlink()


async def listen(address: Address, accepted: Accepted, identity: Identity | None) -> Listener:
    """Raises: AdmissionError if somebody listens there already, HostError if the socket cannot be made."""
    if address.transport is Transport.UNIX:
        return await _listen_unix(address, accepted)
    context = _as_server(address, identity)
    handshake_s = CONNECT_S if context else None
    try:
        server = await asyncio.start_server(
            accepted,
            address.host,
            address.port,
            backlog=_BACKLOG,
            ssl=context,
            ssl_handshake_timeout=handshake_s,
        )
    except OSError as error:
        raise HostError(f"cannot listen on {address}: {error}") from error
    return Listener(replace(address, port=server.sockets[0].getsockname()[1]), server)


async def _listen_unix(address: Address, accepted: Accepted) -> Listener:
    path = Path(address.path)
    listener = _bind(path)
    server = await asyncio.start_unix_server(accepted, sock=listener)
    return Listener(address, server, path.stat().st_ino)


async def call(address: Address, identity: Identity | None) -> Streams:
    """Raises: OSError, TimeoutError included, if there is no answer."""
    async with asyncio.timeout(CONNECT_S):
        if address.transport is Transport.UNIX:
            return await asyncio.open_unix_connection(address.path)
        context = as_client(address, identity)
        return await asyncio.open_connection(address.host, address.port, ssl=context)


def as_client(address: Address, identity: Identity | None) -> ssl.SSLContext | None:
    """What a call needs for TLS. Raises InputError if that is missing, HostError if it cannot be used."""
    return _identity(address, identity).as_client() if address.transport is Transport.TLS else None


def _as_server(address: Address, identity: Identity | None) -> ssl.SSLContext | None:
    return _identity(address, identity).as_server() if address.transport is Transport.TLS else None


def _identity(address: Address, identity: Identity | None) -> Identity:
    if identity is None:
        raise InputError(f"{address}: TLS needs a private key, a certificate and the CA of the peers")
    return identity


def _bind(path: Path) -> socket.socket:
    """A listening socket that only its owner can open, under its name only when it listens."""
    _clear_stale(path)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        listener.bind(str(fresh))
        fresh.chmod(0o600)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        fresh.rename(path)
    except OSError as error:
        listener.close()
        fresh.unlink(missing_ok=True)
        raise HostError(f"cannot listen on {path}: {error}") from error
    return listener


def _clear_stale(path: Path) -> None:
    """Remove a socket that nobody listens on; refuse to touch anything else."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise AdmissionError(f"{path} exists and is not a socket: move it away")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise HostError(f"cannot tell whether somebody listens on {path}: {error}") from error
        else:
            raise AdmissionError(f"another process listens on {path}: stop it first")
