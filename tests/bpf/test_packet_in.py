"""Packets that a flow sends to the controller."""

from __future__ import annotations

import pytest

from tests.bpf.bench import Bench
from vnet.openflow import cookie
from vnet.openflow.flow import Flow, Instructions, Output, Port, PushVlan, match
from vnet.switch.abi import Point
from vnet.switch.events import packet_in
from vnet.switch.lower import LOGGED_BYTES

FRAME = bytes.fromhex("02000000000202000000000188b5") + bytes(100)


def test_packet_in_tells_a_flow_that_asked_from_the_table_miss(bench: Bench) -> None:
    to_controller = Instructions((Output(Port.CONTROLLER, 64),))
    bench.load([Flow(0, 5, match(in_port=1), to_controller, cookie=7), Flow(0, 0, match(), to_controller)])
    for port in (1, 2):
        bench.datapath.run(port, FRAME)
    asked, missed = (e for e in bench.datapath.read_events() if e.point is Point.CONTROLLER)
    assert (asked.port, asked.cookie, asked.dropped) == (1, 7, True)
    assert (missed.port, missed.dropped) == (2, False)


@pytest.mark.parametrize("max_len", [0, 1, 30, 0xFFFF])
@pytest.mark.parametrize("tag", [b"", bytes.fromhex("81000005")])
def test_a_packet_that_is_not_buffered_is_sent_whole(bench: Bench, max_len: int, tag: bytes) -> None:
    bench.load([Flow(0, 5, match(), Instructions((Output(Port.CONTROLLER, max_len),)))])
    frame = FRAME[:12] + tag + FRAME[12:]
    bench.datapath.run(1, frame)
    (told,) = map(packet_in, bench.datapath.read_events())
    assert (told.frame, told.total_len) == (frame, len(frame))


def test_the_log_is_sent_the_headers_only(bench: Bench) -> None:
    to_controller = Instructions((PushVlan(), Output(Port.CONTROLLER)))
    bench.load([Flow(0, 5, match(), to_controller, cookie=cookie.make("logged", log=True))])
    bench.datapath.run(1, FRAME + bytes(1000))
    (told,) = map(packet_in, bench.datapath.read_events())
    assert (len(told.frame), told.total_len) == (LOGGED_BYTES + 4, len(FRAME) + 1004)
