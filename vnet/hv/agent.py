"""The language of the guest's agent, as bytes in and events out; `guest/agent` is the other end.

The host sends lines (`sync`, `data`, `run`, `kill`); the guest answers `synced NONCE` and
`done ID CODE OUT ERR` followed by OUT + ERR bytes. The port has no connections: a client may begin in
the middle of what an earlier one asked for. So nothing counts until the answer to the client's own
nonce has been seen, which no older byte can contain.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vnet.base.errors import InputError, PeerError

PORT_NAME = "org.vnet.agent"

CHUNK_BYTES = 32768
"""How much standard input one `data` line announces at most."""

MAX_OUTPUT_BYTES = 64 << 20
"""More than the guest's own limit (32 MiB per stream): a guest that announces more lies."""

_END = " #"
"""Ends a command line, and quoted words have no such end: of one whose client died half of it is not run."""
_MAX_LINE_BYTES = 256


@dataclass(frozen=True, slots=True)
class Done:
    """A command ended."""

    id: str
    exit_code: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True)
class Synced:
    """From here on all answers are to this client."""


Event = Done | Synced


def encode_sync(nonce: str, *, flush: bool) -> bytes:
    """Asks for the sign that the guest reads our lines.

    `flush` precedes it with a line as long as what the guest may still be reading of an older client's input.
    """
    return b"=" * (CHUNK_BYTES if flush else 0) + f"\nsync {nonce}\n".encode()


def encode_run(command_id: str, argv: list[str], stdin: bytes) -> Iterator[bytes]:
    """Asks for a command: its standard input in pieces, then the words.

    Raises:
        InputError: a word contains a NUL, which no command line can.
    """
    words = " ".join(quote(word) for word in argv)
    for start in range(0, len(stdin), CHUNK_BYTES):
        chunk = stdin[start : start + CHUNK_BYTES]
        yield f"data {command_id} {len(chunk)}\n".encode() + chunk
    yield f"run {command_id} {words}{_END}\n".encode("utf-8", "surrogateescape")


def encode_kill(command_id: str) -> bytes:
    """Asks for the end of a command; its answer comes as always."""
    return f"kill {command_id}\n".encode()


def quote(word: str) -> str:
    """A word for the guest's shell that stays in one line."""
    if "\0" in word:
        raise InputError(f"a command line cannot contain a NUL: {word!r}")
    if "\n" in word or "\r" in word:
        escaped = word.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r")
        return f"$'{escaped}'"
    return "'" + word.replace("'", "'\\''") + "'"


class Reader:
    """Takes the guest's bytes, however they are split, and gives events.

    The guest is not trusted: a line that is no answer, or an answer that announces too much, is a
    `PeerError`, after which the reader is of no use.
    """

    def __init__(self, nonce: str) -> None:
        self._mark = f"synced {nonce}\n".encode()
        self._synced = False
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that these bytes complete."""
        self._buffer += data
        if not self._synced:
            if not self._skip_to_mark():
                return
            yield Synced()
        while event := self._next():
            yield event

    def _skip_to_mark(self) -> bool:
        position = self._buffer.find(self._mark)
        if position < 0:
            del self._buffer[: -len(self._mark)]
            return False
        del self._buffer[: position + len(self._mark)]
        self._synced = True
        return True

    def _next(self) -> Event | None:
        end = self._buffer.find(b"\n", 0, _MAX_LINE_BYTES)
        if end < 0:
            if len(self._buffer) >= _MAX_LINE_BYTES:
                raise PeerError(f"the guest's agent sent no answer but {bytes(self._buffer[:60])!r}")
            return None
        line = bytes(self._buffer[:end])
        if line.startswith(b"synced "):
            del self._buffer[: end + 1]
            return self._next()
        command_id, exit_code, out, err = _parse_done(line)
        start = end + 1
        if len(self._buffer) < start + out + err:
            return None
        stdout = bytes(self._buffer[start : start + out])
        stderr = bytes(self._buffer[start + out : start + out + err])
        del self._buffer[: start + out + err]
        return Done(command_id, exit_code, stdout, stderr)


def _parse_done(line: bytes) -> tuple[str, int, int, int]:
    words = line.split(b" ")
    if len(words) != 5 or words[0] != b"done" or not all(word.isdigit() for word in words[2:]):
        raise PeerError(f"the guest's agent sent no answer but {line[:60]!r}")
    exit_code, out, err = (int(word) for word in words[2:])
    if out + err > MAX_OUTPUT_BYTES:
        raise PeerError(f"the guest's agent announced {out + err} bytes of output")
    return words[1].decode("ascii", "replace"), exit_code, out, err
