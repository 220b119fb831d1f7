"""What a trace is asked, and whom: apart from what answers it, which imports Scapy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from vnet.openflow.conntrack import Direction
from vnet.switch.trace import Connection, Traced


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as it came: `packet` (an expression), `frame`, or `target` and `service` are given.

    Of a frame that a capture cut off, the first `captured` bytes are known and the others are zeros.
    """

    source: str = ""
    target: str = ""
    service: str = ""
    packet: str = ""
    frame: bytes = b""
    captured: int | None = None
    new: bool = False
    reply: bool = False


class Sandbox(Protocol):
    """See `vnet.switch.live.sandbox.Sandbox`."""

    def run(self, in_port: int, frame: bytes) -> Traced:
        """What would become of a frame."""
        ...

    def forget(self, connection: Connection) -> None:
        """From now on without a connection."""
        ...

    def assume(self, direction: Direction, mark: int) -> None:
        """Have a connection as if its first packet had just been let through."""
        ...
