"""The rows that take time: paired, interleaved, median of the rounds with least and most."""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from tests.perf.inside import frames, labs, peers, taps
from tests.perf.inside.harness import PINS, Vary, sh
from tests.perf.inside.labs import Joined, Lab
from tests.perf.inside.peers import Peer
from tests.perf.inside.ports import at_ingress, ports
from tests.perf.inside.rows import Bench, Frames
from vnet.switch.datapath import Change
from vnet.switch.live.datapath import EbpfDatapath
from vnet.switch.live.maps import object_path
from vnet.switch.live.netns import inside

ROUNDS = 9
RR = Path(__file__).parents[1] / "rr"
ATTACK_PPS = 50_000
BURST = 500
FLOWS = (1, 1000, 30_000, 100_000, 1_000_000)


def rounds(bench: Bench, row: int, case: str, take: Mapping[str, Callable[[], float]]) -> None:
    """Contenders take turns: the median of each, and of each round's ratio to the first contender."""
    taken: dict[str, list[float]] = {name: [] for name in take}
    for number in range(ROUNDS):
        bench.say(working_on=row, round=number + 1)
        for name, measure in take.items():
            taken[name].append(measure())
    first, base = next(iter(taken.items()))
    for name, values in taken.items():
        spread(bench, row, case, name, values)
    for name, values in list(taken.items())[1:]:
        ratios = [value / other for value, other in zip(values, base, strict=True)]
        spread(bench, row, f"{case} / {first}".strip(), name, ratios)


def spread(bench: Bench, row: int, case: str, peer: str, values: list[float]) -> None:
    bench.say(
        row=row, case=case, peer=peer, value=statistics.median(values), low=min(values), high=max(values)
    )


# -- live frames: nanoseconds of the switch ----------------------------------------------------------


def first_packet(bench: Bench) -> None:
    """Row 4: SYNs of connections that were never seen, through the whole pipeline."""
    a, b = bench.ends
    syn = frames.handshake(a, b, (40000, 80))[0][1]

    def of(peer: Peer) -> float:
        with ports(2) as names, peer(names):
            return bench.each_new(syn, a.port, Vary.SOURCE, 8000)

    def switch_only() -> float:
        return of(peers.vnet(bench.orders["stateful"])) - of(peers.nothing)

    rounds(bench, 4, "ns", {"vnet": switch_only})


def many_flows(bench: Bench) -> None:
    """Row 5: flows in turn, as many and more than the cache has room for; the key holds their ports."""
    a, b = bench.ends
    frame = frames.udp(a, b)
    both = [(b.port, frames.udp(b, a)), (a.port, frame)]
    contenders: dict[str, tuple[Peer, Frames]] = {
        "harness": (peers.nothing, both[1:]),
        "bridge": (peers.bridge, both),
        "vnet": (peers.vnet(bench.orders["layer 4"]), both),
    }
    taken: dict[tuple[str, int], list[float]] = {}
    for number in range(ROUNDS):
        bench.say(working_on=5, round=number + 1)
        for name, (peer, before) in contenders.items():
            with ports(2) as names, peer(names):
                bench.begin(before)
                for flows in FLOWS:
                    value = bench.steady(frame, a.port, flows, 200_000)
                    taken.setdefault((name, flows), []).append(value)
    for (name, flows), values in taken.items():
        if name != "harness":
            base = taken["harness", flows]
            net = [value - other for value, other in zip(values, base, strict=True)]
            spread(bench, 5, f"{flows} flows, ns", name, net)


def connection_bytes(bench: Bench) -> None:
    """Row 6: memory that the connection tables hold, for each connection that they have room for."""
    with ports(2) as names, peers.vnet(bench.orders["stateful"])(names):
        found = [path for path in (PINS / "switch").iterdir() if "conn" in path.name]
        shown = [json.loads(sh(f"bpftool -j map show pinned {path}")) for path in found]
    room = {each["name"]: each["max_entries"] for each in shown}
    if "conns" in room:
        held = sum(each["bytes_memlock"] for each in shown)
        bench.say(row=6, case="bytes each", peer="vnet", value=held / room["conns"])


# -- real TCP ----------------------------------------------------------------------------------------


def bulk(bench: Bench) -> None:
    """Row 15: one TCP stream with segmentation offload, Gb/s."""
    with ExitStack() as stack:
        made = _labs(bench, stack, {"direct": labs.direct, "bridge": labs.bridge, "vnet": _stateful(bench)})
        rounds(bench, 15, "Gb/s", {name: lambda lab=lab: _iperf(lab) for name, lab in made.items()})  # type: ignore[misc]
        case = "Gb/s / bridge"
        _against(bench, 15, case, made["bridge"], made["vnet"])
    tap_to_tap(bench)


def _against(bench: Bench, row: int, case: str, peer: Lab, own: Lab) -> None:
    pairs = [(_iperf(peer), _iperf(own)) for _ in range(ROUNDS)]
    spread(bench, row, case, "vnet", [value / base for base, value in pairs])


def tap_to_tap(bench: Bench) -> None:
    """Row 15: super-frames of 64 KB from TAP to TAP, as two VMs with virtio would send them."""
    a, b = bench.ends
    there, back = taps.super_frame(a, b), taps.super_frame(b, a)
    with ExitStack() as stack:
        pairs = {}
        for name, peer in (("bridge", peers.bridge), ("vnet", peers.vnet(bench.orders["plain"]))):
            names = [f"t{name[0]}{end}" for end in (1, 2)]
            pairs[name] = stack.enter_context(taps.taps(names))
            stack.enter_context(peer(names))
            taps.rate(pairs[name][::-1], back, 0.05)  # a bridge has to learn where b is
        rounds(bench, 15, "TAP Gb/s", {name: partial(taps.rate, pair, there) for name, pair in pairs.items()})


def latency(bench: Bench) -> None:
    """Row 16: a byte there and a byte back, microseconds."""
    with ExitStack() as stack:
        kinds = {
            "direct": labs.direct,
            "bridge": labs.bridge,
            "vnet": _stateful(bench),
            "ovs userspace": labs.ovs_userspace,
        }
        made = _labs(bench, stack, kinds)
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in made}
        for number in range(ROUNDS):
            bench.say(working_on=16, round=number + 1)
            for name, lab in made.items():
                taken[name].append(_request_response(lab))
        for place, case in ((0, "P50 us"), (1, "P99 us")):
            for name, values in taken.items():
                spread(bench, 16, case, name, [value[place] for value in values])
            for base in ("direct", "bridge"):
                ratios = [v[place] / o[place] for v, o in zip(taken["vnet"], taken[base], strict=True)]
                spread(bench, 16, f"{case} / {base}", "vnet", ratios)


def _labs(bench: Bench, stack: ExitStack, kinds: Mapping[str, Joined]) -> dict[str, Lab]:
    short = {name: f"{number}" for number, name in enumerate(kinds)}
    return {
        name: stack.enter_context(labs.lab(short[name], kind, bench.ends)) for name, kind in kinds.items()
    }


def _stateful(bench: Bench) -> Joined:
    return labs.vnet(bench.orders["stateful"])


def _iperf(lab: Lab) -> float:
    """Gb/s from the first end to the second, to the port that the policy opens."""
    with _server(lab, "iperf3 --forceflush -s -1 -p 80", "Server listening"):
        command = f"iperf3 -c {lab.address(2)} -p 80 -t 1 -J"
        said = json.loads(_in(lab.space(1), command))
    if "sum_received" not in said["end"]:
        raise RuntimeError(f"{lab.name}: {command}: {said.get('error', said['end'])}")
    return float(said["end"]["sum_received"]["bits_per_second"]) / 1e9


def _request_response(lab: Lab, count: int = 3000) -> tuple[float, float]:
    with _server(lab, f"{RR} serve 80", "ready"):
        half, most = _in(lab.space(1), f"{RR} ask {lab.address(2)} 80 {count}").split()
    return int(half) / 1000, int(most) / 1000


@contextmanager
def _server(lab: Lab, command: str, ready: str) -> Iterator[None]:
    line = f"ip netns exec {lab.space(2)} {command}".split()
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    watch = threading.Timer(30, process.kill)
    watch.start()
    try:
        assert process.stdout is not None
        for said in process.stdout:
            if ready in said:
                break
        yield
    finally:
        watch.cancel()
        process.kill()
        process.wait()


def _in(space: str, command: str) -> str:
    done = subprocess.run(
        f"ip netns exec {space} {command}".split(), capture_output=True, text=True, timeout=60
    )
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stdout[-300:]}{done.stderr}")
    return done.stdout


# -- an attack beside ---------------------------------------------------------------------------------


def attack(bench: Bench) -> None:
    """Row 7: what a stream of the others keeps of its speed with the same flood dropped where it comes in."""
    victim, third = bench.ends[1], bench.orders["third"]
    syn = frames.handshake(third, victim, (40000, 80))[0][1]
    cases = {
        "SYN flood": (syn, Vary.SOURCE),
        "scan": (syn, Vary.TARGET),
        "rule-shaped": (frames.udp(third, victim), Vary.BOTH),
    }
    with labs.lab("a", labs.vnet(bench.orders["stateful"]), (*bench.ends, third)) as lab:
        with inside(lab.name):
            _prepare_flood()
        for case, (frame, vary) in cases.items():
            kept = []
            for number in range(ROUNDS):
                bench.say(working_on=7, round=number + 1)
                with _flood(bench, lab, "x3", frame, vary):
                    base = _iperf(lab)
                with _flood(bench, lab, "p3", frame, vary):
                    kept.append(_iperf(lab) / base)
            spread(bench, 7, case, "vnet", kept)


def _prepare_flood() -> None:
    """Let p3 be fed, and make x3, where the same frames are dropped where they come in."""
    sh("ip link add x3 type veth peer name y3")
    sh(f"ip link set x3 xdp pinned {PINS}/feed")
    sh("ip link set y3 up")
    sh("ip link set x3 up")
    at_ingress("x3", "sink")
    sh(f"ip link set p3 xdp pinned {PINS}/feed")


@contextmanager
def _flood(bench: Bench, lab: Lab, device: str, frame: bytes, vary: Vary) -> Iterator[None]:
    """Frames into a device at a bounded rate, from a thread of this process."""
    stop = threading.Event()

    def run() -> None:
        with inside(lab.name):
            bench.harness.set_feed(60_000, None, vary)
            while not stop.is_set():
                begun = time.monotonic()
                bench.harness.send(device, frame, BURST)
                stop.wait(max(0.0, BURST / ATTACK_PPS - (time.monotonic() - begun)))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)


# -- changes under traffic ------------------------------------------------------------------------------


def revoke(bench: Bench) -> None:
    """Row 8: packets that leave by a port after the commit that forbids them has returned."""
    a, b = bench.ends
    flows = bench.orders["plain"]
    late = []
    held: list[EbpfDatapath] = []
    with labs.lab("r", labs.vnet(flows, held.append), bench.ends) as lab:
        with inside(lab.name):
            sh(f"ip link set p{a.port} xdp pinned {PINS}/feed")
        datapath, gone = held[0], tuple(flow.key for flow in flows)
        for _ in range(20):
            with _flood(bench, lab, f"p{a.port}", frames.udp(a, b), Vary.BOTH):
                _until(partial(_has_sent, datapath, b.port, _sent(datapath, b.port) + BURST))
                datapath.commit(Change(remove=gone))
                sent = _sent(datapath, b.port)
                time.sleep(0.05)
                late.append(float(_sent(datapath, b.port) - sent))
            datapath.commit(Change(put=flows))
    bench.say(row=8, case="of 20 revocations", peer="vnet", value=sum(late), low=min(late), high=max(late))


def _sent(datapath: EbpfDatapath, port: int) -> int:
    return datapath.port_counters()[port].tx.packets


def _has_sent(datapath: EbpfDatapath, port: int, packets: int) -> bool:
    return _sent(datapath, port) > packets


def _until(condition: Callable[[], bool], deadline_s: float = 10.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError("nothing passes")
        time.sleep(0.005)


DAEMON = """
import pickle, sys, time
from pathlib import Path
from vnet.switch.datapath import Change
from vnet.switch.live.datapath import EbpfDatapath
name, pins, orders = sys.argv[1:]
datapath = EbpfDatapath.open("perf", name, Path(pins))
for number in (1, 2):
    datapath.attach(number, f"p{number}")
datapath.commit(Change(put=tuple(pickle.loads(Path(orders).read_bytes())["everything"])))
print("ready", flush=True)
time.sleep(60)
"""
"""What holds a switch and can be killed; each puts the flows in again, as an impatient controller would."""


def survive(bench: Bench) -> None:
    """Row 11: pings, a thousand a second, while who holds the switch is killed, started, and exchanged."""
    with tempfile.TemporaryDirectory() as folder, labs.lab("s", _nobody, bench.ends) as lab:
        other = Path(folder) / "switch.bpf.o"
        shutil.copy(object_path(), other)
        with other.open("ab") as file:
            file.write(b"\0")  # another build, as far as its digest tells
        try:
            for case, built in (("killed and started again", object_path()), ("program exchanged", other)):
                bench.say(row=11, case=case, peer="vnet", value=float(_lost(lab, built)))
        finally:
            EbpfDatapath.open("perf", lab.name, labs.pins(lab)).destroy()


@contextmanager
def _nobody(_lab: Lab) -> Iterator[None]:
    yield


def _lost(lab: Lab, built: Path) -> int:
    """Pings lost while the daemon is killed twice and started again, at last with the object `built`."""
    process = _daemon(lab, object_path())
    command = f"ip netns exec {lab.space(1)} ping -q -i 0.001 -c 4000 {lab.address(2)}".split()
    pinging = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        for which in (object_path(), built):
            time.sleep(0.4)
            process.kill()
            process.wait()
            process = _daemon(lab, which)
        said, _ = pinging.communicate(timeout=60)
    finally:
        pinging.kill()
        process.kill()
        process.wait()
    sent, received = map(int, re.findall(r"(\d+) packets transmitted, (\d+) received", said)[0])
    return sent - received


def _daemon(lab: Lab, built: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DAEMON, lab.name, str(labs.pins(lab)), "orders.pickle"]
    environment = {**os.environ, "VNET_BPF_OBJECT": str(built)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    if process.stdout.readline().strip() != "ready":
        raise RuntimeError("the daemon did not start")
    return process


ROWS: dict[int, Callable[[Bench], None]] = {
    4: first_packet,
    5: many_flows,
    6: connection_bytes,
    7: attack,
    8: revoke,
    11: survive,
    15: bulk,
    16: latency,
}
