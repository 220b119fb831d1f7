"""Asks the daemon: HTTP over its unix socket, JSON and JSON Lines.

Only the standard library: this is what every command pays for at its start.
"""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from vnet.base import paths
from vnet.base.errors import Exit, HostError, PeerError, TimedOut, VnetError

Json = dict[str, Any]
_GONE = "the daemon went away in the middle of the operation; run `vnet ps` to see what is there"
_INTERRUPTED = "interrupted: what was begun is undone, or finished where there is no way back"


class RemoteError(VnetError):
    """What the daemon refused; it says the exit code too."""

    def __init__(self, message: str, exit_code: int, kind: str = "", faults: tuple[Json, ...] = ()) -> None:
        super().__init__(message)
        self.exit_code = Exit(exit_code)
        self.kind = kind
        self.faults = faults


class _UnixConnection(HTTPConnection):
    def __init__(self, path: Path, timeout_s: float | None) -> None:
        super().__init__("vnetd", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Client:
    """One daemon. `timeout_s` bounds the silence on a connection, None waits for ever."""

    def __init__(self, path: Path | None = None, timeout_s: float | None = None) -> None:
        self.path = path or paths.daemon_socket()
        self.timeout_s = timeout_s
        self.operation = ""
        """The number of the stream that was read last."""

    def alive(self) -> bool:
        """Whether a daemon listens. Raises HostError if this user may not ask it."""
        probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            probe.connect(str(self.path))
        except PermissionError:
            raise HostError(
                f"this user may not use {self.path}: run the command as root, or join the group `vnet`"
            ) from None
        except OSError:
            return False
        finally:
            probe.close()
        return True

    def get(self, path: str, **query: Any) -> Any:
        """One JSON answer."""
        with self._open("GET", path + _query(query)) as response, self._listening():
            return json.loads(response.read())

    def post(self, path: str, body: Json | None = None) -> Any:
        """One JSON answer to a request with a body."""
        with self._open("POST", path, body or {}) as response, self._listening():
            return json.loads(response.read())

    def delete(self, path: str, **query: Any) -> Any:
        """One JSON answer to a request that something be removed."""
        with self._open("DELETE", path + _query(query)) as response, self._listening():
            return json.loads(response.read())

    def read(self, path: str, **query: Any) -> Generator[bytes, None, None]:
        """The bytes of a stream as they come (a capture).

        Ctrl-C asks the daemon to end it and goes on reading, so that the stream is whole.
        """
        with self._open("GET", path + _query(query)) as response:
            self.operation = response.headers["X-Operation"] or ""
            operation = [self.operation]
            with self._listening(), on_ctrl_c(lambda: self._break_off(operation, lambda _: None)):
                while block := response.read1(65536):
                    yield block

    def fetch(self, path: str) -> Generator[bytes, None, None]:
        """The bytes of a file; Ctrl-C leaves at once."""
        with self._open("GET", path) as response, self._listening():
            while block := response.read(1 << 20):
                yield block

    def run(self, method: str, path: str, body: Json | None, report: Callable[[Json], None]) -> Json:
        """A long operation: tells its progress, gives its result.

        Ctrl-C asks the daemon to break it off and goes on listening, so that what happened is told;
        a second Ctrl-C only leaves.
        """
        with self._open(method, path, body) as response:
            operation: list[str] = []
            try:
                with self._listening(), on_ctrl_c(lambda: self._break_off(operation, report)):
                    return self._result(response, report, operation)
            except BaseException:
                report({"type": "end"})  # what was running is not told of any more
                raise

    def _break_off(self, operation: list[str], report: Callable[[Json], None]) -> None:
        """Called between two reads, never in the middle of one: that would lose its bytes."""
        if not operation:
            raise KeyboardInterrupt
        report({"type": "progress", "status": "note", "what": _INTERRUPTED})
        self.post(f"/v1/operations/{operation.pop()}/cancel")

    def _result(self, response: HTTPResponse, report: Callable[[Json], None], operation: list[str]) -> Json:
        while line := response.readline():
            message: Json = json.loads(line)
            match message["type"]:
                case "operation":
                    operation.append(message["id"])
                case "plan" | "progress":
                    report(message)
                case "result":
                    return message
                case "error":
                    raise remote_error(message["error"])
        raise PeerError(_GONE)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Say in words what can become of an answer on its way."""
        try:
            yield
        except TimeoutError:
            raise TimedOut(
                f"vnetd said nothing for {self.timeout_s:g} s; what was begun is being undone"
            ) from None
        except (ConnectionError, HTTPException):
            raise PeerError(_GONE) from None

    def _open(self, method: str, path: str, body: Json | None = None) -> HTTPResponse:
        connection = _UnixConnection(self.path, self.timeout_s)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
        except TimeoutError:
            raise TimedOut(f"vnetd did not answer within {self.timeout_s:g} s") from None
        except (OSError, HTTPException) as error:
            raise HostError(f"cannot reach vnetd at {self.path}: {error}") from error
        if response.status >= 400:
            with response:
                raise _refusal(response)
        return response


@contextmanager
def on_ctrl_c(action: Callable[[], None]) -> Iterator[None]:
    """Have Ctrl-C call something instead of raising KeyboardInterrupt."""
    before = signal.signal(signal.SIGINT, lambda number, frame: action())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def path(*parts: str) -> str:
    """A path of the API with its parts quoted."""
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def data(message: Json) -> Json:
    """A message of the daemon without its type, to be printed."""
    return {key: value for key, value in message.items() if key != "type"}


def remote_error(error: Mapping[str, Any]) -> RemoteError:
    """The exception for an error as the daemon writes it."""
    return RemoteError(error["message"], error["exit"], error["kind"], tuple(error.get("faults", ())))


def _refusal(response: HTTPResponse) -> VnetError:
    text = response.read()
    try:
        return remote_error(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return PeerError(f"vnetd answered {response.status}: {text[:500].decode(errors='replace')}")


def _query(query: Mapping[str, Any]) -> str:
    given = {key: value for key, value in query.items() if value is not None}
    return f"?{urlencode(given, doseq=True)}" if given else ""
