"""Packets that a flow sends to the controller."""

from __future__ import annotations

from tests.bpf.bench import Bench
from vnet.openflow.flow import Flow, Instructions, Output, Port, match
from vnet.switch.abi import Point

FRAME = bytes.fromhex("02000000000202000000000188b5") + bytes(100)


def test_packet_in_tells_a_flow_that_asked_from_the_table_miss(bench: Bench) -> None:
    to_controller = Instructions((Output(Port.CONTROLLER, 64),))
    bench.load([Flow(0, 5, match(in_port=1), to_controller, cookie=7), Flow(0, 0, match(), to_controller)])
    for port in (1, 2):
        bench.datapath.run(port, FRAME)
    asked, missed = (e for e in bench.datapath.read_events() if e.point is Point.CONTROLLER)
    assert (asked.port, asked.cookie, asked.dropped) == (1, 7, True)
    assert (missed.port, missed.dropped) == (2, False)
    assert asked.data == FRAME[:64]
    assert asked.length == len(FRAME)
