"""Real frames through real interfaces: what BPF_PROG_TEST_RUN cannot show.

Ports are veth pairs whose far ends lie in namespaces of their own, so tags travel as the kernel carries
them (beside the packet), TCP sends super packets with partial checksums, and two CPUs work at once.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.bpf.bench import sh
from tests.bpf.ends import Ends, does
from vnet.base.drop import DropReason
from vnet.openflow.fields import ETH_IPV4, ETH_IPV6, UDP, VLAN_PRESENT
from vnet.openflow.flow import (
    Conntrack,
    Flow,
    Instructions,
    Output,
    PopVlan,
    Port,
    PushVlan,
    SetField,
    match,
)
from vnet.switch import abi
from vnet.switch.live.netns import inside

BROADCAST = b"\xff" * 6


def ethernet(to: bytes, number: int, ethertype: int, payload: bytes, tag: int | None = None) -> bytes:
    tagged = b"" if tag is None else struct.pack("!HH", 0x8100, tag)
    return to + bytes([2, 0, 0, 0, 0, number]) + tagged + ethertype.to_bytes(2, "big") + payload


@pytest.fixture
def ends() -> Iterator[Ends]:
    with Ends(4) as made:
        yield made


def test_pushed_tag_is_on_the_wire_and_popped_tag_is_not(ends: Ends) -> None:
    ends.put(
        does(
            PushVlan(), SetField("vlan_vid", VLAN_PRESENT | 7), SetField("vlan_pcp", 5), Output(2), in_port=1
        ),
        does(PopVlan(), Output(4), in_port=3),
    )
    for number in (2, 4):
        ends.wire(number)
    plain = ethernet(BROADCAST, 1, 0x88B5, bytes(50))
    ends.wire(1).send(plain)
    ends.wire(3).send(ethernet(BROADCAST, 1, 0x88B5, bytes(50), tag=9))
    assert ends.received(2) == [ethernet(BROADCAST, 1, 0x88B5, bytes(50), tag=5 << 13 | 7)]
    assert ends.received(4) == [plain]


def test_each_copy_leaves_with_the_tag_it_had_when_it_was_output(ends: Ends) -> None:
    tag = SetField("vlan_vid", VLAN_PRESENT | 8)
    ends.put(does(Output(2), PushVlan(), tag, Output(3), PopVlan(), Output(4), in_port=1))
    for number in (2, 3, 4):
        ends.wire(number)
    for _ in range(2):  # the second comes out of the cache
        ends.wire(1).send(ethernet(BROADCAST, 1, 0x88B5, bytes(50)))
    plain, tagged = (ethernet(BROADCAST, 1, 0x88B5, bytes(50), tag=tag) for tag in (None, 8))
    assert [ends.received(number) for number in (2, 3, 4)] == [[plain] * 2, [tagged] * 2, [plain] * 2]


def test_packet_in_shows_the_packet_as_it_was_changed(ends: Ends) -> None:
    tag = SetField("vlan_vid", VLAN_PRESENT | 8)
    ends.put(does(PushVlan(), tag, Output(Port.CONTROLLER), PopVlan(), Output(2), in_port=1))
    ends.wire(2)
    ends.wire(1).send(ethernet(BROADCAST, 1, 0x88B5, bytes(50)))
    assert ends.received(2) == [ethernet(BROADCAST, 1, 0x88B5, bytes(50))]
    (event,) = ends.datapath.read_events()
    assert event.data == ethernet(BROADCAST, 1, 0x88B5, bytes(50), tag=8)


def test_inner_of_two_tags_is_what_the_packet_is_of(ends: Ends) -> None:
    """A guest's tag within another must not pass for the packet's own network."""
    ends.put(does(Output(2), in_port=1, vlan_vid=VLAN_PRESENT | 5, eth_type=0x8100))
    ends.wire(2)
    inner = struct.pack("!HH", 6, ETH_IPV4) + bytes(50)
    double = ethernet(BROADCAST, 1, 0x8100, inner, tag=5)
    ends.wire(1).send(double)
    assert ends.received(2) == [double]
    ends.put(does(PopVlan(), Output(2), in_port=1, vlan_vid=VLAN_PRESENT | 5, eth_type=0x8100))
    ends.wire(1).send(double)
    assert ends.received(2) == [double[:12] + double[16:]]
    wanted = {"in_port": 1, "vlan_vid": VLAN_PRESENT | 5, "eth_type": 0x8100}
    looked_at = does(PopVlan(), SetField("reg0", 1), Output(2), **wanted)
    ends.put(looked_at)
    ends.wire(1).send(double)
    assert ends.received(2) == []
    assert ends.datapath.drop_counters() == {DropReason.MALFORMED: 1}, "what comes to light is read"


def test_flood_within_a_network_reaches_its_other_ports_only(ends: Ends) -> None:
    flood = tuple(Output(number) for number in (1, 2, 3))
    ends.put(*(does(*flood, in_port=number) for number in (1, 2, 3)))
    for number in (1, 2, 3, 4):
        ends.wire(number)
    frame = ethernet(BROADCAST, 1, 0x88B5, os.urandom(60))
    ends.wire(1).send(frame)
    assert [ends.received(number) for number in (1, 2, 3, 4)] == [[], [frame], [frame], []]
    ends.put(does(Output(Port.FLOOD), in_port=4))
    ends.wire(4).send(frame)
    assert [ends.received(number) for number in (1, 2, 3, 4)] == [[frame], [frame], [frame], []]


IP4 = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 0, 0, 64, UDP, 0, bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]))
IP6 = struct.pack("!IHBB", 6 << 28, 20, UDP, 64) + bytes(32)


CUT = {
    **{f"IPv4 of {length} bytes": (ETH_IPV4, IP4[:length]) for length in (0, 1, 19)},
    **{f"IPv6 of {length} bytes": (ETH_IPV6, IP6[:length]) for length in (0, 1, 39)},
    "IPv4 longer than its frame": (ETH_IPV4, IP4),
    "IPv6 longer than its frame": (ETH_IPV6, IP6 + bytes(19)),
    "IPv4 of another protocol, longer than its frame": (ETH_IPV4, IP4[:9] + b"\x2f" + IP4[10:] + bytes(19)),
    "IPv6 of another protocol, longer than its frame": (ETH_IPV6, IP6[:6] + b"\x2f" + IP6[7:] + bytes(19)),
    "IPv4 header of 16 bytes": (ETH_IPV4, b"\x44" + IP4[1:] + bytes(20)),
    "IPv4 header longer than the packet": (ETH_IPV4, b"\x4f" + IP4[1:] + bytes(60)),
    "IPv4 header that leaves 4 bytes for UDP": (ETH_IPV4, b"\x49" + IP4[1:] + bytes(20)),
    "version 6 in IPv4": (ETH_IPV4, b"\x65" + IP4[1:] + bytes(20)),
    "version 4 in IPv6": (ETH_IPV6, b"\x40" + IP6[1:] + bytes(20)),
}


def test_ip_header_that_is_cut_or_contradicts_itself_is_dropped(ends: Ends) -> None:
    ends.put(does(Output(2)))
    ends.wire(2)
    for number, (what, (ethertype, packet)) in enumerate(CUT.items(), 1):
        ends.wire(1).send(ethernet(BROADCAST, 1, ethertype, packet))
        assert ends.received(2) == [], what
        assert ends.datapath.drop_counters() == {DropReason.MALFORMED: number}, what


def test_padding_behind_a_whole_packet_is_no_fault(ends: Ends) -> None:
    ends.put(does(Output(2)))
    ends.wire(2)
    frames = [
        ethernet(BROADCAST, 1, ETH_IPV4, IP4 + bytes(20 + 6)),
        ethernet(BROADCAST, 1, ETH_IPV6, IP6 + bytes(26)),
    ]
    for frame in frames:
        ends.wire(1).send(frame)
    assert ends.received(2) == frames


HAMMER = """
import os, socket, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
me, peer = sys.argv[2:]
hammer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
hammer.bind((me, 7)); hammer.connect((peer, 7)); hammer.setblocking(False)
end = time.monotonic() + 1.5
while time.monotonic() < end:
    for _ in range(50):
        try: hammer.send(b"x" * 32)
        except OSError: pass
    try:
        while hammer.recv(100): pass
    except OSError: pass
"""


def test_two_cpus_that_commit_one_connection_in_both_directions_make_one(ends: Ends) -> None:
    """Connections are forgotten again and again meanwhile; slots, index and quota must still agree."""
    flows = [does(Output(b), in_port=a, eth_type=0x806) for a, b in ((1, 2), (2, 1))]
    for a, b in ((1, 2), (2, 1)):
        flows.append(does(Conntrack(zone=3, table=1), in_port=a, eth_type=ETH_IPV4))
        flows.append(Flow(1, 1, match(in_port=a), Instructions((Conntrack(zone=3, commit=True), Output(b)))))
    ends.put(*flows)
    cpus = sorted(os.sched_getaffinity(0))
    hammers = []
    for a, b in ((1, 2), (2, 1)):
        where = str(cpus[a % len(cpus)]), f"10.0.0.{a}", f"10.0.0.{b}"
        command = ["ip", "netns", "exec", ends.end(a), sys.executable, "-c", HAMMER, *where]
        hammers.append(subprocess.Popen(command))
    maps, seen = ends.datapath._map, 0
    window = maps["conns"].window()
    while any(hammer.poll() is None for hammer in hammers):
        for slot in range(2):
            conn = abi.Conn.from_buffer_copy(maps["conns"].index(slot) or b"")
            if conn.gen & 1:
                seen += 1
                age(window, slot)
        time.sleep(0.001)
    assert all(hammer.returncode == 0 for hammer in hammers)
    assert seen > 100
    conns = [abi.Conn.from_buffer_copy(maps["conns"].index(slot) or b"") for slot in range(4)]
    alive = {slot for slot, conn in enumerate(conns) if conn.gen & 1}
    assert len(alive) <= 1, "one tuple, one connection"
    named = [struct.unpack("<II", value) for _, value in maps["conn_index"].items()]
    assert sorted(named) == sorted((slot, way) for slot in alive for way in (0, 1)), (
        "nobody names a freed slot"
    )
    owned = [struct.unpack_from("<Q", maps["port_state"].index(port) or b"")[0] for port in (1, 2)]
    assert sum(owned) == len(alive), "the quota counts what there is"


def age(window: memoryview, slot: int) -> None:
    """Make a connection look long unused; a race with the dataplane's own writes is part of the game."""
    at = (slot * ctypes.sizeof(abi.Conn) + abi.Conn.last_seen_ns.offset) // 4
    window[at] = window[at + 1] = 0


def test_port_state_follows_the_far_end_at_once(ends: Ends) -> None:
    assert [port.up for port in ends.datapath.ports()] == [True] * 4
    sh(f"ip -n {ends.end(2)} link set eth0 down")
    assert [port.up for port in ends.datapath.ports()] == [True, False, True, True]


def test_interface_that_vanished_gives_its_index_to_no_other_port(ends: Ends) -> None:
    """The kernel lets a new interface have the index of one that is gone."""
    with inside(ends.name):
        index = socket.if_nametoindex("p1")
    sh(f"ip -n {ends.name} link del p1")
    gone = ends.datapath.ports()[0]
    assert (gone.name, gone.up) == ("gone1", False)
    sh(f"ip -n {ends.name} link add again index {index} type veth peer name eth0 netns {ends.end(1)}")
    sh(f"ip -n {ends.name} link set again up")
    sh(f"ip -n {ends.end(1)} link set eth0 up")
    ends.datapath.attach(9, "again")
    assert [port.number for port in ends.datapath.ports()] == [2, 3, 4, 9]
    ends.put(does(Output(1), Output(9), in_port=2))
    ends.wire(1)
    ends.wire(2).send(ethernet(BROADCAST, 2, 0x88B5, bytes(50)))
    assert len(ends.received(1)) == 1, "port 1 is closed, port 9 is the new interface"
    ends.datapath.detach(9)
    ends.datapath.attach(1, "again")
    ends.wire(2).send(ethernet(BROADCAST, 2, 0x88B5, bytes(50)))
    assert len(ends.received(1)) == 1
