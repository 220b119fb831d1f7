"""Instructions <-> bytes (OpenFlow 1.3.5, section 7.2.4)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from vnet.openflow.codec_action import decode_actions, encode_actions
from vnet.openflow.codec_error import CodecError, bad_action
from vnet.openflow.codec_library import ofproto
from vnet.openflow.codec_record import cached, records
from vnet.openflow.flow import Action, Instructions, OutputField
from vnet.openflow.group import MAX_METER
from vnet.openflow.message import BadAction, BadInstruction, ErrorType, MeterModFailed, OnfError

_CACHED = 1 << 16


def _bad_instruction(code: BadInstruction) -> CodecError:
    return CodecError(ErrorType.BAD_INSTRUCTION, code)


def _encode_list(kind: int, actions: tuple[Action, ...]) -> bytes:
    body = encode_actions(actions)
    return struct.pack("!HHxxxx", kind, 8 + len(body)) + body


@lru_cache(_CACHED)
def encode_instructions(instructions: Instructions) -> bytes:
    """In the order of execution (section 5.9)."""
    parts = []
    if instructions.meter is not None:
        parts.append(struct.pack("!HHI", ofproto.OFPIT_METER, 8, instructions.meter))
    if instructions.apply:
        parts.append(_encode_list(ofproto.OFPIT_APPLY_ACTIONS, instructions.apply))
    if instructions.clear:
        parts.append(_encode_list(ofproto.OFPIT_CLEAR_ACTIONS, ()))
    if instructions.write:
        parts.append(_encode_list(ofproto.OFPIT_WRITE_ACTIONS, instructions.write))
    if instructions.metadata is not None:
        parts.append(struct.pack("!HHxxxxQQ", ofproto.OFPIT_WRITE_METADATA, 24, *instructions.metadata))
    if instructions.goto is not None:
        parts.append(struct.pack("!HHBxxx", ofproto.OFPIT_GOTO_TABLE, 8, instructions.goto))
    return b"".join(parts)


@cached
def decode_instructions(data: bytes) -> Instructions:
    """Raises: CodecError of type BAD_INSTRUCTION or BAD_ACTION."""
    fault = _bad_instruction(BadInstruction.BAD_LEN)
    read: dict[str, Any] = {}
    for kind, raw in records(data, fault):
        if kind not in _INSTRUCTIONS:
            raise _bad_instruction(_REFUSED.get(kind, BadInstruction.UNKNOWN_INST))
        name, decode, length = _INSTRUCTIONS[kind]
        if name in read:
            raise CodecError(ErrorType.EXPERIMENTER, OnfError.DUP_INST)
        if length is not None and length != len(raw):
            raise fault
        read[name] = decode(raw)
    return Instructions(**read)


def _read_meter(raw: bytes) -> int:
    """Whether there is such a meter is not known here."""
    number = int.from_bytes(raw[4:8], "big")
    if not 0 < number <= MAX_METER:
        raise CodecError(ErrorType.METER_MOD_FAILED, MeterModFailed.INVALID_METER)
    return number


def _read_write(raw: bytes) -> tuple[Action, ...]:
    """Open vSwitch lets an action set hold all actions of ours but one."""
    actions = decode_actions(raw[8:])
    if any(isinstance(action, OutputField) for action in actions):
        raise bad_action(BadAction.BAD_TYPE)
    return actions


_INSTRUCTIONS: Mapping[int, tuple[str, Callable[[bytes], object], int | None]] = {
    ofproto.OFPIT_GOTO_TABLE: ("goto", lambda raw: raw[4], 8),
    ofproto.OFPIT_WRITE_METADATA: ("metadata", lambda raw: struct.unpack_from("!QQ", raw, 8), 24),
    ofproto.OFPIT_WRITE_ACTIONS: ("write", _read_write, None),
    ofproto.OFPIT_APPLY_ACTIONS: ("apply", lambda raw: decode_actions(raw[8:]), None),
    ofproto.OFPIT_CLEAR_ACTIONS: ("clear", lambda raw: True, 8),
    ofproto.OFPIT_METER: ("meter", _read_meter, 8),
}
"""By instruction type: the attribute of Instructions, how to read it, its exact length."""

_REFUSED = {ofproto.OFPIT_EXPERIMENTER: BadInstruction.BAD_EXPERIMENTER}
