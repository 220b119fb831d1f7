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
from tests.exams.differential.switches import agrees, too_short_to_run
from tests.net.twin_generator import Dialogue, Program, packets, programs
from tests.net.twin_outcomes import outcomes
from vnet.openflow import ofctl
from vnet.openflow.fields import ETH_IPV4, ETH_IPV6, CtState
from vnet.openflow.flow import Conntrack, Flow, Instructions, Output, SetField, match
from vnet.openflow.table import Outcome, PortState, SlowSwitch

SEED = int(os.environ.get("VNET_TWIN_SEED", "20"))
SECONDS = float(os.environ.get("VNET_TWIN_SECONDS", "0"))
LEAST_ROUNDS, LEAST_DIALOGUES = 60, 60
PORTS = {number: PortState() for number in (1, 2, 3, 4)}


def test_program_decides_as_the_interpreter() -> None:
    deadline, seen = time.monotonic() + SECONDS / 2, Counter[str]()
    with Bench(ports=4) as bench:
        for round_ in range(100_000):
            if time.monotonic() > deadline and round_ >= LEAST_ROUNDS:
                break
            dice = random.Random(f"{SEED}-{round_}")
            program = programs(dice, reshapes=bool(round_ % 2))
            bench.load(program.flows, program.groups)
            bench.forget_connections()
            slow = SlowSwitch(program.flows, PORTS, groups=program.groups)
            for port, frame in packets(dice, count=60):
                if too_short_to_run(frame):
                    continue
                ours, possible = bench.decide(port, frame), tuple(outcomes(slow, port, frame))
                twin = next((outcome for outcome in possible if agrees(ours, outcome)), possible[0])
                seen["passed" if ours.frames else str(ours.drop)] += 1
                seen[f"{min(len(ours.rules), 9)} rules"] += 1
                if not agrees(ours, twin):
                    raise AssertionError(story(f"{SEED}-{round_}", program, port, frame, ours, twin))
    print(dict(seen), "rounds", round_)
    assert seen["passed"] > 500
    assert seen["3 rules"] > 100


def story(seed: str, program: Program, port: int, frame: bytes, ours: Decision, twin: Outcome) -> str:
    """Everything needed to understand one difference."""
    lines = [f"seed {seed}, port {port}, frame {frame.hex()}", *map(ofctl.group_text, program.groups)]
    lines += [
        f"eBPF {ours.drop!r} table {ours.table}",
        *(f"  {out}: {data.hex()}" for out, data in ours.frames),
    ]
    lines += [f"  controller {event.reason_code}: {event.data.hex()}" for event in ours.to_controller]
    lines += [f"twin {twin.drop!r} {twin.detail}", *(f"  {out}: {data.hex()}" for out, data in twin.outputs)]
    lines += [f"  controller {sent.reason}: {sent.frame.hex()}" for sent in twin.to_controller]
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
