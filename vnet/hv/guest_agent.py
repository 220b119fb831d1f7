"""The language of QEMU's guest agent (qemu-ga), as bytes in and answers out; distributions bring the agent.

Commands and answers are lines of JSON, one after the other, and the port has no connections: a client may
begin in the middle of what an earlier one asked for. So nothing counts until the answer to the client's own
`guest-sync-delimited` has been seen, which begins with a byte that no text can contain.

Source: QEMU 7.2, docs/interop/qemu-ga-ref; qga/qapi-schema.json.
"""

from __future__ import annotations

import binascii
import json
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from vnet.base.errors import HostError, InputError, PeerError
from vnet.hv.spec import ExecResult

PORT_NAME = "org.qemu.guest_agent.0"

DELIMITER = b"\xff"

MAX_ANSWER_BYTES = 64 << 20
"""More than any agent says: it keeps 16 MiB of output and of errors each, and sends them as base64."""

_MAX_SYNC_BYTES = 256
_EXEC = 'cd /root 2>/dev/null; export HOME="${HOME:-/root}"; exec setsid "$@"'
"""As the micro guest's agent does it: in /root, in a session of its own, so that all of it can be ended."""


@dataclass(frozen=True, slots=True)
class Synced:
    """From here on all answers are to this client."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command came to: a JSON value, or why it was refused."""

    value: object = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Heard:
    """An earlier sign of this client was answered, so the one that counts will be: no more are asked for."""


Event = Heard | Synced | Answer


def encode(command: str, arguments: Mapping[str, object] | None = None) -> bytes:
    """One command."""
    return json.dumps({"execute": command, "arguments": dict(arguments or {})}).encode() + b"\n"


def encode_sync(number: int) -> bytes:
    """Asks for the sign that the agent reads our commands; what it has read half of is given up."""
    return DELIMITER + encode("guest-sync-delimited", {"id": number})


def encode_exec(argv: Sequence[str], stdin: bytes) -> bytes:
    """Begins a command whose output is kept.

    Raises:
        InputError: a word contains a NUL, which no command line can.
    """
    if any("\0" in word for word in argv):
        raise InputError("a command line cannot contain a NUL")
    words: dict[str, object] = {"path": "/bin/sh", "arg": ["-c", _EXEC, "sh", *argv], "capture-output": True}
    return encode("guest-exec", words | ({"input-data": b64encode(stdin).decode()} if stdin else {}))


def encode_kill(pid: int) -> bytes:
    """Ends a command with all its children; they are one session."""
    script = 'kill -KILL -- "-$1" 2>/dev/null; pkill -KILL -s "$1" 2>/dev/null; kill -KILL "$1"'
    return encode("guest-exec", {"path": "/bin/sh", "arg": ["-c", script, "sh", str(pid)]})


class Reader:
    """Takes the agent's bytes, however they are split, and gives events.

    The guest is not trusted: what is no answer, or too long for one, is a `PeerError`, after which the
    reader is of no use.
    """

    def __init__(self, number: int) -> None:
        self._first = self._last = number
        self._synced = False
        self._buffer = bytearray()
        self._searched = 0

    def next_number(self) -> int:
        """The number of the next sign to ask for; only the answer to the last one counts."""
        self._last += 1
        return self._last

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that these bytes complete."""
        self._buffer += data
        while not self._synced:
            number = self._next_sign()
            if number is None:
                return
            if number == self._last:
                self._synced = True
                yield Synced()
            elif self._first < number < self._last:
                yield Heard()
        while (line := self._next_line()) is not None:
            if line:
                yield _answer(line)

    def _next_sign(self) -> int | None:
        """The number in what next looks like an answer to a sign, all before it dropped; None: not yet there.

        What only looks like one has the number -1.
        """
        end = self._buffer.find(b"\n")
        start = self._buffer.rfind(DELIMITER, 0, end if end >= 0 else len(self._buffer))
        if end < 0:
            is_short = start >= 0 and len(self._buffer) - start < _MAX_SYNC_BYTES
            del self._buffer[: start if is_short else len(self._buffer)]
            return None
        line = bytes(self._buffer[start + 1 : end]) if start >= 0 else b""
        del self._buffer[: end + 1]
        return _returned(line)

    def _next_line(self) -> bytes | None:
        end = self._buffer.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._buffer)
            if self._searched > MAX_ANSWER_BYTES:
                raise PeerError(f"the guest's agent sent {self._searched >> 20} MiB that end nowhere")
            return None
        line = bytes(self._buffer[:end]).strip()
        del self._buffer[: end + 1]
        self._searched = 0
        return line


def _returned(line: bytes) -> int:
    """The number that an answer gives, -1 for none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return -1
    number = value.get("return") if isinstance(value, dict) else None
    return number if isinstance(number, int) else -1


def _answer(line: bytes) -> Answer:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise PeerError(f"the guest's agent sent no answer but {line[:60]!r}") from error
    if isinstance(value, dict) and "return" in value:
        return Answer(value["return"])
    if isinstance(value, dict) and isinstance(value.get("error"), dict):
        return Answer(error=str(value["error"].get("desc", ""))[:500] or "no reason given")
    raise PeerError(f"the guest's agent sent no answer but {line[:60]!r}")


# ---- what answers say ------------------------------------------------------------------------


def result(command: str, answer: Answer) -> object:
    """The value of an answer.

    Raises:
        HostError: the agent refused.
    """
    if not answer.error:
        return answer.value
    is_barred = "disabled" in answer.error or "not been found" in answer.error
    hint = "; the guest does not allow it: see block-rpcs in its qemu-ga.conf" if is_barred else ""
    raise HostError(f"the guest's agent refused {command}: {answer.error}{hint}")


def parse_pid(value: object) -> int:
    """The number of the process that `guest-exec` began."""
    pid = value.get("pid") if isinstance(value, dict) else None
    if isinstance(pid, int) and 0 < pid < 1 << 32:
        return pid
    raise PeerError(f"the guest's agent names no process but {str(value)[:60]}")


def parse_ended(value: object) -> ExecResult | None:
    """How a command ended; None while it runs. What the agent cut off is told with the errors."""
    if not isinstance(value, dict) or not isinstance(value.get("exited"), bool):
        raise PeerError(f"the guest's agent says of a command but {str(value)[:60]}")
    if not value["exited"]:
        return None
    output, errors = _bytes(value.get("out-data", "")), _bytes(value.get("err-data", ""))
    if value.get("out-truncated") or value.get("err-truncated"):
        errors += b"\nvnet: the guest's agent keeps 16 MiB of what a command prints; the rest is lost\n"
    return ExecResult(_exit_code(value), output, errors)


def _exit_code(value: Mapping[str, object]) -> int:
    signal, code = value.get("signal"), value.get("exitcode", 0)
    if isinstance(signal, int):
        return 128 + (signal & 0x7F)
    return code & 0xFF if isinstance(code, int) else 255


def _bytes(text: object) -> bytes:
    try:
        return b64decode(str(text), validate=True)
    except (binascii.Error, ValueError) as error:
        raise PeerError("the guest's agent sent output that is no base64") from error


def parse_count(value: object) -> int:
    """A number of things, such as file systems that were frozen."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32:
        return value
    raise PeerError(f"the guest's agent gives no number but {str(value)[:60]}")
