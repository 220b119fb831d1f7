"""SCTP frames, with their CRC32c (RFC 9260)."""

from __future__ import annotations

from scapy.layers.inet import IP
from scapy.layers.sctp import (
    SCTP,
    SCTPChunkAbort,
    SCTPChunkCookieAck,
    SCTPChunkCookieEcho,
    SCTPChunkData,
    SCTPChunkInit,
    SCTPChunkInitAck,
    SCTPChunkSACK,
)
from scapy.packet import Packet

from tests.exams.conntrack.frames import ether

INIT = SCTPChunkInit(init_tag=0x1470E18C, a_rwnd=106496, n_out_streams=10, n_in_streams=10, init_tsn=1)
INIT_ACK = SCTPChunkInitAck(init_tag=0x25BB9DFA, a_rwnd=106496, n_out_streams=10, n_in_streams=10, init_tsn=9)
COOKIE_ECHO = SCTPChunkCookieEcho(cookie=bytes(range(32)))
COOKIE_ACK = SCTPChunkCookieAck()
DATA = SCTPChunkData(beginning=1, ending=1, tsn=1, data=b"foo\n")
SACK = SCTPChunkSACK(cumul_tsn_ack=1, a_rwnd=106496)
ABORT = SCTPChunkAbort()


def sctp(
    source: str, destination: str, source_port: int, destination_port: int, chunk: Packet, tag: int = 0
) -> bytes:
    """A frame with one chunk."""
    header = SCTP(sport=source_port, dport=destination_port, tag=tag)
    return bytes(ether() / IP(src=source, dst=destination) / header / chunk)
