"""Prints a capture for people: one line for each packet.

14:03:21.482113 db.eth0 delivered PASS 10.10.20.3:41022 > 10.10.20.11:5432 tcp S (74 bytes) policy …
14:03:22.120075 app.eth1 guest DROP POLICY 10.10.20.3:41024 > 10.10.20.11:22 tcp S (74 bytes) policy …
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, tzinfo

from vnet.capture.comment import Explain, because
from vnet.capture.record import PacketRecord, Verdict
from vnet.capture.segments import segments
from vnet.capture.summary import summarise


def clock(time_ns: int, zone: tzinfo | None) -> str:
    """The time of day to the microsecond; None is the machine's own zone."""
    seconds, rest_ns = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, zone):%H:%M:%S}.{rest_ns // 1000:06d}"


def line(record: PacketRecord, explain: Explain, zone: tzinfo | None = None) -> str:
    """The packet in one line without its end; control characters cannot get into it."""
    verdict = f"DROP {record.reason.name}" if record.verdict is Verdict.DROP else "PASS"
    cut = segments(record.data, record.original_length, record.gso_size, record.gso_segs)
    words = (
        clock(record.time_ns, zone),
        record.nic,
        str(record.point),
        verdict,
        str(summarise(record.data)),
        f"({record.original_length} bytes{f', {cut}' if cut else ''})",
        because(record, explain),
    )
    return "".join(c if c.isprintable() else "?" for c in " ".join(filter(None, words)))


def lost(packets: int) -> str:
    """That so many are missing here."""
    return f"{packets} packets lost here"


@dataclass(slots=True)
class TextEncoder:
    """The same verbs as `pcapng.PcapngEncoder`, giving UTF-8 text: what `tell` says of each packet, and
    `tell_lost` of packets that are missing, each with an end of line.
    """

    tell: Callable[[PacketRecord], str]
    tell_lost: Callable[[int], str] = lost
    _unreported: int = 0

    def header(self) -> bytes:
        """Nothing: each packet says all."""
        return b""

    def encode(self, record: PacketRecord, comments: tuple[str, ...]) -> bytes:
        """One packet, after what is told of losses if there were any."""
        return self._losses() + f"{self.tell(record)}\n".encode()

    def wrote(self, record: PacketRecord) -> None:
        """The losses told with this packet need not be told again."""
        self._unreported = 0

    def lose(self, packets: int) -> None:
        """So many packets were seen but could not be kept."""
        self._unreported += packets

    def trailer(self, end_ns: int) -> bytes:
        """Losses after the last packet."""
        return self._losses()

    def _losses(self) -> bytes:
        return f"{self.tell_lost(self._unreported)}\n".encode() if self._unreported else b""


def line_encoder(explain: Explain, zone: tzinfo | None = None) -> TextEncoder:
    """A line for each packet."""
    return TextEncoder(lambda record: line(record, explain, zone))
