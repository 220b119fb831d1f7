"""What the dataplane reports, as values: the ring buffer's records decoded."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from vnet.base.drop import DropReason
from vnet.openflow.flow import match
from vnet.openflow.message import PacketIn
from vnet.switch import abi
from vnet.switch.abi import Point


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


def decode(record: bytes) -> PacketEvent:
    """Decode one record (`struct vnet_event` and the packet's bytes)."""
    header = abi.Event.from_buffer_copy(record)
    start = ctypes.sizeof(abi.Event)
    data, length = record[start : start + header.captured], header.length
    if header.vlan_tci:
        tag = header.vlan_tpid.to_bytes(2, "big") + (header.vlan_tci & 0xEFFF).to_bytes(2, "big")
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
    )


def packet_in(event: PacketEvent) -> PacketIn:
    """An event for the controllers as the message that tells them."""
    known = {"ct_state": event.ct_state} if event.ct_state else {}
    fields = match(in_port=event.in_port, metadata=event.metadata, **known)
    reason = int(event.dropped)  # the datapath says here whether an action asked for it
    return PacketIn(reason, event.table, event.cookie, fields, event.data, event.length)
