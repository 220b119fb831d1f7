"""OpenFlow 1.3 messages <-> bytes.

`encode(message, xid)` and `decode(data)` are inverse to each other on every message of
`vnet.openflow.message`. What the protocol library does well, matches and actions with all their
extensions, it does here too (`codec_match`, `codec_action`); messages are `struct`s in one table
below, because the library has only one direction of most of them, and writes an empty message for
the other without a word. Short fragments are cached: most flows of a switch share fields and actions.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vnet.openflow.codec_action import decode_actions, encode_actions
from vnet.openflow.codec_error import ERROR_DATA_BYTES, CodecError, bad_length
from vnet.openflow.codec_flow import (
    decode_flow_mod,
    decode_flow_removed,
    encode_flow_mod,
    encode_flow_removed,
)
from vnet.openflow.codec_group import decode_group_mod, encode_group_mod
from vnet.openflow.codec_match import decode_match, encode_match
from vnet.openflow.codec_meter import decode_meter_mod, encode_meter_mod
from vnet.openflow.codec_port import PORT, decode_port, encode_port
from vnet.openflow.codec_stats import (
    REPLY_CLASSES,
    REQUEST_CLASSES,
    decode_reply,
    decode_request,
    encode_multipart,
)
from vnet.openflow.message import (
    ONF,
    VERSION,
    AsyncMasks,
    BadAction,
    BadRequest,
    BarrierReply,
    BarrierRequest,
    BundleAdd,
    BundleControl,
    BundleFailed,
    EchoReply,
    EchoRequest,
    Error,
    ErrorType,
    Experimenter,
    FeaturesReply,
    FeaturesRequest,
    FlowMod,
    FlowRemoved,
    GetAsyncReply,
    GetAsyncRequest,
    GetConfigReply,
    GetConfigRequest,
    GroupMod,
    Hello,
    Message,
    MeterMod,
    PacketIn,
    PacketOut,
    PortMod,
    PortStatus,
    QueueGetConfigReply,
    QueueGetConfigRequest,
    RoleReply,
    RoleRequest,
    SetAsync,
    SetConfig,
    TableMod,
)

__all__ = ["ERROR_DATA_BYTES", "HEADER", "CodecError", "decode", "encode"]

HEADER = struct.Struct("!BBHI")
"""Version, type, length of the whole message, transaction id."""

_MAX_BYTES = 0xFFFF
_VERSION_BITMAP = 1
_BUNDLE_CONTROL, _BUNDLE_ADD = 2300, 2301
_FEATURES = struct.Struct("!QIBBxxII")
_CONFIG = struct.Struct("!HH")
_PACKET_IN = struct.Struct("!IHBBQ")
_PACKET_OUT = struct.Struct("!IIH6x")
_PORT_MOD = struct.Struct("!Ixxxx6sxxIIIxxxx")
_TABLE_MOD = struct.Struct("!BxxxI")
_ROLE = struct.Struct("!IxxxxQ")
_ASYNC = struct.Struct("!6I")
_QUEUE_CONFIG = struct.Struct("!Ixxxx")
_EXPERIMENTER = struct.Struct("!II")
_BUNDLE = struct.Struct("!IHH")
_ERROR = struct.Struct("!HH")


@dataclass(frozen=True, slots=True)
class _Kind:
    """One OFPT_*: its number, class, how to write its body and how to read it."""

    number: int
    cls: type[Message]
    write: Callable[[Any], bytes]
    read: Callable[[bytes], Message]


def _empty(number: int, cls: Callable[[], Message]) -> _Kind:
    def read(body: bytes) -> Message:
        if body:
            raise bad_length()
        return cls()

    return _Kind(number, cls, lambda message: b"", read)  # type: ignore[arg-type]


def _fixed(
    number: int, cls: Callable[..., Message], record: struct.Struct, write: Callable[[Any], tuple[int, ...]]
) -> _Kind:
    """A message whose fields are the numbers of `record` in order."""

    def read(body: bytes) -> Message:
        if len(body) != record.size:
            raise bad_length()
        return cls(*record.unpack(body))

    return _Kind(number, cls, lambda message: record.pack(*write(message)), read)  # type: ignore[arg-type]


# -- hello, error, experimenter -------------------------------------------------------------------


def _write_hello(hello: Hello) -> bytes:
    if not hello.versions:
        return b""
    words = [0] * (max(hello.versions) // 32 + 1)
    for version in hello.versions:
        words[version // 32] |= 1 << version % 32
    length = 4 + 4 * len(words)
    return struct.pack(f"!HH{len(words)}I", _VERSION_BITMAP, length, *words) + bytes(-length % 8)


def _read_hello(body: bytes) -> Hello:
    """Elements other than the bitmap are skipped, as the specification asks (section 7.5.1)."""
    offset = 0
    while offset + 4 <= len(body):
        kind, length = struct.unpack_from("!HH", body, offset)
        if length < 4:
            break
        if kind == _VERSION_BITMAP:
            return Hello(versions=_read_bitmap(body[offset + 4 : offset + length]))
        offset += length + -length % 8
    return Hello(versions=())


def _read_bitmap(data: bytes) -> tuple[int, ...]:
    words = [word for (word,) in struct.iter_unpack("!I", data[: len(data) & ~3])]
    return tuple(32 * place + bit for place, word in enumerate(words) for bit in range(32) if word >> bit & 1)


def _write_error(error: Error) -> bytes:
    owner = struct.pack("!I", error.experimenter) if error.type == ErrorType.EXPERIMENTER else b""
    return _ERROR.pack(error.type, error.code) + owner + error.data


def _read_error(body: bytes) -> Error:
    kind, code = _ERROR.unpack_from(body)
    if kind == ErrorType.EXPERIMENTER:
        return Error(kind, code, body[8:], struct.unpack_from("!I", body, 4)[0])
    return Error(kind, code, body[4:])


def _write_experimenter(message: Experimenter) -> bytes:
    return _EXPERIMENTER.pack(message.experimenter, message.exp_type) + message.data


def _write_bundle_control(message: BundleControl) -> bytes:
    body = _BUNDLE.pack(message.bundle_id, message.type, message.flags)
    return _EXPERIMENTER.pack(ONF, _BUNDLE_CONTROL) + body


def _read_experimenter(body: bytes) -> Message:
    experimenter, exp_type = _EXPERIMENTER.unpack_from(body)
    if (experimenter, exp_type) != (ONF, _BUNDLE_CONTROL):
        return Experimenter(experimenter, exp_type, body[_EXPERIMENTER.size :])
    if len(body) < _EXPERIMENTER.size + _BUNDLE.size:
        raise bad_length()
    return BundleControl(*_BUNDLE.unpack_from(body, _EXPERIMENTER.size))


def _encode_bundle_add(message: BundleAdd, xid: int) -> bytes:
    body = struct.pack("!IxxH", message.bundle_id, message.flags) + encode(message.message, xid)
    return _EXPERIMENTER.pack(ONF, _BUNDLE_ADD) + body


def _decode_bundle_add(body: bytes, xid: int) -> BundleAdd:
    """The message inside is decoded too; its faults name the bundle."""
    bundle_id, _, flags = _BUNDLE.unpack_from(body, _EXPERIMENTER.size)
    inner = body[_EXPERIMENTER.size + _BUNDLE.size :]
    try:
        return BundleAdd(bundle_id, _decode_inner(inner, xid), flags)
    except CodecError as error:
        error.bundle_id = bundle_id
        raise


def _decode_inner(inner: bytes, xid: int) -> Message:
    if len(inner) < HEADER.size:
        raise CodecError(ErrorType.EXPERIMENTER, BundleFailed.MSG_BAD_LEN)
    _, number, length, inner_xid = HEADER.unpack_from(inner)
    if not HEADER.size <= length <= len(inner):
        raise CodecError(ErrorType.EXPERIMENTER, BundleFailed.MSG_BAD_LEN)
    if inner_xid != xid:
        raise CodecError(ErrorType.EXPERIMENTER, BundleFailed.MSG_BAD_XID)
    if _is_bundle_add(number, inner[HEADER.size :]):  # nor is it looked how deep that would go
        raise CodecError(ErrorType.EXPERIMENTER, BundleFailed.MSG_UNSUP)
    return decode(inner[:length])[1]


def _is_bundle_add(number: int, body: bytes) -> bool:
    return number == _EXPERIMENTER_TYPE and body[:8] == _EXPERIMENTER.pack(ONF, _BUNDLE_ADD)


# -- packets --------------------------------------------------------------------------------------


def _write_packet_in(packet: PacketIn) -> bytes:
    fixed = _PACKET_IN.pack(packet.buffer_id, packet.total_len, packet.reason, packet.table, packet.cookie)
    return fixed + encode_match(packet.match) + b"\0\0" + packet.frame


def _read_packet_in(body: bytes) -> PacketIn:
    buffer_id, total_len, reason, table, cookie = _PACKET_IN.unpack_from(body)
    match, end = decode_match(body, _PACKET_IN.size)
    return PacketIn(reason, table, cookie, match, body[end + 2 :], total_len, buffer_id)


def _write_packet_out(packet: PacketOut) -> bytes:
    actions = encode_actions(packet.actions)
    return _PACKET_OUT.pack(packet.buffer_id, packet.in_port, len(actions)) + actions + packet.frame


def _read_packet_out(body: bytes) -> PacketOut:
    """Which headers the packet has is not known before it is parsed: only lengths are checked."""
    buffer_id, in_port, length = _PACKET_OUT.unpack_from(body)
    end = _PACKET_OUT.size + length
    if end > len(body):
        raise CodecError(ErrorType.BAD_ACTION, BadAction.BAD_LEN)
    return PacketOut(in_port, decode_actions(body[_PACKET_OUT.size : end]), body[end:], buffer_id)


def _write_port_status(message: PortStatus) -> bytes:
    return struct.pack("!B7x", message.reason) + encode_port(message.port)


def _read_port_status(body: bytes) -> PortStatus:
    if len(body) != 8 + PORT.size:
        raise bad_length()
    return PortStatus(body[0], decode_port(body[8:]))


# -- the rest -------------------------------------------------------------------------------------


def _read_features(body: bytes) -> FeaturesReply:
    datapath_id, n_buffers, n_tables, auxiliary_id, capabilities, _ = _FEATURES.unpack(body)
    return FeaturesReply(datapath_id, n_tables, n_buffers, auxiliary_id, capabilities)


def _write_features(reply: FeaturesReply) -> bytes:
    return _FEATURES.pack(
        reply.datapath_id, reply.n_buffers, reply.n_tables, reply.auxiliary_id, reply.capabilities, 0
    )


def _read_port_mod(body: bytes) -> PortMod:
    number, mac, config, mask, advertise = _PORT_MOD.unpack(body)
    return PortMod(number, int.from_bytes(mac, "big"), config, mask, advertise)


def _write_port_mod(mod: PortMod) -> bytes:
    return _PORT_MOD.pack(mod.number, mod.mac.to_bytes(6, "big"), mod.config, mod.mask, mod.advertise)


def _write_masks(message: GetAsyncReply | SetAsync) -> bytes:
    masks = message.masks
    return _ASYNC.pack(*masks.packet_in, *masks.port_status, *masks.flow_removed)


def _masks_reader(cls: Callable[[AsyncMasks], Message]) -> Callable[[bytes], Message]:
    def read(body: bytes) -> Message:
        if len(body) != _ASYNC.size:
            raise bad_length()
        bits = _ASYNC.unpack(body)
        return cls(AsyncMasks(bits[0:2], bits[2:4], bits[4:6]))

    return read


def _prefix(number: int, cls: Callable[..., Message], record: struct.Struct, write: Any) -> _Kind:
    """A message whose list of queues is not kept."""
    return _Kind(
        number,
        cls,  # type: ignore[arg-type]
        lambda message: record.pack(*write(message)),
        lambda body: cls(*record.unpack_from(body)),
    )


def _config(message: GetConfigReply | SetConfig) -> tuple[int, int]:
    return message.flags, message.miss_send_len


def _role(message: RoleRequest | RoleReply) -> tuple[int, int]:
    return message.role, message.generation_id


_KINDS = (
    _Kind(0, Hello, _write_hello, _read_hello),
    _Kind(1, Error, _write_error, _read_error),
    _Kind(2, EchoRequest, lambda echo: echo.data, EchoRequest),
    _Kind(3, EchoReply, lambda echo: echo.data, EchoReply),
    _Kind(4, Experimenter, _write_experimenter, _read_experimenter),
    _empty(5, FeaturesRequest),
    _Kind(6, FeaturesReply, _write_features, _read_features),
    _empty(7, GetConfigRequest),
    _fixed(8, GetConfigReply, _CONFIG, _config),
    _fixed(9, SetConfig, _CONFIG, _config),
    _Kind(10, PacketIn, _write_packet_in, _read_packet_in),
    _Kind(11, FlowRemoved, encode_flow_removed, decode_flow_removed),
    _Kind(12, PortStatus, _write_port_status, _read_port_status),
    _Kind(13, PacketOut, _write_packet_out, _read_packet_out),
    _Kind(14, FlowMod, encode_flow_mod, decode_flow_mod),
    _Kind(15, GroupMod, encode_group_mod, decode_group_mod),
    _Kind(16, PortMod, _write_port_mod, _read_port_mod),
    _fixed(17, TableMod, _TABLE_MOD, lambda mod: (mod.table, mod.config)),
    *(_Kind(18, cls, encode_multipart, decode_request) for cls in REQUEST_CLASSES),
    *(_Kind(19, cls, encode_multipart, decode_reply) for cls in REPLY_CLASSES),
    _empty(20, BarrierRequest),
    _empty(21, BarrierReply),
    _fixed(22, QueueGetConfigRequest, _QUEUE_CONFIG, lambda message: (message.port,)),
    _prefix(23, QueueGetConfigReply, _QUEUE_CONFIG, lambda message: (message.port,)),
    _fixed(24, RoleRequest, _ROLE, _role),
    _fixed(25, RoleReply, _ROLE, _role),
    _empty(26, GetAsyncRequest),
    _Kind(27, GetAsyncReply, _write_masks, _masks_reader(GetAsyncReply)),
    _Kind(28, SetAsync, _write_masks, _masks_reader(SetAsync)),
    _Kind(29, MeterMod, encode_meter_mod, decode_meter_mod),
    _Kind(4, BundleControl, _write_bundle_control, _read_experimenter),
)

_BY_CLASS = {kind.cls: kind for kind in _KINDS}
_BY_NUMBER = {kind.number: kind.read for kind in _KINDS}
_HELLO, _EXPERIMENTER_TYPE = 0, 4


def encode(message: Message, xid: int) -> bytes:
    """One whole message.

    Raises: ValueError when it would be longer than the 65535 bytes its length field can tell.
    """
    if isinstance(message, BundleAdd):
        number, body = _EXPERIMENTER_TYPE, _encode_bundle_add(message, xid)
    else:
        kind = _BY_CLASS[type(message)]
        number, body = kind.number, kind.write(message)
    length = HEADER.size + len(body)
    if length > _MAX_BYTES:
        raise ValueError(f"{type(message).__name__} of {length} bytes does not fit an OpenFlow message")
    version = message.version if isinstance(message, Hello) else VERSION
    return HEADER.pack(version, number, length, xid) + body


def decode(data: bytes) -> tuple[int, Message]:
    """The transaction id and message that `data`, one whole message, stands for.

    Raises: CodecError for anything malformed or unsupported; its `error` is the answer to send.
    """
    if len(data) < HEADER.size:
        raise CodecError(ErrorType.BAD_REQUEST, BadRequest.BAD_LEN, data)
    version, number, length, xid = HEADER.unpack_from(data)
    try:
        return xid, _decode_body(version, number, length, xid, data)
    except CodecError as error:
        raise error.about(data, xid) from error.__cause__
    except Exception as error:  # whatever a struct or the library trips over is a wrong length
        raise bad_length().about(data, xid) from error


def _decode_body(version: int, number: int, length: int, xid: int, data: bytes) -> Message:
    if length != len(data):
        raise bad_length()
    body = data[HEADER.size :]
    if number == _HELLO:
        return Hello(version, _read_hello(body).versions)
    if version != VERSION:
        raise CodecError(ErrorType.BAD_REQUEST, BadRequest.BAD_VERSION)
    if _is_bundle_add(number, body):
        return _decode_bundle_add(body, xid)
    read = _BY_NUMBER.get(number)
    if read is None:
        raise CodecError(ErrorType.BAD_REQUEST, BadRequest.BAD_TYPE)
    return read(body)
