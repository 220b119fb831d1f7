"""Ports and their statistics <-> bytes (OpenFlow 1.3.5, sections 7.2.1 and 7.3.5.6)."""

from __future__ import annotations

import struct

from vnet.openflow.codec_record import SECOND_NS, text
from vnet.openflow.message import PortDescription, PortStats

PORT = struct.Struct("!I4x6s2x16sIIIIIIII")
PORT_STATS = struct.Struct("!I4x12QII")
_NAME_BYTES = 15


def encode_port(port: PortDescription) -> bytes:
    """`struct ofp_port`."""
    return PORT.pack(
        port.number,
        port.mac.to_bytes(6, "big"),
        port.name.encode()[:_NAME_BYTES],
        port.config,
        port.state,
        port.current,
        port.advertised,
        port.supported,
        port.peer,
        port.current_speed_kbps,
        port.max_speed_kbps,
    )


def decode_port(record: bytes) -> PortDescription:
    """`record` is PORT.size bytes."""
    number, mac, name, *rest = PORT.unpack(record)
    return PortDescription(number, int.from_bytes(mac, "big"), text(name), *rest)


def encode_port_stats(port: PortStats) -> bytes:
    """`struct ofp_port_stats`; the kinds of error that an Ethernet card counts are zero here."""
    counters = (
        port.rx_packets,
        port.tx_packets,
        port.rx_bytes,
        port.tx_bytes,
        port.rx_dropped,
        port.tx_dropped,
    )
    return PORT_STATS.pack(port.port, *counters, 0, 0, 0, 0, 0, 0, *divmod(port.duration_ns, SECOND_NS))


def decode_port_stats(record: bytes) -> PortStats:
    """`record` is PORT_STATS.size bytes."""
    number, *counters, seconds, nanoseconds = PORT_STATS.unpack(record)
    rx, tx, rx_bytes, tx_bytes, rx_dropped, tx_dropped = counters[:6]
    duration_ns = seconds * SECOND_NS + nanoseconds
    return PortStats(number, rx, tx, rx_bytes, tx_bytes, rx_dropped, tx_dropped, duration_ns)
