"""Multipart requests and replies <-> bytes (OpenFlow 1.3.5, section 7.3.5).

Two tables of data, one per direction: OFPMP_* number, class, how to write the body, how to read it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vnet.openflow.codec_error import CodecError, bad_length
from vnet.openflow.codec_flow import decode_flow_stats, encode_flow_stats
from vnet.openflow.codec_group import (
    decode_group,
    decode_group_features,
    decode_group_stats,
    encode_group,
    encode_group_features,
    encode_group_stats,
)
from vnet.openflow.codec_match import decode_match, encode_match
from vnet.openflow.codec_meter import (
    decode_meter,
    decode_meter_features,
    decode_meter_stats,
    encode_meter,
    encode_meter_features,
    encode_meter_stats,
)
from vnet.openflow.codec_port import (
    PORT,
    PORT_STATS,
    decode_port,
    decode_port_stats,
    encode_port,
    encode_port_stats,
)
from vnet.openflow.codec_record import text
from vnet.openflow.codec_tables import decode_table, decode_wanted_table, encode_table
from vnet.openflow.message import (
    AggregateReply,
    AggregateRequest,
    BadRequest,
    DescReply,
    DescRequest,
    ErrorType,
    FlowStatsReply,
    FlowStatsRequest,
    GroupDescReply,
    GroupDescRequest,
    GroupFeaturesReply,
    GroupFeaturesRequest,
    GroupStatsReply,
    GroupStatsRequest,
    Message,
    MeterConfigReply,
    MeterConfigRequest,
    MeterFeaturesReply,
    MeterFeaturesRequest,
    MeterStatsReply,
    MeterStatsRequest,
    PortDescReply,
    PortDescRequest,
    PortStatsReply,
    PortStatsRequest,
    QueueStatsReply,
    QueueStatsRequest,
    TableFeaturesReply,
    TableFeaturesRequest,
    TableStats,
    TableStatsReply,
    TableStatsRequest,
)

MULTIPART = struct.Struct("!HHxxxx")
MORE = 1
_EXPERIMENTER = 0xFFFF
_DESC = struct.Struct("!256s256s256s32s256s")
_FLOW_FILTER = struct.Struct("!B3xIIxxxxQQ")
_AGGREGATE = struct.Struct("!QQIxxxx")
_TABLE_STATS = struct.Struct("!B3xIQQ")
_NUMBER = struct.Struct("!Ixxxx")
_METER_STATS_LENGTH = 4
"""Where `struct ofp_meter_stats` has its length: behind the number."""
_PAIR = struct.Struct("!II")


@dataclass(frozen=True, slots=True)
class _Kind:
    """One OFPMP_* in one direction; `read` makes the message of a body and the MORE flag."""

    number: int
    cls: type[Message]
    write: Callable[[Any], bytes]
    read: Callable[[bytes, bool], Message]


def _sized(record: struct.Struct, body: bytes) -> tuple[Any, ...]:
    if len(body) != record.size:
        raise bad_length()
    return record.unpack(body)


def _chunks(body: bytes, size: int) -> Iterator[bytes]:
    if len(body) % size:
        raise bad_length()
    return (body[offset : offset + size] for offset in range(0, len(body), size))


def _records(body: bytes, place: int = 0) -> Iterator[bytes]:
    """Records that hold their own 16-bit length at offset `place`."""
    offset = 0
    while offset < len(body):
        length = int.from_bytes(body[offset + place : offset + place + 2], "big")
        if length < 8 or offset + length > len(body):
            raise bad_length()
        yield body[offset : offset + length]
        offset += length


def _joined(write: Callable[[Any], bytes], values: Iterable[Any]) -> bytes:
    return b"".join(map(write, values))


# -- bodies ---------------------------------------------------------------------------------------


def _write_filter(request: FlowStatsRequest | AggregateRequest) -> bytes:
    fixed = _FLOW_FILTER.pack(
        request.table, request.out_port, request.out_group, request.cookie, request.cookie_mask
    )
    return fixed + encode_match(request.match)


def _filter_reader(cls: type[FlowStatsRequest | AggregateRequest]) -> Callable[[bytes, bool], Message]:
    def read(body: bytes, more: bool) -> Message:
        table, out_port, out_group, cookie, cookie_mask = _FLOW_FILTER.unpack_from(body)
        match, _ = decode_match(body, _FLOW_FILTER.size)
        return cls(table, match, cookie, cookie_mask, out_port, out_group)

    return read


def _empty_reader(cls: Callable[[], Message]) -> Callable[[bytes, bool], Message]:
    def read(body: bytes, more: bool) -> Message:
        if body:
            raise bad_length()
        return cls()

    return read


def _none_reader(cls: Callable[[bool], Message]) -> Callable[[bytes, bool], Message]:
    """Of replies about what this switch has none of."""
    return lambda body, more: cls(more)


def _number_reader(cls: Callable[[int], Message]) -> Callable[[bytes, bool], Message]:
    return lambda body, more: cls(*_sized(_NUMBER, body))


def _empty(message: Message) -> bytes:
    return b""


def _write_desc(desc: DescReply) -> bytes:
    texts = (desc.manufacturer, desc.hardware, desc.software, desc.serial, desc.datapath)
    sizes = (255, 255, 255, 31, 255)
    return _DESC.pack(*(value.encode()[:size] for value, size in zip(texts, sizes, strict=True)))


def _read_desc(body: bytes, more: bool) -> Message:
    manufacturer, hardware, software, serial, datapath = map(text, _sized(_DESC, body))
    return DescReply(manufacturer, hardware, software, serial, datapath, more)


def _write_table_stats(stats: TableStats) -> bytes:
    return _TABLE_STATS.pack(stats.table, stats.active, stats.lookups, stats.matched)


def _read_table_stats(body: bytes, more: bool) -> Message:
    return TableStatsReply(
        tuple(TableStats(*_TABLE_STATS.unpack(r)) for r in _chunks(body, _TABLE_STATS.size)), more
    )


def _write_aggregate(reply: AggregateReply) -> bytes:
    return _AGGREGATE.pack(reply.packets, reply.bytes, reply.flows)


def _read_aggregate(body: bytes, more: bool) -> Message:
    packets, octets, flows = _sized(_AGGREGATE, body)
    return AggregateReply(packets, octets, flows, more)


def _read_queue(body: bytes, more: bool) -> Message:
    return QueueStatsRequest(*_sized(_PAIR, body))


_REQUESTS = (
    _Kind(0, DescRequest, _empty, _empty_reader(DescRequest)),
    _Kind(1, FlowStatsRequest, _write_filter, _filter_reader(FlowStatsRequest)),
    _Kind(2, AggregateRequest, _write_filter, _filter_reader(AggregateRequest)),
    _Kind(3, TableStatsRequest, _empty, _empty_reader(TableStatsRequest)),
    _Kind(4, PortStatsRequest, lambda r: _NUMBER.pack(r.port), _number_reader(PortStatsRequest)),
    _Kind(5, QueueStatsRequest, lambda r: _PAIR.pack(r.port, r.queue), _read_queue),
    _Kind(6, GroupStatsRequest, lambda r: _NUMBER.pack(r.group), _number_reader(GroupStatsRequest)),
    _Kind(7, GroupDescRequest, _empty, _empty_reader(GroupDescRequest)),
    _Kind(8, GroupFeaturesRequest, _empty, _empty_reader(GroupFeaturesRequest)),
    _Kind(9, MeterStatsRequest, lambda r: _NUMBER.pack(r.meter), _number_reader(MeterStatsRequest)),
    _Kind(10, MeterConfigRequest, lambda r: _NUMBER.pack(r.meter), _number_reader(MeterConfigRequest)),
    _Kind(11, MeterFeaturesRequest, _empty, _empty_reader(MeterFeaturesRequest)),
    _Kind(
        12,
        TableFeaturesRequest,
        lambda request: _joined(encode_table, request.tables),
        lambda body, more: TableFeaturesRequest(tuple(map(decode_wanted_table, _records(body))), more),
    ),
    _Kind(13, PortDescRequest, _empty, _empty_reader(PortDescRequest)),
)

_REPLIES = (
    _Kind(0, DescReply, _write_desc, _read_desc),
    _Kind(
        1,
        FlowStatsReply,
        lambda reply: _joined(encode_flow_stats, reply.flows),
        lambda body, more: FlowStatsReply(tuple(map(decode_flow_stats, _records(body))), more),
    ),
    _Kind(2, AggregateReply, _write_aggregate, _read_aggregate),
    _Kind(3, TableStatsReply, lambda reply: _joined(_write_table_stats, reply.tables), _read_table_stats),
    _Kind(
        4,
        PortStatsReply,
        lambda reply: _joined(encode_port_stats, reply.ports),
        lambda body, more: PortStatsReply(
            tuple(map(decode_port_stats, _chunks(body, PORT_STATS.size))), more
        ),
    ),
    _Kind(5, QueueStatsReply, _empty, _none_reader(QueueStatsReply)),
    _Kind(
        6,
        GroupStatsReply,
        lambda reply: _joined(encode_group_stats, reply.groups),
        lambda body, more: GroupStatsReply(tuple(map(decode_group_stats, _records(body))), more),
    ),
    _Kind(
        7,
        GroupDescReply,
        lambda reply: _joined(encode_group, reply.groups),
        lambda body, more: GroupDescReply(tuple(map(decode_group, _records(body))), more),
    ),
    _Kind(8, GroupFeaturesReply, encode_group_features, decode_group_features),
    _Kind(
        9,
        MeterStatsReply,
        lambda reply: _joined(encode_meter_stats, reply.meters),
        lambda body, more: MeterStatsReply(
            tuple(map(decode_meter_stats, _records(body, _METER_STATS_LENGTH))), more
        ),
    ),
    _Kind(
        10,
        MeterConfigReply,
        lambda reply: _joined(encode_meter, reply.meters),
        lambda body, more: MeterConfigReply(tuple(map(decode_meter, _records(body))), more),
    ),
    _Kind(11, MeterFeaturesReply, encode_meter_features, decode_meter_features),
    _Kind(
        12,
        TableFeaturesReply,
        lambda reply: _joined(encode_table, reply.tables),
        lambda body, more: TableFeaturesReply(tuple(map(decode_table, _records(body))), more),
    ),
    _Kind(
        13,
        PortDescReply,
        lambda reply: _joined(encode_port, reply.ports),
        lambda body, more: PortDescReply(tuple(map(decode_port, _chunks(body, PORT.size))), more),
    ),
)

REQUEST_CLASSES = tuple(kind.cls for kind in _REQUESTS)
REPLY_CLASSES = tuple(kind.cls for kind in _REPLIES)
_BY_CLASS = {kind.cls: kind for kind in _REQUESTS + _REPLIES}
_REQUEST_BY_NUMBER = {kind.number: kind for kind in _REQUESTS}
_REPLY_BY_NUMBER = {kind.number: kind for kind in _REPLIES}


def encode_multipart(message: Any) -> bytes:
    """Multipart header and body; of the answer to one request the last has more=False."""
    kind = _BY_CLASS[type(message)]
    return MULTIPART.pack(kind.number, MORE * getattr(message, "more", False)) + kind.write(message)


def _decode(kinds: dict[int, _Kind], body: bytes) -> Message:
    number, flags = MULTIPART.unpack_from(body)
    kind = kinds.get(number)
    if kind is None:
        unknown = BadRequest.BAD_EXPERIMENTER if number == _EXPERIMENTER else BadRequest.BAD_MULTIPART
        raise CodecError(ErrorType.BAD_REQUEST, unknown)
    return kind.read(body[MULTIPART.size :], bool(flags & MORE))


def decode_request(body: bytes) -> Message:
    """Raises: CodecError; a request in several parts is refused unless it is for table features."""
    message = _decode(_REQUEST_BY_NUMBER, body)
    if body[3] & MORE and not isinstance(message, TableFeaturesRequest):
        raise CodecError(ErrorType.BAD_REQUEST, BadRequest.MULTIPART_BUFFER_OVERFLOW)
    return message


def decode_reply(body: bytes) -> Message:
    """Raises: CodecError."""
    return _decode(_REPLY_BY_NUMBER, body)
