"""The rows that are counted in instructions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from tests.perf.inside import frames, peers
from tests.perf.inside.frames import End
from tests.perf.inside.harness import Harness, Meter, Vary
from tests.perf.inside.peers import Peer
from tests.perf.inside.ports import ports
from vnet.openflow.flow import Flow, Instructions, Output, Port, match

COUNT = 6400
FLOOD_BATCH = 4
SETTLE_S = 2.0
"""For what the kernel does later, such as freeing the maps of the switch before. A guest that sleeps under
icount lets its clock jump: this takes no time."""

Frames = Sequence[tuple[int, bytes]]
"""Each with the number of the port it comes in by."""
PORTS = (40000, 80)
LINKS_A_SECOND = 25
"""The kernel tells a bridge of at most a hundred carriers a second (net/core/link_watch.c), of both ends."""
PORTS_OF_ROW_17 = (2, 10, 100, 1000)
SEEN_FIRST = "instructions"


@dataclass(frozen=True, slots=True)
class Bench:
    """The harness, what the host prepared, and where figures go."""

    harness: Harness
    orders: dict[str, Any]
    say: Callable[..., None]
    settle_s: float = SETTLE_S

    def settle(self) -> None:
        """Wait until nothing of what was before is still being done."""
        time.sleep(self.settle_s)

    @property
    def ends(self) -> tuple[End, End]:
        a, b = self.orders["ends"]
        return a, b

    def compare(
        self, row: int, contenders: dict[str, tuple[Peer, Frames]], frame: bytes, case: str = ""
    ) -> None:
        """One figure for each contender: the cost of `frame` after the frames that it has to see first."""
        for name, (peer, before) in contenders.items():
            self.say(row=row, case=case, peer=name, value=self.cost(peer, frame, before))

    def cost(self, peer: Peer, frame: bytes, before: Frames, devices: int = 2) -> float:
        """Nanoseconds a packet, everything included, with one flow."""
        self.settle()
        with ports(devices) as names, peer(names):
            self.begin(before)
            return self.steady(frame, before[-1][0])

    def begin(self, before: Frames) -> None:
        """Send each frame once; each must come out."""
        self.harness.set_feed(1, "p2")
        for port, first in before:
            if not self.harness.send(f"p{port}", first, 1).packets:
                raise RuntimeError(f"a frame into p{port} did not come out: {first.hex()}")

    def steady(self, frame: bytes, port: int, flows: int = 1, count: int = COUNT) -> float:
        """The cost of a frame that was seen before."""
        self.harness.set_feed(flows, "p2")
        self.harness.send(f"p{port}", frame, max(flows, 128))
        self.settle()
        return checked(self.harness.send(f"p{port}", frame, count), count).cost

    def each_new(self, frame: bytes, port: int, vary: Vary, count: int = COUNT) -> float:
        """The cost of a frame whose flow was not seen before."""
        self.harness.set_feed(count, "p2", vary)
        return checked(self.harness.send(f"p{port}", frame, count), count).cost


def checked(met: Meter, count: int) -> Meter:
    """Every frame must have come out."""
    if met.packets != count:
        raise RuntimeError(f"{count} frames went in, {met.packets} came out")
    return met


def one_flow(bench: Bench) -> None:
    """Row 1: L2 unicast, one flow."""
    a, b = bench.ends
    frame = frames.udp(a, b)
    alone, both = [(a.port, frame)], [(b.port, frames.udp(b, a)), (a.port, frame)]
    contenders: dict[str, tuple[Peer, Frames]] = {
        "harness": (peers.nothing, alone),
        "redirect": (peers.redirect(bench.harness), alone),
        "bridge": (peers.bridge, both),
        "ovs": (peers.openvswitch_plain((a, b)), both),
        "vnet": (peers.vnet(bench.orders["plain"]), both),
    }
    bench.compare(1, contenders, frame)


def established(bench: Bench) -> None:
    """Row 2: a segment of an established connection under a stateful policy."""
    a, b = bench.ends
    opening = frames.handshake(a, b, PORTS)
    contenders: dict[str, tuple[Peer, Frames]] = {
        "harness": (peers.nothing, opening[:1]),
        "bridge": (peers.bridge, opening),
        "nft": (peers.nft(peers.STATEFUL), opening),
        "ovs": (peers.openvswitch_stateful(a, b), opening),
        "vnet": (peers.vnet(bench.orders["stateful"]), opening),
    }
    bench.compare(2, contenders, frames.data(a, b, PORTS))


def many_rules(bench: Bench) -> None:
    """Row 3: the same with more and more rules for the receiver; peers search theirs one by one."""
    a, b = bench.ends
    opening = frames.handshake(a, b, PORTS)
    frame = frames.data(a, b, PORTS)
    bench.compare(3, {"harness": (peers.nothing, opening[:1])}, frame, "0")
    for count in (10, 100):
        bench.compare(3, {"nft linear": (peers.linear(count), opening)}, frame, str(count))
    for count, flows in bench.orders["rules"].items():
        bench.compare(3, {"vnet": (peers.vnet(flows), opening)}, frame, str(count))


def first_packets(bench: Bench) -> None:
    """Row 4: packets to ports that nobody asked for before, all allowed, through the same flows."""
    a, b = bench.ends
    frame = frames.udp(a, b)
    harness = bench.cost(peers.nothing, frame, [(a.port, frame)])
    bench.say(row=4, case=SEEN_FIRST, peer="harness", value=harness)
    bench.settle()
    with ports(2) as names, peers.openvswitch_daemon(bench.orders["open text"])(names):
        bench.say(row=4, case=SEEN_FIRST, peer="ovs", value=_upcalls(bench, frame))
    bench.settle()
    with ports(2) as names, peers.vnet(bench.orders["open"])(names):
        value = bench.each_new(frame, a.port, Vary.TARGET)
        bench.say(row=4, case=SEEN_FIRST, peer="vnet", value=value)


def _upcalls(bench: Bench, frame: bytes, burst: int = 64) -> float:
    """What a packet costs that goes up to a daemon, from the first that is sent to the last that is through.

    In bursts: a daemon that is asked for many at once answers them together, which is its best.
    """
    bench.settle()
    bench.harness.set_feed(burst * 8, None, Vary.TARGET)
    costs = []
    for _ in range(8):
        begun = time.monotonic_ns()
        bench.harness.send("p1", frame, burst)
        bench.settle()
        costs.append((checked(bench.harness.meter(), burst).last_ns - begun) / burst)
    return median(costs[1:])


def new_connections(bench: Bench) -> None:
    """Row 6: a TCP connection is opened: SYN, SYN and ACK, ACK, each of thousands of connections."""
    a, b = bench.ends
    opening = frames.handshake(a, b, PORTS)
    contenders: dict[str, Peer] = {
        "nft": peers.nft(peers.STATEFUL),
        "ovs": peers.openvswitch_stateful(a, b),
        "vnet": peers.vnet(bench.orders["stateful"]),
    }
    harness = 3 * bench.cost(peers.nothing, opening[0][1], opening[:1])
    bench.say(row=6, case="open", peer="harness", value=harness)
    for name, peer in contenders.items():
        bench.settle()
        with ports(2) as names, peer(names):
            ways = (Vary.SOURCE, Vary.TARGET, Vary.SOURCE)
            steps = [
                bench.each_new(frame, port, vary) for (port, frame), vary in zip(opening, ways, strict=True)
            ]
            bench.say(row=6, case="open", peer=name, value=sum(steps))


def many_ports(bench: Bench) -> None:
    """Row 17: unicast with more and more ports, and a flood to all of them."""
    a, b = bench.ends
    frame, stray = frames.udp(a, b), frames.udp(a, replace(b, mac=b.mac ^ 0xFF))
    both = [(b.port, frames.udp(b, a)), (a.port, frame)]
    flood = Flow(0, 1, match(), Instructions((Output(Port.FLOOD),)))
    for count in PORTS_OF_ROW_17:
        for name, peer in (("bridge", peers.bridge), ("vnet", peers.vnet((*bench.orders["plain"], flood)))):
            bench.settle()
            with ports(count) as names, peer(names):
                bench.begin(both)
                bench.say(row=17, case=f"unicast {count}", peer=name, value=bench.steady(frame, a.port))
                time.sleep(count / LINKS_A_SECOND)
                met = _flooded(bench, stray, count)
                bench.say(row=17, case=f"copy of {count}", peer=name, value=met.cost)


def _flooded(bench: Bench, frame: bytes, devices: int) -> Meter:
    """The copies of frames that go to all ports but the first; the last of them come after the call."""
    sent = max(64, COUNT // devices)
    for frames_sent in (16, sent):
        bench.harness.send("p1", frame, frames_sent, batch=FLOOD_BATCH)
        bench.settle()
    return checked(bench.harness.meter(), sent * (devices - 1))


def captured(bench: Bench) -> None:
    """Row 18: what the others pay while the traffic of a third port is captured."""
    a, b = bench.ends
    frame = frames.udp(a, b)
    both = [(b.port, frames.udp(b, a)), (a.port, frame)]
    bench.compare(18, {"harness": (peers.nothing, both[1:])}, frame)
    for case, watched in (("off", ()), ("on", (3,))):
        value = bench.cost(peers.vnet(bench.orders["plain"], watched), frame, both, 3)
        bench.say(row=18, case=case, peer="vnet", value=value)


ROWS: dict[int, Callable[[Bench], None]] = {
    4: first_packets,
    1: one_flow,
    2: established,
    3: many_rules,
    6: new_connections,
    17: many_ports,
    18: captured,
}
