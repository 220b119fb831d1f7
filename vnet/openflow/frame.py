"""A byte stream -> whole OpenFlow messages, however the stream was cut into pieces."""

from __future__ import annotations

import struct

from vnet.openflow.codec_error import CodecError
from vnet.openflow.message import BadRequest, ErrorType

_HEADER = struct.Struct("!BBHI")


class Splitter:
    """Give it bytes with `feed`, take the messages it returns.

    A length below that of the header leaves no way to find the next message: `broken` then tells
    what to answer, and every later byte is dropped. Versions are the codec's concern: it answers a
    message of a wrong one and the stream goes on.
    """

    __slots__ = ("_buffer", "broken")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.broken: CodecError | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that `data` completes; what is left over waits for more."""
        if self.broken:
            return []
        self._buffer += data
        messages: list[bytes] = []
        offset = 0
        while len(self._buffer) - offset >= _HEADER.size:
            _, _, length, xid = _HEADER.unpack_from(self._buffer, offset)
            if length < _HEADER.size:
                rest = bytes(self._buffer[offset:])
                self.broken = CodecError(ErrorType.BAD_REQUEST, BadRequest.BAD_LEN, rest, xid)
                self._buffer.clear()
                return messages
            if len(self._buffer) - offset < length:
                break
            messages.append(bytes(self._buffer[offset : offset + length]))
            offset += length
        del self._buffer[:offset]
        return messages

    @property
    def pending_type(self) -> int | None:
        """The type of the message whose beginning is held back, once that can be told."""
        return self._buffer[1] if len(self._buffer) > 1 else None

    def __len__(self) -> int:
        """Bytes held back."""
        return len(self._buffer)
