"""The tables of connections and of addresses are read in parts, as a whole, and cheaply."""

from __future__ import annotations

import time

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from tests.bpf.bench import Bench
from tests.bpf.test_conntrack import ZONE, tcp, tracking, udp
from vnet.openflow.conntrack import State
from vnet.openflow.flow import Flow, Instructions, Output, match
from vnet.openflow.message import Port
from vnet.switch import abi
from vnet.switch.connections import SLOT_BYTES, Tracked, tracked

PART = 4096


def whole(bench: Bench) -> list[Tracked]:
    used = bench.datapath.used_slots()
    parts = ((first, bench.datapath.slots(first, PART)) for first in range(0, used, PART))
    return [one for first, values in parts for one in tracked(values, first)]


def test_a_connection_is_read_as_its_packets_made_it(bench: Bench) -> None:
    bench.load(tracking())
    before_ns = time.monotonic_ns()
    sent = [tcp("S"), tcp("SA", reply=True), tcp("A")]
    for frame, back in zip(sent, (False, True, False), strict=True):
        bench.decide(2 if back else 1, frame)
    bench.decide(1, udp())
    one, other = whole(bench)
    assert (one.zone, one.version, one.protocol) == (ZONE, 4, 6)
    assert (one.client, one.client_port) == (0x0A000001, 1000)
    assert (one.server, one.server_port, one.service_port) == (0x0A000002, 80, 80)
    assert one.packets == (2, 1) and one.octets == (len(sent[0]) + len(sent[2]), len(sent[1]))
    assert (one.state, one.is_there, one.port) == (State.ESTABLISHED, True, 1)
    assert before_ns - 10**8 < one.created_ns <= one.last_seen_ns <= time.monotonic_ns()
    assert not one.is_silent(one.last_seen_ns + 86400 * 10**9)
    assert one.is_silent(one.last_seen_ns + 86401 * 10**9)
    assert (other.protocol, other.state, other.packets) == (17, State.OPENING, (1, 0))


def test_what_an_ended_connection_counted_can_still_be_read(bench: Bench) -> None:
    bench.load(tracking())
    bench.decide(1, udp())
    bench.datapath.flush_connections()
    (one,) = whole(bench)
    assert not one.is_there and one.packets == (1, 0)


def test_a_full_table_is_read_in_parts_in_a_bounded_time(bench: Bench) -> None:
    """Slots are written as the dataplane would: 65,536 of them, the last as telling as the first."""
    conns, control = bench.datapath._map["conns"], bench.datapath._map["ct_control"]
    conn = abi.Conn(created_ns=1, last_seen_ns=2, gen=1)
    for slot in range(abi.CONNS):
        conn.packets[0] = slot
        conns.set(slot, bytes(conn))
    used = abi.CtControl.from_buffer_copy(control.index(0) or b"")
    used.fresh = abi.CONNS + 5  # several CPUs may have asked for one too many
    control.set(0, bytes(used))
    longest_s, slots, at = 0.0, 0, bench.datapath.used_slots()
    assert at == abi.CONNS
    for first in range(0, at, PART):
        began_s = time.thread_time()
        values = bench.datapath.slots(first, PART)
        longest_s = max(longest_s, time.thread_time() - began_s)
        assert len(values) == PART * SLOT_BYTES
        found = list(tracked(values, first))
        assert [one.packets[0] for one in found] == [one.slot for one in found]
        slots += len(found)
    assert slots == abi.CONNS
    assert longest_s < 0.1, "so long others wait for the datapath"


def test_learnt_addresses_are_read_in_batches(bench: Bench) -> None:
    bench.load([Flow(0, 10, match(), Instructions((Output(Port.NORMAL),)))])
    for number in range(3):
        frame = Ether(src=f"02:00:00:00:00:0{number}", dst="02:00:00:00:00:09") / IP() / UDP() / Raw(b"x")
        bench.datapath.run(1 + number, bytes(frame))
    found = {(vlan, mac, port) for vlan, mac, port, _ in bench.datapath.learnt()}
    assert found == {(0, 0x020000000000 + number, 1 + number) for number in range(3)}
    macs = bench.datapath._map["macs"]
    for number in range(5000):
        macs.update((0x0400_0000_0000 + number << 16 | 5).to_bytes(8, "little"), bytes(16))
    for size in (1, 7, 1024):
        assert len({key for batch in macs.batches(size) for key, _ in batch}) == 5003
