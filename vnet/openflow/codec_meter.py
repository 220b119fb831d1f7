"""Meters and their statistics <-> bytes (OpenFlow 1.3.5, sections 7.3.4.4 and 7.3.5.11 to 7.3.5.13)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from vnet.openflow.codec_error import CodecError, bad_length
from vnet.openflow.codec_record import SECOND_NS
from vnet.openflow.group import MAX_METER, Band, BandType, Meter, MeterFlag
from vnet.openflow.message import (
    ErrorType,
    MeterCommand,
    MeterFeaturesReply,
    MeterMod,
    MeterModFailed,
    MeterStats,
)

_MOD = struct.Struct("!HHI")
_BAND = struct.Struct("!HHIIB3x")
_BAND_HEADER_BYTES = 12
_CONFIG = struct.Struct("!HHI")
_STATS = struct.Struct("!IH6xIQQII")
_COUNTER = struct.Struct("!QQ")
_FEATURES = struct.Struct("!IIIBBxx")
_KINDS = {int(kind): kind for kind in BandType}
_COMMANDS = {int(command): command for command in MeterCommand}
_UNITS = MeterFlag.KBPS | MeterFlag.PKTPS
_FLAGS = int(_UNITS | MeterFlag.BURST | MeterFlag.STATS)


def _bad(code: MeterModFailed) -> CodecError:
    return CodecError(ErrorType.METER_MOD_FAILED, code)


def _encode_bands(meter: Meter) -> bytes:
    return b"".join(
        _BAND.pack(band.kind, _BAND.size, band.rate, band.burst, band.precedence) for band in meter.bands
    )


def _decode_bands(data: bytes) -> Iterator[Band]:
    offset = 0
    while offset < len(data):
        if offset + _BAND_HEADER_BYTES > len(data):
            raise bad_length()
        kind, length = struct.unpack_from("!HH", data, offset)
        if length < _BAND_HEADER_BYTES or offset + length > len(data):
            raise bad_length()
        if kind not in _KINDS:
            raise _bad(MeterModFailed.BAD_BAND)
        if length != _BAND.size:
            raise bad_length()
        _, _, rate, burst, precedence = _BAND.unpack_from(data, offset)
        yield Band(_KINDS[kind], rate, burst, precedence if kind == BandType.DSCP_REMARK else 0)
        offset += length


# -- changing meters ------------------------------------------------------------------------------


def encode_meter_mod(mod: MeterMod) -> bytes:
    """The body."""
    meter = mod.meter
    return _MOD.pack(mod.command, meter.flags, meter.number) + _encode_bands(meter)


def decode_meter_mod(body: bytes) -> MeterMod:
    """Raises: CodecError with the code that Open vSwitch answers.

    Which meters there are is not known here. Of a deletion only the number is looked at.
    """
    code, flags, number = _MOD.unpack_from(body)
    command = _COMMANDS.get(code)
    if command is None:
        raise _bad(MeterModFailed.BAD_COMMAND)
    if command == MeterCommand.DELETE:
        return MeterMod(command, Meter(number, MeterFlag(flags & _FLAGS)))
    bands = tuple(_decode_bands(body[_MOD.size :]))
    if flags & ~_FLAGS or flags & _UNITS not in (MeterFlag.KBPS, MeterFlag.PKTPS):
        raise _bad(MeterModFailed.BAD_FLAGS)
    if not 0 < number <= MAX_METER:
        raise _bad(MeterModFailed.INVALID_METER)
    if any(not band.rate for band in bands):
        raise _bad(MeterModFailed.BAD_RATE)
    return MeterMod(command, Meter(number, MeterFlag(flags), bands))


# -- telling of meters ----------------------------------------------------------------------------


def encode_meter(meter: Meter) -> bytes:
    """`struct ofp_meter_config`."""
    bands = _encode_bands(meter)
    return _CONFIG.pack(_CONFIG.size + len(bands), meter.flags, meter.number) + bands


def decode_meter(record: bytes) -> Meter:
    """Raises: CodecError."""
    _, flags, number = _CONFIG.unpack_from(record)
    return Meter(number, MeterFlag(flags & _FLAGS), tuple(_decode_bands(record[_CONFIG.size :])))


def encode_meter_stats(stats: MeterStats) -> bytes:
    """`struct ofp_meter_stats`."""
    counters = b"".join(_COUNTER.pack(*band) for band in stats.bands)
    length = _STATS.size + len(counters)
    duration = divmod(stats.duration_ns, SECOND_NS)
    fixed = _STATS.pack(stats.meter, length, stats.flow_count, stats.packets_in, stats.bytes_in, *duration)
    return fixed + counters


def decode_meter_stats(record: bytes) -> MeterStats:
    """Raises: struct.error for a wrong length."""
    meter, _, flows, packets, octets, seconds, nanoseconds = _STATS.unpack_from(record)
    bands = tuple(_COUNTER.iter_unpack(record[_STATS.size :]))
    return MeterStats(meter, flows, packets, octets, seconds * SECOND_NS + nanoseconds, bands)


def encode_meter_features(reply: MeterFeaturesReply) -> bytes:
    """The body."""
    limits = reply.max_bands, reply.max_color
    return _FEATURES.pack(reply.max_meter, reply.band_types, reply.capabilities, *limits)


def decode_meter_features(body: bytes, more: bool) -> MeterFeaturesReply:
    """Raises: struct.error for a wrong length."""
    max_meter, band_types, capabilities, max_bands, max_color = _FEATURES.unpack(body)
    return MeterFeaturesReply(max_meter, band_types, capabilities, max_bands, max_color, more)
