"""Records of the ring buffer as values, and as the messages that controllers get."""

from __future__ import annotations

import ctypes

import pytest

from vnet.base.drop import DropReason
from vnet.openflow.codec import encode
from vnet.openflow.flow import match
from vnet.openflow.message import PacketIn, PacketInReason
from vnet.switch import abi
from vnet.switch.abi import Point
from vnet.switch.events import decode, packet_in

FRAME = bytes(range(12)) + b"\x08\x00" + b"payload"


def record(data: bytes = FRAME, **members: int | ctypes.Array[ctypes.c_uint32]) -> bytes:
    return bytes(abi.Event(captured=len(data), length=len(data), **members)) + data


def test_a_dropped_packet_tells_where_why_and_by_which_rules() -> None:
    rules = (ctypes.c_uint32 * abi.PATH_RULES)(5, 9, 3)
    event = decode(
        record(
            time_ns=1 << 40,
            cookie=(1 << 64) - 1,
            port=4,
            in_port=4,
            version=7,
            ct_state=0x21,
            point=Point.DROP,
            reason=DropReason.NO_BUCKET,
            table=63,
            verdict=1,
            n_rules=2,
            rules=rules,
        )
    )
    assert (event.time_ns, event.point, event.port, event.in_port) == (1 << 40, Point.DROP, 4, 4)
    assert (event.dropped, event.reason) == (True, DropReason.NO_BUCKET)
    assert (event.cookie, event.table, event.rules) == ((1 << 64) - 1, 63, (5, 9))
    assert (event.ct_state, event.version, event.data, event.length) == (0x21, 7, FRAME, len(FRAME))


@pytest.mark.parametrize("tpid", [0x8100, 0x88A8])
def test_a_tag_that_the_kernel_keeps_beside_the_packet_is_put_into_it(tpid: int) -> None:
    event = decode(record(point=Point.GUEST, vlan_tci=0xF005, vlan_tpid=tpid))
    assert event.data == FRAME[:12] + tpid.to_bytes(2, "big") + b"\xf0\x05" + FRAME[12:]
    assert event.length == len(FRAME) + 4


def test_a_packet_of_priority_0_and_vlan_0_was_tagged_all_the_same() -> None:
    assert decode(record(point=Point.GUEST, vlan_tci=0, vlan_tpid=0x8100)).data[12:16] == b"\x81\x00\0\0"


def test_a_packet_that_was_cut_keeps_the_length_that_it_had() -> None:
    raw = bytes(abi.Event(captured=5, length=1500, point=Point.DELIVERED)) + FRAME
    assert (decode(raw).data, decode(raw).length) == (FRAME[:5], 1500)


def test_only_a_packet_in_has_a_reason_for_controllers() -> None:
    asked = decode(record(point=Point.CONTROLLER, verdict=PacketInReason.INVALID_TTL))
    lost = decode(record(point=Point.DROP, verdict=1, reason=DropReason.RULE))
    assert (asked.reason_code, lost.reason_code) == (PacketInReason.INVALID_TTL, 0)


def test_a_packet_in_tells_pipeline_fields_that_are_not_zero() -> None:
    registers = (ctypes.c_uint64 * 8)(7 << 32 | 1, *[0] * 6, 9 << 32)
    event = decode(
        record(
            point=Point.CONTROLLER,
            verdict=PacketInReason.ACTION,
            in_port=3,
            table=2,
            cookie=5,
            metadata=1 << 63,
            tunnel=8,
            ct_state=0x22,
            ct_zone=6,
            ct_mark=4,
            ct_label=(ctypes.c_uint64 * 2)(2, 1),
            registers=registers,
        )
    )
    fields = match(
        in_port=3,
        metadata=1 << 63,
        reg0=1,
        reg1=7,
        reg15=9,
        tunnel_id=8,
        ct_state=0x22,
        ct_zone=6,
        ct_mark=4,
        ct_label=2 << 64 | 1,
    )
    assert packet_in(event) == PacketIn(PacketInReason.ACTION, 2, 5, fields, FRAME, len(FRAME))
    plain = packet_in(decode(record(point=Point.CONTROLLER, in_port=3)))
    assert plain.match == match(in_port=3, metadata=0)


def test_the_longest_packet_with_all_pipeline_fields_fits_a_message() -> None:
    most = (1 << 64) - 1
    told = packet_in(
        decode(
            record(
                bytes(65_600),
                vlan_tpid=0x8100,
                point=Point.CONTROLLER,
                in_port=1,
                metadata=most,
                tunnel=most,
                ct_state=0xFF,
                ct_zone=0xFFFF,
                ct_mark=1,
                ct_label=(ctypes.c_uint64 * 2)(most, most),
                registers=(ctypes.c_uint64 * 8)(*[most] * 8),
            )
        )
    )
    assert len(encode(told, 0)) == 0xFFFF
    assert (told.total_len, len(told.match.entries)) == (0xFFFF, 23)


@pytest.mark.parametrize("member", ["point", "reason"])
def test_a_number_that_nobody_has_given_a_meaning_is_a_bug(member: str) -> None:
    with pytest.raises(ValueError, match="200"):
        decode(record(**{"point": Point.DROP, member: 200}))
