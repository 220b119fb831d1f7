"""The loaded program decides as the slow interpreter: generated overlapping rules, packets, dialogues.

`VNET_TWIN_SEED` repeats a failure, `VNET_TWIN_SECONDS` looks longer. Together with the test of
the interpreter against Open vSwitch this is law 4: Python twin = eBPF = Open vSwitch.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter

from tests.bpf.bench import Bench, Decision
from tests.net.twin_generator import Dialogue, packets, rules
from vnet.base.drop import DropReason
from vnet.openflow import ofctl
from vnet.openflow.fields import ETH_IPV4, ETH_IPV6, CtState
from vnet.openflow.flow import Conntrack, Flow, Instructions, Output, SetField, match
from vnet.openflow.table import Outcome, PortState, SlowSwitch
from vnet.switch.datapath import Refused
from vnet.switch.lower import lower

SEED = int(os.environ.get("VNET_TWIN_SEED", "20"))
SECONDS = float(os.environ.get("VNET_TWIN_SECONDS", "0"))
LEAST_ROUNDS, LEAST_DIALOGUES = 60, 60
PORTS = {number: PortState() for number in (1, 2, 3, 4)}


def carried_out(flow: Flow) -> bool:
    """Whether this dataplane takes the flow; what it refuses is refused loudly, so it is left out here."""
    try:
        lower(flow)
    except Refused:
        return False
    return True


def tag(frame: bytes) -> int | None:
    return (
        int.from_bytes(frame[14:16], "big") & 0xEFFF if frame[12:14] in (b"\x81\x00", b"\x88\xa8") else None
    )


def too_short_to_run(frame: bytes) -> bool:
    """BPF_PROG_TEST_RUN itself refuses a packet without a whole IP header (net/bpf/test_run.c, 6.18)."""
    return len(frame) < {b"\x08\x00": 34, b"\x86\xdd": 54}.get(frame[12:14], 15)


def same(ours: Decision, twin: Outcome) -> bool:
    """Ports and tags, by port: the order between ports cannot be observed. And the reason for a drop."""
    outputs = sorted((port, tag(frame) or -1) for port, frame in twin.outputs)
    return sorted((port, vlan or -1) for port, vlan in ours.outputs) == outputs and ours.drop == twin.drop


def by_design(ours: Decision, twin: Outcome) -> bool:
    """A second tag is refused by this dataplane; the twin pushes and pops it."""
    return ours.drop is DropReason.UNSUPPORTED and any(step.fields.get("vlan_vid") for step in twin.trail)


def test_program_decides_as_the_interpreter() -> None:
    deadline, seen = time.monotonic() + SECONDS / 2, Counter[str]()
    with Bench(ports=4) as bench:
        for round_ in range(100_000):
            if time.monotonic() > deadline and round_ >= LEAST_ROUNDS:
                break
            dice = random.Random(f"{SEED}-{round_}")
            flows = tuple(flow for flow in rules(dice) if carried_out(flow))
            bench.load(flows)
            bench.forget_connections()
            slow = SlowSwitch(flows, PORTS)
            for port, frame in packets(dice, count=60):
                if too_short_to_run(frame):
                    continue
                ours, twin = bench.decide(port, frame), slow.receive(port, frame, 0.0)
                seen["passed" if ours.outputs else str(ours.drop)] += 1
                seen[f"{len(ours.rules)} rules"] += 1
                if same(ours, twin) or by_design(ours, twin):
                    continue
                raise AssertionError(story(f"{SEED}-{round_}", flows, port, frame, ours, twin))
    print(dict(seen), "rounds", round_)
    assert seen["passed"] > 500
    assert seen["3 rules"] > 100


def story(seed: str, flows: tuple[Flow, ...], port: int, frame: bytes, ours: Decision, twin: Outcome) -> str:
    """Everything needed to understand one difference."""
    lines = [f"seed {seed}, port {port}, frame {frame.hex()}", *(ofctl.text(flow) for flow in flows)]
    lines += [f"eBPF: {ours}", f"twin: {[(p, tag(f)) for p, f in twin.outputs]} {twin.drop} {twin.detail}"]
    lines += [f"  table {step.table}: {step.flow and ofctl.text(step.flow)}" for step in twin.trail]
    return "\n".join(lines)


STATES = (*range(0x20, 0x30), 0x30)


def observing_flows() -> tuple[Flow, ...]:
    """Track all IP in zone 7, commit what is new; the output port tells the ct_state class."""
    flows = []
    for family in (ETH_IPV4, ETH_IPV6):
        flows.append(Flow(0, 1, match(eth_type=family), Instructions(apply=(Conntrack(zone=7, table=1),))))
        for state in STATES:
            commit = (Conntrack(zone=7, commit=True),) if state & CtState.NEW else ()
            show = (SetField("reg0", state), Output(3))
            wanted = match(eth_type=family, ct_state=(state, 0x3F))
            flows.append(Flow(1, 10, wanted, Instructions(apply=commit + show)))
    return tuple(flows)


def twin_state(outcome: Outcome) -> int:
    """The ct_state the interpreter's last lookup saw."""
    return outcome.trail[-1].fields["ct_state"] if outcome.trail else 0


def test_connections_have_the_interpreters_state() -> None:
    """Dialogues of TCP, UDP, echo and ICMP errors; timeouts are compared by the interpreter's own tests."""
    deadline, seen = time.monotonic() + SECONDS / 2, Counter[str]()
    with Bench(ports=4) as bench:
        bench.load(observing_flows())
        for round_ in range(100_000):
            if time.monotonic() > deadline and round_ >= LEAST_DIALOGUES:
                break
            dice = random.Random(f"{SEED}-dialogue-{round_}")
            slow, dialogue = SlowSwitch(observing_flows(), PORTS), Dialogue(dice)
            bench.forget_connections()
            said = []
            for _ in range(60):
                port, frame, what = dialogue.next()
                ours, twin = bench.decide(port, frame), slow.receive(port, frame, 0.0)
                said.append(f"port {port} {what}: {ours.ct_state:#x}")
                seen[hex(ours.ct_state)] += 1
                expected = twin_state(twin)
                assert ours.ct_state == expected, "\n".join(
                    [*said, f"the twin says {expected:#x}", frame.hex()]
                )
    print(dict(seen))
    for state in (0x21, 0x22, 0x2A, 0x2C, 0x24, 0x30):
        assert seen[hex(state)] > 20, f"{state:#x} was hardly tried: {seen}"
