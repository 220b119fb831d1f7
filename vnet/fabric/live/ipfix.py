"""Sends flow records to a collector over UDP. One that is not there costs nothing but the sending."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from vnet.base.errors import HostError, InputError
from vnet.capture.record import PacketRecord
from vnet.fabric.exported import Drops, flows
from vnet.fabric.ipfix import DOMAIN, EXPORTING, INTERFACE, METERING, Encoder, Losses, Named, Record, domain
from vnet.fabric.live.history import Look, Observer
from vnet.fabric.observed import Names
from vnet.fabric.scan import Change

log = logging.getLogger(__name__)

TEMPLATES_S = 60.0
"""How often templates are sent again: a collector may have begun after us (RFC 7011, section 8.4)."""
DEFAULT_PORT = 4739
"""Of IPFIX (RFC 7011, section 10.3.4)."""


def collector(text: str) -> tuple[str, int]:
    """`HOST`, `HOST:PORT`, `[IPV6]:PORT`. Raises InputError."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]") or text.count(":") > 1 and not host.endswith("]"):
        host, port = text, str(DEFAULT_PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(f"IPFIX collector {text}: write HOST:PORT, for instance 192.0.2.1:{DEFAULT_PORT}")
    return host, int(port)


def wanted() -> tuple[str, int] | None:
    """The collector that VNET_IPFIX names; None if it does not."""
    text = os.environ.get("VNET_IPFIX", "")
    return collector(text) if text else None


class Sender:
    """A socket to the collector; what cannot be sent is counted."""

    def __init__(self, host: str, port: int) -> None:
        try:
            family, _, _, _, to = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            self._socket = socket.socket(family, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            self._socket.connect(to)
        except OSError as error:
            raise HostError(f"cannot send IPFIX to {host} port {port}: {error}") from error

    def send(self, message: bytes) -> bool:
        """Whether it went off. Nobody listening is told by the next call, which then is tried again."""
        for _ in range(2):
            try:
                self._socket.send(message)
            except ConnectionRefusedError:
                continue
            except OSError:
                return False
            return True
        return False

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


@dataclass(slots=True)
class Export:
    """One fabric's flow records."""

    observer: Observer
    sender: Sender
    encoder: Encoder
    drops: Drops = field(default_factory=Drops)
    unsent: int = 0
    """Records that could not be sent."""
    _told_s: float = 0.0
    _unreported: int = 0

    def dropped(self, names: Names, record: PacketRecord) -> None:
        """A packet is reported as dropped."""
        self.drops.take(names, record)

    def flowed(self, names: Names, changes: list[Change], look: Look) -> None:
        """Connections have done something since the last look."""
        self._begin(names)
        self._send(flows(changes, names.directory, look.before_ns, look.clock_ns))

    def looked(self, names: Names, unreported_drops: int) -> None:
        """A look at the fabric is over."""
        self._unreported = unreported_drops
        self._begin(names)
        self._send(self.drops.drain())

    def _begin(self, names: Names) -> None:
        """Templates, names and losses, at first and now and then."""
        if self._told_s and time.monotonic() < self._told_s + TEMPLATES_S:
            return
        self._told_s = time.monotonic()
        self.sender.send(self.encoder.templates(int(time.time())))
        ports = names.directory.ports() if names.directory else {}
        told: list[Record] = [Named(DOMAIN, self.encoder.domain, self.observer.name)]
        told += [Named(INTERFACE, number, name) for number, name in ports.items()]
        told += [
            Losses(METERING, self._unreported + self.drops.untold),
            Losses(EXPORTING, self.unsent),
        ]
        self._send(told)

    def _send(self, records: Iterable[Record]) -> None:
        for message, count in self.encoder.messages(records, int(time.time())):
            if not self.sender.send(message):
                self.unsent += count


def export(sender: Sender, observer: Observer) -> Export:
    """Send what is observed of a fabric from now on."""
    made = Export(observer, sender, Encoder(domain(observer.name)))
    observer.on_drop.append(made.dropped)
    observer.on_changes.append(made.flowed)
    observer.on_look.append(made.looked)
    return made
