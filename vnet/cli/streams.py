"""A stream to a TCP port in a VM, without a network: a port of its machine, and a relay that its agent runs.

The relay is a command like any other (`vnet exec`): it ends when either side leaves, and with this process.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vnet.base.errors import HostError
from vnet.cli.client import Client, Json, path
from vnet.hv import stream

_FOR_EVER_S = 1e9
_HOLD_S = 1.0
"""What comes in is held back so long, unless something comes out: a relay that finds the port taken ends."""
_GRACE_S = 5.0
"""After this side has left, the relay has so long to end."""
_BLOCK_BYTES = 1 << 16


class Guest:
    """A VM whose agent runs commands, as the daemon at the other end of `client` has it."""

    def __init__(self, client: Client, fabric: str, vm: str, timeout_s: float) -> None:
        self.fabric, self.vm = fabric, vm
        self._client, self._timeout_s = client, timeout_s

    def who(self) -> tuple[tuple[str, ...], str]:
        """The keys of its SSH server, and the user to log in as; empty if there is none."""
        answer = self._run(list(stream.WHO), self._timeout_s)
        return stream.parse_who(b64decode(answer["stdout"]))

    def relay(self, tcp_port: int, keys: int, screen: int) -> None:
        """Copies between two descriptors and a TCP port of the VM until one side ends.

        Raises:
            HostError: there is no way to it.
        """
        folder = self._folder()
        for number in range(stream.STREAMS):
            place = folder / stream.socket_of(number)
            with _own(place) as joined:
                if joined is None:
                    continue
                copying = _Copying(joined, keys, screen)
                code = int(self._run(stream.relay(number, tcp_port), _FOR_EVER_S)["exit_code"])
                copying.end()
                if code != stream.BUSY:
                    self._refuse(code, tcp_port)
                    return
        raise HostError(f"all {stream.STREAMS} streams of {self.vm} are in use: end another `vnet ssh` first")

    def _refuse(self, code: int, tcp_port: int) -> None:
        if code == stream.NO_PORT:
            raise HostError(f"{self.vm} has no streams: the micro guest has no SSH server, use `vnet exec`")
        if code == stream.NOBODY:
            raise HostError(f"nobody listens at 127.0.0.1:{tcp_port} in {self.vm}")

    def _folder(self) -> Path:
        answer = self._client.get(path("fabrics", self.fabric, "vms", self.vm, "console"))
        return Path(answer["socket"]).parent

    def _run(self, argv: list[str], timeout_s: float) -> Json:
        self._client.timeout_s = None
        body = {"argv": argv, "timeout_s": timeout_s, "stdin": ""}
        where = path("fabrics", self.fabric, "vms", self.vm, "exec")
        return self._client.run("POST", where, body, lambda message: None)


@contextmanager
def _own(place: Path) -> Iterator[socket.socket | None]:
    """The stream, connected; None where another process has it.

    A name among abstract sockets is the lock: it goes with the process, whatever that ends by.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as lock:
        try:
            lock.bind(f"\0vnet {place}"[:107])
        except OSError:
            yield None
            return
        with _connected(place) as joined:
            yield joined


def _connected(place: Path) -> socket.socket:
    joined = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        joined.connect(str(place))
    except FileNotFoundError:
        joined.close()
        raise HostError(f"there is no stream {place}: the micro guest has none") from None
    except OSError as error:
        joined.close()
        raise HostError(f"cannot open the stream {place}: {error.strerror}") from error
    return joined


class _Copying:
    """Copies in a thread of its own, since the main one waits for the relay's end."""

    def __init__(self, joined: socket.socket, keys: int, screen: int) -> None:
        self._joined, self._keys, self._screen = joined, keys, screen
        self._over, self._wakes = os.pipe()
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """The relay has ended: what it has sent before is copied, no more is taken."""
        os.close(self._wakes)
        self._thread.join(_GRACE_S)

    def _copy(self) -> None:
        if not self._hold() or not self._both_ways():
            return
        with suppress(OSError):
            self._joined.shutdown(socket.SHUT_RDWR)  # the relay in the guest sees an end of file
        ready, _, _ = select.select([self._over], [], [], _GRACE_S)
        if not ready:
            os._exit(0)  # it hangs; the daemon ends it when this process is gone

    def _hold(self) -> bool:
        joined = self._joined.fileno()
        ready, _, _ = select.select([joined, self._over], [], [], _HOLD_S)
        return self._over not in ready or joined in ready

    def _both_ways(self) -> bool:
        """Returns whether it was this side that left."""
        joined = self._joined.fileno()
        while True:
            ready, _, _ = select.select([joined, self._keys, self._over], [], [])
            if joined in ready:
                data = _received(self._joined)
                if not data:
                    return False
                _write(self._screen, data)
            elif self._over in ready:
                return False
            elif self._keys in ready:
                data = os.read(self._keys, _BLOCK_BYTES)
                if not data:
                    return True
                self._joined.sendall(data)


def _received(joined: socket.socket) -> bytes:
    try:
        return joined.recv(_BLOCK_BYTES)
    except OSError:
        return b""


def _write(screen: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(screen, view) :]
