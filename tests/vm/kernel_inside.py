"""What the switch must do under any kernel, tried inside a guest (or, by hand, on this machine):

    unshare --net --mount .venv/bin/python -m tests.vm.kernel_inside

where the last step fails if another switch comes meanwhile, because it looks at all that the kernel holds.

Ports 1 and 2 are veth pairs, 3 and 4 TAPs. Each step is one sentence of what is expected; it says `passed`
or how it failed. After the frames of a step a mark is sent, which the rules copy to every port: what came
before the mark is all there was.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import platform
import select
import shutil
import socket
import struct
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from tests.bpf import verifier
from tests.perf.inside.frames import ACK, PSH, SYN, End, checksum, tcp, udp
from tests.vm import erspan_inside as erspan
from vnet.base.drop import DropReason
from vnet.base.line import STRAIGHT, Impairment, Line, rate_of
from vnet.openflow import cookie
from vnet.openflow.fields import ETH_IPV4, CtState
from vnet.openflow.flow import (
    Conntrack,
    DecIpTtl,
    Flow,
    Instructions,
    Match,
    Nat,
    Output,
    PopVlan,
    Port,
    PushVlan,
    SetField,
    ToGroup,
    match,
)
from vnet.openflow.group import Band, BandType, Bucket, Group, GroupType, Meter, MeterFlag
from vnet.switch.abi import Point
from vnet.switch.datapath import Change
from vnet.switch.live import bpf, queues
from vnet.switch.live.datapath import EbpfDatapath
from vnet.switch.live.maps import object_path
from vnet.switch.live.sandbox import trace_object
from vnet.switch.taps import Tap
from vnet.topology.model import ToErspan

PINS = Path("/sys/fs/bpf/vnet-kernels")
DEADLINE_S = 5.0
PORTS = (1, 2, 3, 4)
MIRROR = 5
"""The port of the device that mirrors to another machine, where that is tried."""
MARK, PLAIN = 0x88B5, 0x88B6
"""The two EtherTypes for local experiments (IEEE Std 802)."""
FLOOD, FAILOVER, SPLIT = 1, 2, 3
METER = 1
ZONE, NAT_ZONE = 7, 8
BAD_MAC = 0x0200000000BD
BAD = cookie.make("kernels", DropReason.SPOOF_MAC)
CLOSED = cookie.make("kernels", DropReason.POLICY)
TAG = 0x1000 | 100
BPF_LINK_TYPE_TCX = 11

A = End(1, 0x020000000001, 0x0A000001)
B = End(2, 0x020000000002, 0x0A000002)
C = End(3, 0x020000000003, 0x0A000003)
D = End(4, 0x020000000004, 0x0A000004)
OUTSIDE = End(2, B.mac, 0xC0000202)
"""What D's address becomes on its way to B."""
MOVED = End(1, A.mac, 0x0A0000FE)
"""What B's datagrams to A are sent on to."""


def flow(priority: int, wanted: Match, *apply: object, table: int = 0, **rest: int) -> Flow:
    meter = rest.pop("meter", None)
    return Flow(table, priority, wanted, Instructions(tuple(apply), meter=meter), **rest)  # type: ignore[arg-type]


def ct(state: CtState, **wanted: int) -> Match:
    """Tracked packets in exactly this state, as far as new and established go."""
    cared = CtState.TRK | CtState.NEW | CtState.EST
    return match(eth_type=ETH_IPV4, ct_state=(CtState.TRK | state, cared), **wanted)


TO_B = match(in_port=1, eth_dst=B.mac)
NATTED = Nat(source=True, addresses=(OUTSIDE.ip, OUTSIDE.ip), ports=(4000, 4999))
FLOWS = (
    flow(300, match(in_port=1, eth_type=MARK), ToGroup(FLOOD)),
    flow(200, match(eth_type=ETH_IPV4, ip_proto=6), Conntrack(zone=ZONE, table=1)),
    flow(20, ct(CtState.NEW, in_port=1), Conntrack(zone=ZONE, commit=True), Output(2), table=1),
    flow(20, ct(CtState.EST, in_port=1), Output(2), table=1),
    flow(20, ct(CtState.EST, in_port=2), Output(1), table=1),
    flow(1, match(), table=1, cookie=CLOSED),
    flow(200, match(in_port=4, eth_type=ETH_IPV4, ip_proto=17),
         Conntrack(zone=NAT_ZONE, commit=True, nat=NATTED, table=2)),
    flow(200, match(in_port=2, ipv4_dst=OUTSIDE.ip, eth_type=ETH_IPV4),
         Conntrack(zone=NAT_ZONE, nat=Nat(), table=2)),
    flow(1, match(in_port=4), Output(2), table=2),
    flow(1, match(in_port=2, eth_type=ETH_IPV4, ipv4_dst=D.ip), Output(4), table=2),
    flow(150, match(in_port=2, eth_type=ETH_IPV4, ip_proto=17, ipv4_dst=A.ip),
         SetField("ipv4_dst", MOVED.ip), SetField("udp_dst", 5353), DecIpTtl(), Output(1)),
    flow(100, TO_B, Output(2)),
    flow(100, match(in_port=1, eth_dst=C.mac), PushVlan(), SetField("vlan_vid", TAG), Output(3)),
    flow(100, match(in_port=3, vlan_vid=TAG), PopVlan(), Output(1)),
    flow(100, match(in_port=4, eth_type=PLAIN), Output(2), meter=METER),
    flow(100, match(in_port=2, eth_src=B.mac, eth_dst=D.mac), ToGroup(FAILOVER)),
    flow(100, match(in_port=2, eth_src=B.mac, eth_dst=C.mac), ToGroup(SPLIT)),
    flow(100, match(eth_src=BAD_MAC), cookie=BAD),
)  # fmt: skip
GROUPS = (
    Group(FLOOD, GroupType.ALL, tuple(Bucket((Output(port),)) for port in (Port.IN_PORT, 2, 3, 4))),
    Group(FAILOVER, GroupType.FAST_FAILOVER,
          (Bucket((Output(4),), watch_port=4), Bucket((Output(3),), watch_port=3))),
    Group(SPLIT, GroupType.SELECT, (Bucket((Output(3),), weight=1), Bucket((Output(4),), weight=1))),
)  # fmt: skip
METERS = (Meter(METER, MeterFlag.PKTPS | MeterFlag.BURST | MeterFlag.STATS, (Band(BandType.DROP, 1, 1),)),)


def sh(command: str) -> str:
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def plain(source: int, target: int, tag: int | None = None, kind: int = PLAIN) -> bytes:
    """A frame of no protocol that anybody knows."""
    tagged = b"" if tag is None else struct.pack("!HH", 0x8100, tag & 0xFFF)
    head = target.to_bytes(6, "big") + source.to_bytes(6, "big") + tagged + struct.pack("!H", kind)
    return head + bytes(range(46))


def checked_udp(source: End, target: End, ports: tuple[int, int], ttl: int = 64) -> bytes:
    """A datagram with its checksums."""
    frame = bytearray(udp(source, target, *ports))
    frame[22], frame[24:26] = ttl, bytes(2)
    frame[24:26] = checksum(bytes(frame[14:34])).to_bytes(2, "big")
    pseudo = frame[26:34] + struct.pack("!HH", 17, len(frame) - 34)
    frame[40:42] = checksum(bytes(pseudo + frame[34:])).to_bytes(2, "big")
    return bytes(frame)


FULL = tcp(A, B, (999, 80), 1, 1, ACK, bytes(range(146)) * 10)
"""As long as Ethernet has them, and not to be fragmented; it belongs to no connection."""
COPIED = (plain(A.mac, B.mac), plain(A.mac, B.mac, TAG), checked_udp(A, D, (1, 9), ttl=1), FULL)


class Ends:
    """What is attached to the ports: AF_PACKET sockets behind veth, the other end of TAPs."""

    def __init__(self) -> None:
        self._read: dict[int, Callable[[], bytes | None]] = {}
        self._write: dict[int, Callable[[bytes], object]] = {}
        self._files: dict[int, int] = {}

    def open(self) -> None:
        """Make all interfaces: p1…p4 are the switch's."""
        for port in (1, 2):
            sh(f"ip link add p{port} type veth peer name q{port}")
            self._veth(port)
        for port in (3, 4):
            self._tap(port)
        for port in PORTS:
            sh(f"ip link set p{port} up")

    def _veth(self, port: int) -> None:
        sh(f"ip link set q{port} up")
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(3))
        raw.bind((f"q{port}", 3))

        def read() -> bytes | None:
            frame, address = raw.recvfrom(2048)
            return None if address[2] == socket.PACKET_OUTGOING else frame

        self._files[port], self._read[port], self._write[port] = raw.fileno(), read, raw.send
        self._keep = (*getattr(self, "_keep", ()), raw)

    def _tap(self, port: int) -> None:
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        # TUNSETIFF, IFF_TAP | IFF_NO_PI (linux/if_tun.h)
        fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", f"p{port}".encode(), 0x1002))
        self._files[port] = tun
        self._read[port] = lambda: os.read(tun, 2048)
        self._write[port] = lambda frame: os.write(tun, frame)

    def send(self, port: int, frame: bytes) -> None:
        """Let a frame come in by a port."""
        self._write[port](frame)

    def exchange(self, *sent: tuple[int, bytes]) -> Mapping[int, list[bytes]]:
        """Send frames, each into a port, and tell what came out of the ports, by port; without the mark."""
        for port, frame in sent:
            self.send(port, frame)
        mark = plain(A.mac, 0xFFFFFFFFFFFF, kind=MARK)
        self.send(1, mark)
        return {port: got for port in PORTS if (got := list(self._until(port, mark)))}

    def _until(self, port: int, mark: bytes) -> Iterator[bytes]:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            left = deadline - time.monotonic()
            assert left > 0 and select.select([self._files[port]], [], [], left)[0], f"no mark at port {port}"
            frame = self._read[port]()
            if frame == mark:
                return
            if frame is not None:
                yield frame


def same(got: object, wanted: object) -> None:
    assert got == wanted, f"\n   got {got}\nwanted {wanted}"


class Trial:
    """The steps in their order; a later one relies on what earlier ones left."""

    def __init__(self) -> None:
        self.ends = Ends()
        self.before = kernel_objects()

    def the_programs_load_and_attach(self) -> None:
        self.ends.open()
        self.switch = EbpfDatapath.open("kernels", None, PINS)
        for port in PORTS:
            self.switch.attach(port, f"p{port}")
        assert not self.switch.adopted

    def the_rules_are_committed(self) -> None:
        self.switch.commit(Change(put=FLOWS, put_groups=GROUPS, put_meters=METERS))
        same(self.ends.exchange(), {})

    def a_frame_leaves_by_the_port_of_its_address(self) -> None:
        frame = plain(A.mac, B.mac)
        for _ in range(3):  # the first is remembered, the others find it
            same(self.ends.exchange((1, frame)), {2: [frame]})

    def a_tag_is_pushed_towards_a_trunk(self) -> None:
        for _ in range(2):
            same(self.ends.exchange((1, plain(A.mac, C.mac))), {3: [plain(A.mac, C.mac, TAG)]})

    def a_tag_is_popped_off_a_trunks_frame(self) -> None:
        for _ in range(2):
            same(self.ends.exchange((3, plain(C.mac, A.mac, TAG))), {1: [plain(C.mac, A.mac)]})

    def a_connection_opens_and_its_packets_pass_both_ways(self) -> None:
        ports = (1234, 80)
        self.data = tcp(A, B, ports, 1001, 5001, ACK | PSH, b"x" * 6)
        self.answer = tcp(B, A, ports[::-1], 5001, 1007, ACK | PSH, b"y" * 6)
        syn = tcp(A, B, ports, 1000, 0, SYN)
        both = tcp(B, A, ports[::-1], 5000, 1001, SYN | ACK)
        ack = tcp(A, B, ports, 1001, 5001, ACK)
        got = self.ends.exchange((1, syn), (2, both), (1, ack), (1, self.data), (2, self.answer))
        same(got, {2: [syn, ack, self.data], 1: [both, self.answer]})
        same(self.ends.exchange((1, self.data), (2, self.answer)), {2: [self.data], 1: [self.answer]})

    def what_belongs_to_no_connection_is_dropped_with_the_rules_reason(self) -> None:
        before = self.switch.drop_counters().get(DropReason.POLICY, 0)
        same(
            self.ends.exchange((2, tcp(B, A, (80, 4321), 1, 1, ACK)), (2, tcp(B, A, (81, 4321), 1, 0, SYN))),
            {},
        )
        same(self.switch.drop_counters()[DropReason.POLICY] - before, 2)

    def a_source_is_translated_and_the_answer_translated_back(self) -> None:
        out = self.ends.exchange((4, checked_udp(D, B, (1000, 53))))
        (frame,) = out[2]
        port = int.from_bytes(frame[34:36], "big")
        assert 4000 <= port <= 4999, port
        sender = End(4, D.mac, OUTSIDE.ip)
        same(out, {2: [checked_udp(sender, B, (port, 53))]})
        back = self.ends.exchange((2, checked_udp(B, sender, (53, port))))
        same(back, {4: [checked_udp(B, D, (53, 1000))]})

    def fields_are_rewritten_with_their_checksums(self) -> None:
        for _ in range(2):
            got = self.ends.exchange((2, checked_udp(B, A, (777, 53))))
            same(got, {1: [checked_udp(B, MOVED, (777, 5353), ttl=63)]})

    def a_group_fails_over_when_its_port_goes_down(self) -> None:
        frame = plain(B.mac, D.mac)
        same(self.ends.exchange((2, frame)), {4: [frame]})
        sh("ip link set p4 down")
        try:
            self.switch.ports()
            self.ends.send(2, frame)
        finally:
            sh("ip link set p4 up")
            self.switch.ports()
        same(self.ends.exchange((2, frame)), {3: [frame], 4: [frame]})

    def a_group_keeps_each_flow_on_one_bucket(self) -> None:
        frames = [plain(B.mac, C.mac)] * 4
        got = self.ends.exchange(*((2, frame) for frame in frames))
        assert sorted(map(len, got.values())) == [4], got
        counted = self.switch.group_counters()[SPLIT]
        same((counted.total.packets, sorted(bucket.packets for bucket in counted.buckets)), (4, [0, 4]))

    def a_meter_lets_its_rate_pass_and_counts_the_rest(self) -> None:
        frame = plain(D.mac, B.mac)
        got = self.ends.exchange(*[(4, frame)] * 50)
        counted = self.switch.meter_counters()[METER]
        passed = len(got[2])
        assert 0 < passed < 50, passed
        same((counted.total.packets, counted.bands[0].packets), (50, 50 - passed))

    def a_drop_is_told_with_its_packet_reason_and_cookie(self) -> None:
        self.switch.read_events()
        frame = plain(BAD_MAC, A.mac)
        same(self.ends.exchange((3, frame)), {})
        told = [e for e in self.switch.read_events() if e.point is Point.DROP]
        same([(e.port, e.reason, e.cookie, e.data) for e in told], [(3, DropReason.SPOOF_MAC, BAD, frame)])
        same(self.switch.drop_counters()[DropReason.SPOOF_MAC], 1)

    def a_controllers_packet_is_sent(self) -> None:
        frame = plain(0x0200000000CC, C.mac)
        self.switch.packet_out(Port.CONTROLLER, (Output(3), Output(4)), frame)
        same(self.ends.exchange(), {3: [frame], 4: [frame]})

    def counters_are_exact(self) -> None:
        counted = self.switch.flow_counters()
        same(counted[(0, 100, TO_B)].packets, 3)
        same(counted[(0, 100, match(in_port=3, vlan_vid=TAG))].packets, 2)
        before = self.switch.port_counters()
        frame = plain(A.mac, B.mac)
        self.ends.exchange(*[(1, frame)] * 5)
        after = self.switch.port_counters()
        same(after[1].rx.packets - before[1].rx.packets, 6)  # the mark too
        same(after[2].tx.packets - before[2].tx.packets, 6)
        same(self.switch.flow_counters()[(0, 100, TO_B)].bytes, 8 * len(frame))

    def what_a_nic_sends_beyond_its_rate_is_lost_as_that_and_the_rest_arrives(self) -> None:
        frame, before = plain(A.mac, B.mac) + bytes(1400), self.switch.drop_counters().get(DropReason.RATE, 0)
        line = Line(outward=rate_of(256_000))
        self.switch.lay(1, line)
        same(self.switch.lines()[1], line)
        for _ in range(100):
            self.ends.send(1, frame)
        time.sleep(2.0)  # a mark takes its turn, too
        got = self.ends.exchange()
        lost = self.switch.drop_counters()[DropReason.RATE] - before
        assert set(got) == {2} and 30 <= len(got[2]) <= 80, {
            port: len(frames) for port, frames in got.items()
        }
        same(len(got[2]) + lost, 100)
        self.switch.lay(1, STRAIGHT)
        same(self.ends.exchange(*[(1, frame)] * 40), {2: [frame] * 40})

    def a_bad_cable_is_late_both_ways(self) -> None:
        assert queues.has("netem")
        self.switch.lay(2, Line(impairment=Impairment(delay_us=500_000)))
        there, back = plain(A.mac, B.mac), plain(B.mac, D.mac)
        began = time.monotonic()
        same(self.ends.exchange((1, there), (2, back)), {2: [there]})
        assert time.monotonic() - began >= 0.5
        time.sleep(0.6)
        same(self.ends.exchange(), {4: [back]})

    def a_bad_cable_loses_packets_and_is_mended(self) -> None:
        broken = Line(rate_of(10**6), rate_of(2 * 10**6), Impairment(20_000, 5_000, 1_000_000))
        self.switch.lay(2, broken)
        same(self.switch.lines()[2], broken)
        for frame in [plain(A.mac, B.mac)] * 3:
            self.ends.send(1, frame)
        time.sleep(0.1)
        self.switch.lay(2, STRAIGHT)
        same(self.ends.exchange(), {})
        same(set(self.switch.lines().values()), {STRAIGHT})
        assert "line" not in sh("ip link")

    def a_packet_does_what_its_trace_said(self) -> None:
        for frame in (plain(A.mac, B.mac), plain(A.mac, BAD_MAC), checked_udp(A, C, (5000, 53))):
            with self.switch.sandbox() as sandbox:
                traced = sandbox.run(1, frame)
            said: dict[int, list[bytes]] = {}
            for port, data in traced.outputs:
                said.setdefault(port, []).append(data)
            same(self.ends.exchange((1, frame)), said)
            assert traced.tables

    def copies_reach_another_machine_in_erspan(self) -> None:
        self._copied("192.0.2.1", "192.0.2.2", 24, len(FULL))

    def copies_reach_another_machine_in_erspan_over_ipv6(self) -> None:
        """The longest is cut: of 1500 bytes IPv6 takes 40, GRE 8, ERSPAN 8; 4 are left for a tag."""
        self._copied("2001:db8::1", "2001:db8::2", 64, 1440)

    def _copied(self, here: str, there: str, prefix: int, most: int) -> None:
        """What A sends arrives at a machine, at most so many bytes of each frame."""
        to = ToErspan(ip_address(there), 1023)
        with erspan.collector(f"{here}/{prefix}", f"{there}/{prefix}") as wire, erspan.device(to) as name:
            self.switch.attach(MIRROR, name)
            self.switch.tap({0: Tap(frozenset({1}), points=frozenset({Point.GUEST}), to_port=MIRROR)})
            try:
                for frame in COPIED:
                    self.ends.send(1, frame)
                got = erspan.copies(wire, len(COPIED))
                assert "give each a number of its own" in erspan.refused(to)
            finally:
                self.switch.tap({})
                self.switch.detach(MIRROR)
                self.ends.exchange()
        head = erspan.Copy(ip_address(here), to.address, session=to.number)
        tagged = replace(head, vlan=TAG & 0xFFF, encapsulation=erspan.TAG_IN_FRAME)
        for sequence, (frame, copy) in enumerate(zip(COPIED, got, strict=True)):
            wanted = tagged if frame[12:14] == b"\x81\x00" else head
            same(copy, replace(wanted, sequence=sequence, is_cut=len(frame) > most, frame=frame[:most]))

    def a_second_version_takes_over_and_connections_stay(self) -> None:
        changed = flow(100, TO_B, Output(3))
        version = self.switch.version
        self.switch.commit(Change(put=(changed,), remove=(match_of(BAD).key,)))
        self.second = {f.key: f for f in (*FLOWS, changed) if f.cookie != BAD}
        same(self.switch.version, version + 1)
        frame = plain(A.mac, B.mac)
        same(self.ends.exchange((1, frame), (1, self.data), (2, self.answer)),
             {3: [frame], 2: [self.data], 1: [self.answer]})  # fmt: skip

    def packets_pass_while_no_agent_runs(self) -> None:
        self.version = self.switch.version
        self.switch.close()
        frame = plain(A.mac, B.mac)
        same(self.ends.exchange((1, frame), (2, self.answer)), {3: [frame], 1: [self.answer]})

    def a_restarted_agent_adopts_what_is_in_force(self) -> None:
        self.switch = EbpfDatapath.open("kernels", None, PINS)
        assert self.switch.adopted
        same(self.switch.version, self.version)
        same({f.key: f for f in self.switch.flows()}, self.second)
        same((set(self.switch.groups()), set(self.switch.meters())), (set(GROUPS), set(METERS)))
        same([(p.number, p.name, p.up) for p in self.switch.ports()], [(n, f"p{n}", True) for n in PORTS])
        same(self.ends.exchange((1, self.data)), {2: [self.data]})

    def flushed_connections_are_gone(self) -> None:
        self.switch.tidy()
        self.switch.flush_connections()
        same(self.ends.exchange((2, self.answer)), {})

    def a_detached_port_is_left_as_it_was(self) -> None:
        self.switch.detach(4)
        same((attached("p4"), "clsact" in sh("tc qdisc show dev p4")), ("nothing", False))
        assert not (PINS / "links" / "4").exists()
        assert attached("p1") != "nothing"

    def nothing_is_left_at_the_end(self) -> None:
        self.switch.destroy()
        same((PINS.exists(), [attached(f"p{n}") for n in PORTS]), (False, ["nothing"] * 4))
        assert "clsact" not in sh("tc qdisc show")
        deadline = time.monotonic() + DEADLINE_S
        while left := kernel_objects() - self.before:  # the kernel frees after a grace period
            assert time.monotonic() < deadline, f"left: {sorted(left)}"
            time.sleep(0.05)


def match_of(number: int) -> Flow:
    """The flow with a cookie."""
    return next(f for f in FLOWS if f.cookie == number)


def attached(interface: str) -> str:
    """How the switch is attached to an interface, as the kernel tells it: `tcx`, `filter` or `nothing`."""
    index, found = socket.if_nametoindex(interface), []
    if "vnet_ingress" in sh(f"tc filter show dev {interface} ingress"):
        found.append("filter")
    for pin in (PINS / "links").glob("*"):
        link = bpf.get(pin)
        if bpf.link_ifindex(link) == index and link_type(link) == BPF_LINK_TYPE_TCX:
            found.append("tcx")
        os.close(link)
    return "+".join(found) or "nothing"


def link_type(link: int) -> int:
    info, size = (ctypes.c_uint32 * 32)(), ctypes.c_uint32(128)
    assert not ctypes.CDLL("libbpf.so.1").bpf_obj_get_info_by_fd(link, info, ctypes.byref(size))
    return int(info[0])


def kernel_objects() -> set[tuple[str, int]]:
    """The programs, maps and links that the kernel holds, by kind and number."""
    lib, found = ctypes.CDLL("libbpf.so.1"), set()
    for kind in ("prog", "map", "link"):
        number = ctypes.c_uint32(0)
        while getattr(lib, f"bpf_{kind}_get_next_id")(number, ctypes.byref(number)) == 0:
            found.add((kind, number.value))
    return found


def say(**facts: object) -> None:
    print("@@" + json.dumps(facts), flush=True)


def steps() -> list[str]:
    """Their names, in order."""
    return [name for name in vars(Trial) if not name.startswith("_")]


def main() -> None:
    for name in ("all", "default"):
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")  # no chatter
    if not os.environ.get("PATH"):
        os.environ["PATH"] = "/usr/sbin:/usr/bin"
    say(kernel=platform.release())
    tried("the_verifier_tells_its_costs", tell_costs)
    trial, begun = Trial(), time.monotonic()
    for name in steps():
        if not tried(name, getattr(trial, name)) and name == steps()[0]:
            break
        say(after=name, seconds=round(time.monotonic() - begun, 1))
        if name == steps()[0]:
            say(attached=sorted({attached(f"p{n}") for n in PORTS}))
    shutil.rmtree(PINS, ignore_errors=True)


def tell_costs() -> None:
    costs = {**verifier.costs(object_path()), **verifier.costs(trace_object())}
    say(costs=verifier.plain(costs))


def tried(name: str, step: Callable[[], None]) -> bool:
    """Say how a step went; later ones are tried all the same."""
    try:
        step()
    except Exception as error:  # noqa: BLE001 - whatever it is, the other steps are still wanted
        text = "".join(traceback.format_exception(error))
        say(
            failed=name.replace("_", " "),
            why=text if len(text) < 8000 else f"{text[:2000]}\n…\n{text[-6000:]}",
        )
        return False
    say(passed=name.replace("_", " "))
    return True


if __name__ == "__main__":
    main()
