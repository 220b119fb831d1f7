"""What the dataplane reports, as values: the ring buffer's records decoded."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from vnet.base.drop import DropReason
from vnet.openflow.flow import match
from vnet.openflow.message import PacketIn
from vnet.switch import abi
from vnet.switch.abi import Point

_MOST_BYTES = 0xFFFF - 24 - 208 - 2
"""Of a frame in one message: what the fixed part, all pipeline fields and padding leave of it."""


@dataclass(frozen=True, slots=True)
class PacketEvent:
    """One packet observed at one point.

    `time_ns` is CLOCK_MONOTONIC. `port` is the ingress port, for DELIVERED the egress port.
    `rules` are those that matched, in order, `cookie` is the last one's, `table` the last table searched;
    `cookies` are all rules' cookies, filled in by who knows them. `length` is the
    packet's size on the wire; `data` its first bytes, with the VLAN tag it had at that point.
    """

    time_ns: int
    point: Point
    port: int
    in_port: int
    dropped: bool
    reason: DropReason
    cookie: int
    table: int
    rules: tuple[int, ...]
    ct_state: int
    version: int
    metadata: int
    length: int
    data: bytes
    cookies: tuple[int, ...] = ()
    reason_code: int = 0
    """Of a packet-in: OFPR_*."""
    tunnel: int = 0
    registers: tuple[int, ...] = ()
    """Of a packet-in: reg0…reg15 as they were at last."""
    ct_zone: int = 0
    ct_mark: int = 0
    ct_label: int = 0
    taps: int = 0
    """Of GUEST and DELIVERED: a bit for each tap that wants it."""
    gso_size: int = 0
    """Bytes of payload of each segment that it is to be cut into; 0 when it is sent as it is."""
    gso_segs: int = 0
    """How many those are, as far as the kernel knows."""


def decode(record: bytes) -> PacketEvent:
    """Decode one record (`struct vnet_event` and the packet's bytes)."""
    header = abi.Event.from_buffer_copy(record)
    start = ctypes.sizeof(abi.Event)
    data, length = record[start : start + header.captured], header.length
    if header.vlan_tpid:
        tag = header.vlan_tpid.to_bytes(2, "big") + header.vlan_tci.to_bytes(2, "big")
        data, length = data[:12] + tag + data[12:], length + 4
    return PacketEvent(
        time_ns=header.time_ns,
        point=Point(header.point),
        port=header.port,
        in_port=header.in_port,
        dropped=bool(header.verdict),
        reason=DropReason(header.reason),
        cookie=header.cookie,
        table=header.table,
        rules=tuple(header.rules[: header.n_rules]),
        ct_state=header.ct_state,
        version=header.version,
        metadata=header.metadata,
        length=length,
        data=data,
        reason_code=header.verdict if header.point == Point.CONTROLLER else 0,
        tunnel=header.tunnel,
        registers=tuple(header.registers[n // 2] >> 32 * (n % 2) & 0xFFFFFFFF for n in range(16)),
        ct_zone=header.ct_zone,
        ct_mark=header.ct_mark,
        ct_label=header.ct_label[0] << 64 | header.ct_label[1],
        taps=header.taps,
        gso_size=header.gso_size,
        gso_segs=header.gso_segs,
    )


def packet_in(event: PacketEvent) -> PacketIn:
    """An event as the message that tells controllers of it, with the pipeline fields that are not 0."""
    pipeline = {f"reg{n}": value for n, value in enumerate(event.registers)}
    pipeline |= {
        "tunnel_id": event.tunnel,
        "ct_state": event.ct_state,
        "ct_zone": event.ct_zone,
        "ct_mark": event.ct_mark,
        "ct_label": event.ct_label,
    }
    told = {name: value for name, value in pipeline.items() if value}
    fields = match(in_port=event.in_port, metadata=event.metadata, **told)
    frame, length = event.data[:_MOST_BYTES], min(event.length, 0xFFFF)
    return PacketIn(event.reason_code, event.table, event.cookie, fields, frame, length)
