"""TCP addresses that the daemon listens on when asked to."""

from __future__ import annotations

import re
import socket

from vnet.base.errors import HostError, UsageError

_ADDRESS = re.compile(r"(?P<host>[^:\s]+|\[[0-9a-fA-F:.%]+\]):(?P<port>[0-9]{1,5})")


def parse(text: str) -> tuple[str, int]:
    """`127.0.0.1:9464` or `[::1]:9464` as host and port. Raises UsageError."""
    found = _ADDRESS.fullmatch(text)
    port = int(found["port"]) if found else 65536
    if found is None or port > 65535:
        raise UsageError(f"{text!r} is no address to listen on: write HOST:PORT, for instance 127.0.0.1:9464")
    return found["host"].strip("[]"), port


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises HostError."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family)
    except OSError as error:
        raise HostError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error
