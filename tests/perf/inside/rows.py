"""The rows that are counted in instructions."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.perf.inside import frames, peers
from tests.perf.inside.frames import End
from tests.perf.inside.harness import Harness, Meter
from tests.perf.inside.peers import Peer
from tests.perf.inside.ports import ports

COUNT = 6400
SETTLE_S = 2.0
"""For what the kernel does later, such as freeing the maps of the switch before. A guest that sleeps under
icount lets its clock jump: this takes no time."""


@dataclass(frozen=True, slots=True)
class Bench:
    """The harness, what the host prepared, and where figures go."""

    harness: Harness
    orders: dict[str, Any]
    say: Callable[..., None]


def measure(
    bench: Bench, peer: Peer, frame: bytes, before: list[tuple[int, bytes]], devices: int = 2, flows: int = 1,
    count: int = COUNT,
) -> float:  # fmt: skip
    """Nanoseconds a packet, everything included, after the frames `before` (port, frame) went through."""
    harness = bench.harness
    time.sleep(SETTLE_S)
    with ports(devices) as names, peer(names):
        for port, first in before:
            met = harness.send(f"p{port}", first, 1)
            if not met.packets:
                raise RuntimeError(f"a frame into p{port} did not come out: {first.hex()}")
        harness.send(f"p{before[-1][0]}", frame, 128)  # warm
        time.sleep(SETTLE_S)
        met = checked(harness.send(f"p{before[-1][0]}", frame, count), count)
    return met.cost


def checked(met: Meter, count: int) -> Meter:
    """Every frame must have come out."""
    if met.packets != count:
        raise RuntimeError(f"{count} frames went in, {met.packets} came out")
    return met


def one_flow(bench: Bench) -> None:
    """Row 1: L2 unicast, one flow."""
    a, b = bench.orders["ends"]
    frame, back = frames.udp(a, b), frames.udp(b, a)
    before = [(b.port, back), (a.port, frame)]
    alone = [(a.port, frame)]
    flows = bench.orders["plain"]
    contenders: dict[str, tuple[Peer, list[tuple[int, bytes]]]] = {
        "harness": (peers.nothing, alone),
        "redirect": (peers.redirect(bench.harness), alone),
        "bridge": (peers.bridge, before),
        "ovs": (peers.openvswitch_plain((a, b)), before),
        "vnet": (peers.vnet(flows), before),
    }
    for name, (peer, first) in contenders.items():
        bench.say(row=1, case="", peer=name, value=measure(bench, peer, frame, first))


def established(bench: Bench) -> None:
    """Row 2: a segment of an established connection under a stateful policy."""
    a, b = bench.orders["ends"]
    pair = (40000, 80)
    frame, opening = frames.data(a, b, pair), frames.handshake(a, b, pair)
    contenders: dict[str, tuple[Peer, list[tuple[int, bytes]]]] = {
        "harness": (peers.nothing, opening[:1]),
        "bridge": (peers.bridge, opening),
        "nft": (peers.nft(peers.STATEFUL), opening),
        "ovs": (peers.openvswitch_stateful(a, b), opening),
        "vnet": (peers.vnet(bench.orders["stateful"]), opening),
    }
    for name, (peer, first) in contenders.items():
        bench.say(row=2, case="", peer=name, value=measure(bench, peer, frame, first))


ROWS: dict[int, Callable[[Bench], None]] = {1: one_flow, 2: established}
