"""Writes pcapng, the capture file format of Wireshark, with verdicts, reasons and losses in it.

A file is a list of blocks, each a multiple of four bytes, little endian here:

    Section Header                    once, first: what wrote the file
    Interface Description             one for each NIC and observation point, before its first packet
    Enhanced Packet                   one packet: time, bytes, direction, verdict, comments
    Interface Statistics              one for each interface, last: how many packets, how many lost

Direction is the guest's: what a VM sends is outbound of its NIC, what it is handed is inbound. At an uplink
it is the host's: what comes in is inbound.

Source: draft-ietf-opsawg-pcapng (sections 3.5 options, 4.1 SHB, 4.2 IDB, 4.3 EPB, 4.6 ISB).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from vnet.capture.limits import WHOLE_PACKET_BYTES
from vnet.capture.record import SENT, PacketRecord, Point, Verdict

SECTION, INTERFACE, PACKET, STATISTICS = 0x0A0D0D0A, 1, 6, 5
BYTE_ORDER_MAGIC = 0x1A2B3C4D
LINKTYPE_ETHERNET = 1

OPT_END, OPT_COMMENT = 0, 1
SHB_HARDWARE, SHB_OS, SHB_USERAPPL = 2, 3, 4
IF_NAME, IF_DESCRIPTION, IF_TSRESOL, IF_FILTER = 2, 3, 9, 11
EPB_FLAGS, EPB_DROPCOUNT, EPB_VERDICT = 2, 4, 7
ISB_STARTTIME, ISB_ENDTIME, ISB_IFRECV, ISB_OSDROP = 2, 3, 4, 7

NANOSECONDS = 9
"""if_tsresol: the exponent of ten of the time unit, negated."""
FILTER_STRING = 0
"""First octet of if_filter: a pcap expression follows."""
DIRECTION = {Point.DELIVERED: 1, Point.UPLINK_IN: 1, Point.UPLINK_OUT: 2} | dict.fromkeys(SENT, 2)
"""Bits 0-1 of epb_flags: 1 inbound, 2 outbound."""
VERDICT_TC = 1
"""First octet of epb_verdict: a TC_ACT_* value of linux/pkt_cls.h follows, in 64 bits."""
TC_ACT = {Verdict.DROP: 2, Verdict.PASS: 7}
"""TC_ACT_SHOT and TC_ACT_REDIRECT, which is how the switch forwards."""

MAX_OPTION_BYTES = 0xFFFF

_SEEN_AT = {
    Point.GUEST: "frames that {nic} sends, before any rule",
    Point.AFTER_GUARDS: "frames that {nic} sends and the guards believe",
    Point.AFTER_POLICY: "frames that {nic} sends and the policies allow",
    Point.DELIVERED: "frames handed to {nic}, after all rules",
    Point.UPLINK_IN: "frames that come in by {nic}, before any rule",
    Point.UPLINK_OUT: "frames that leave by {nic}, after all rules",
}


@dataclass(frozen=True, slots=True)
class Producer:
    """Who wrote the file: host, operating system, program. An empty text is left out."""

    hardware: str = ""
    os: str = ""
    application: str = "vnet"


def block(kind: int, body: bytes) -> bytes:
    """One block: type, total length, body padded to 32 bits, total length again."""
    padded = _padded(body)
    length = len(padded) + 12
    return struct.pack("<II", kind, length) + padded + struct.pack("<I", length)


def options(values: Iterable[tuple[int, bytes]]) -> bytes:
    """An option list with its end mark; nothing at all for an empty one.

    A value longer than an option can hold (65,535 bytes) is cut.
    """
    encoded = b"".join(_option(code, value) for code, value in values)
    return encoded + struct.pack("<HH", OPT_END, 0) if encoded else b""


def _option(code: int, value: bytes) -> bytes:
    value = value[:MAX_OPTION_BYTES]
    return struct.pack("<HH", code, len(value)) + _padded(value)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def text(value: str) -> bytes:
    """UTF-8, cut at a character so that it fits one option."""
    encoded = value.encode("utf-8", "replace")
    return encoded[:MAX_OPTION_BYTES].decode("utf-8", "ignore").encode()


def timestamp(time_ns: int) -> bytes:
    """64 bits in the interface's unit, the upper half first."""
    return struct.pack("<II", time_ns >> 32, time_ns & 0xFFFFFFFF)


def section_header(producer: Producer) -> bytes:
    """The first block. The section's length is left open (-1), since it is written as it comes."""
    named = (
        (SHB_HARDWARE, producer.hardware),
        (SHB_OS, producer.os),
        (SHB_USERAPPL, producer.application),
    )
    body = struct.pack("<IHHq", BYTE_ORDER_MAGIC, 1, 0, -1)
    return block(SECTION, body + options((code, text(value)) for code, value in named if value))


def interface_description(nic: str, point: Point, snaplen_bytes: int, expression: str) -> bytes:
    """The block that the packets of one NIC at one point refer to; named `NIC/POINT`."""
    return _interface(f"{nic}/{point}", _SEEN_AT[point].format(nic=nic), snaplen_bytes, expression)


def _interface(name: str, description: str, snaplen_bytes: int, expression: str) -> bytes:
    values = [
        (IF_NAME, text(name)),
        (IF_DESCRIPTION, text(description)),
        (IF_TSRESOL, bytes([NANOSECONDS])),
    ]
    if expression:
        values.append((IF_FILTER, bytes([FILTER_STRING]) + expression.encode("utf-8", "replace")))
    return block(INTERFACE, struct.pack("<HHI", LINKTYPE_ETHERNET, 0, snaplen_bytes) + options(values))


def enhanced_packet(record: PacketRecord, interface: int, comments: Iterable[str], lost: int = 0) -> bytes:
    """One packet. `lost` is how many were lost between this one and the one before it."""
    head = struct.pack("<I", interface) + timestamp(record.time_ns)
    lengths = struct.pack("<II", len(record.data), max(record.original_length, len(record.data)))
    values = [(OPT_COMMENT, text(comment)) for comment in comments]
    values.append((EPB_FLAGS, struct.pack("<I", DIRECTION[record.point])))
    if lost:
        values.append((EPB_DROPCOUNT, struct.pack("<Q", lost)))
    values.append((EPB_VERDICT, struct.pack("<BQ", VERDICT_TC, TC_ACT[record.verdict])))
    return block(PACKET, head + lengths + _padded(record.data) + options(values))


@dataclass(slots=True)
class Tally:
    """What one interface's statistics block will say."""

    number: int
    start_ns: int
    packets: int = 0
    lost: int = 0


def interface_statistics(tally: Tally, end_ns: int) -> bytes:
    """How many packets the file has of one interface, and how many were lost on their way to it."""
    values = (
        (ISB_STARTTIME, timestamp(tally.start_ns)),
        (ISB_ENDTIME, timestamp(end_ns)),
        (ISB_IFRECV, struct.pack("<Q", tally.packets)),
        (ISB_OSDROP, struct.pack("<Q", tally.lost)),
    )
    return block(STATISTICS, struct.pack("<I", tally.number) + timestamp(end_ns) + options(values))


@dataclass(slots=True)
class PcapngEncoder:
    """The blocks of one capture file, in order; does no I/O.

    `encode` changes nothing: only `wrote` remembers that a packet is in the file, so a packet that
    found no room on the disk leaves the file's bookkeeping as it was and is counted by `lose`.
    """

    producer: Producer = Producer()
    expression: str = ""
    snaplen_bytes: int = WHOLE_PACKET_BYTES
    _tallies: dict[tuple[str, Point], Tally] = field(default_factory=dict)
    _unreported: int = 0
    """Packets lost since the last one written. Which NIC's they were is not known."""

    def header(self) -> bytes:
        """What the file begins with."""
        return section_header(self.producer)

    def encode(self, record: PacketRecord, comments: tuple[str, ...]) -> bytes:
        """The packet's block, after its interface's if it is the first of it."""
        tally = self._tallies.get(record.interface)
        number = len(self._tallies) if tally is None else tally.number
        packet = enhanced_packet(record, number, comments, self._unreported)
        if tally is not None:
            return packet
        return interface_description(*record.interface, self.snaplen_bytes, self.expression) + packet

    def wrote(self, record: PacketRecord) -> None:
        """The bytes of `encode(record)` are in the file."""
        tally = self._tallies.setdefault(record.interface, Tally(len(self._tallies), record.time_ns))
        tally.packets += 1
        tally.lost += self._unreported
        self._unreported = 0

    def lose(self, packets: int) -> None:
        """So many packets were seen but could not be kept; the next block written tells."""
        self._unreported += packets

    def trailer(self, end_ns: int) -> bytes:
        """The statistics. Losses after the last packet are told by the first interface, if need be by one of
        their own."""
        lost, self._unreported = self._unreported, 0
        if lost and not self._tallies:
            none = _interface("none", "no packet could be kept", self.snaplen_bytes, self.expression)
            return none + interface_statistics(Tally(0, end_ns, lost=lost), end_ns)
        for tally in list(self._tallies.values())[:1]:
            tally.lost += lost
        return b"".join(interface_statistics(tally, end_ns) for tally in self._tallies.values())
