"""What a trace says a packet would meet is what the packet then meets; and nothing is changed by asking."""

from __future__ import annotations

import ctypes
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.bpf.bench import Bench, Decision
from tests.bpf.test_abi import dump, members
from tests.bpf.test_datapath import FRAME, MAC2, to
from tests.bpf.test_twin import PORTS, observing_flows
from tests.exams.differential.switches import too_short_to_run
from tests.net.twin_generator import Dialogue, packets, programs
from tests.net.twin_outcomes import outcomes
from vnet.base.drop import DropReason
from vnet.base.errors import HostError, InputError
from vnet.openflow import ofctl
from vnet.openflow.flow import Conntrack, Flow, Instructions, Output, Port, match
from vnet.openflow.group import Band, BandType, Meter, MeterFlag
from vnet.openflow.table import SlowSwitch
from vnet.switch import abi, trace
from vnet.switch.abi import CtFlag
from vnet.switch.live import bpf
from vnet.switch.live.sandbox import COPIED, COUNTED, READ, trace_object
from vnet.switch.trace import StepKind, Traced

SEED = "trace"
ROUNDS, DIALOGUES = 25, 12


def met(bench: Bench) -> tuple[Flow, ...]:
    """The flows among the rules that the last packet met, which may also be buckets of groups."""
    flows = {placed.rule: placed.flow for placed in bench.datapath._image.placed.values()}
    raw = bench.datapath._map["scratch"].index(0) or b""
    own = raw[len(raw) // bpf.possible_cpus() * min(bench._cpus) :]
    rules = abi.ScratchHead.from_buffer_copy(own).met
    return tuple(flows[rule] for rule in rules.rules[: rules.n_rules] if rule in flows)


def agrees(bench: Bench, traced: Traced, real: Decision) -> bool:
    really = met(bench)
    return (
        traced.outputs == real.frames
        and (traced.reason or None) == real.drop
        and traced.flows[: len(really)] == really
        and (len(really) >= abi.PATH_RULES - 2 or len(traced.flows) == len(really))
    )


def story(traced: Traced, real: Decision, seed: object, port: int, frame: bytes) -> str:
    lines = [f"seed {seed}, port {port}, frame {frame.hex()}", f"trace {traced.reason!r} real {real.drop!r}"]
    lines += [f"  trace {out}: {data.hex()}" for out, data in traced.outputs]
    lines += [f"  real  {out}: {data.hex()}" for out, data in real.frames]
    lines += [f"  {step.kind.name} {step.arg} {step.flow and ofctl.text(step.flow)}" for step in traced.steps]
    return "\n".join(lines)


def test_generated_packets_meet_what_the_trace_said_under_generated_rules() -> None:
    seen = Counter[str]()
    with Bench(ports=4) as bench:
        for round_ in range(ROUNDS):
            dice = random.Random(f"{SEED}-{round_}")
            program = programs(dice, reshapes=bool(round_ % 2))
            bench.load(program.flows, program.groups)
            bench.forget_connections()
            slow = SlowSwitch(program.flows, PORTS, groups=program.groups)
            with bench.datapath.sandbox() as sandbox:
                for port, frame in packets(dice, count=50):
                    if too_short_to_run(frame):
                        continue
                    sandbox.refresh()
                    traced, real = sandbox.run(port, frame), bench.decide(port, frame)
                    seen["passed" if real.frames else str(real.drop)] += 1
                    seen[f"{min(len(traced.tables), 9)} tables"] += 1
                    assert agrees(bench, traced, real), story(traced, real, round_, port, frame)
                    verdicts = {bool(outcome.drop) for outcome in outcomes(slow, port, frame)}
                    assert bool(traced.reason) in verdicts, story(traced, real, round_, port, frame)
    assert seen["passed"] > 200 and seen["3 tables"] > 50, seen


def test_packets_of_connections_meet_what_the_trace_said() -> None:
    """TCP, UDP, echo and ICMP errors about them, in the middle of what they say to each other."""
    states = Counter[int]()
    with Bench(ports=4) as bench:
        bench.load(observing_flows())
        with bench.datapath.sandbox() as sandbox:
            for round_ in range(DIALOGUES):
                bench.forget_connections()
                dialogue = Dialogue(random.Random(f"{SEED}-dialogue-{round_}"))
                for _ in range(50):
                    port, frame, what = dialogue.next()
                    sandbox.refresh()
                    traced, real = sandbox.run(port, frame), bench.decide(port, frame)
                    assert agrees(bench, traced, real), what + "\n" + story(traced, real, round_, port, frame)
                    told = traced.tables[-1].fields.get("ct_state", 0) if traced.tables else 0
                    assert told == real.ct_state, what
                    states[told] += 1
    assert {0x21, 0x22, 0x2A, 0x24, 0x30} <= {state for state, count in states.items() if count > 5}, states


# -- nothing is changed ---------------------------------------------------------------------------------


def everything(bench: Bench) -> dict[str, Any]:
    """Every map of the switch with all that is in it; what cannot be looked into by its events."""
    found: dict[str, Any] = {}
    for name, opened in bench.datapath._pinned.map.items():
        if name in ("free_conns", "free_paths", "events", "scratch"):
            continue
        if opened.key_size == 4 and opened.max_entries > 100_000:
            found[name] = opened.first(4096)
        else:
            found[name] = opened.dump()
    return found


MANY = (
    to(2, 5, eth_dst=MAC2),
    Flow(0, 20, match(eth_type=0x0800), Instructions((Conntrack(commit=True, zone=3, table=1),))),
    Flow(0, 10, match(in_port=3), Instructions((Output(Port.NORMAL),))),
    Flow(0, 11, match(in_port=4), Instructions((Output(2), Output(Port.CONTROLLER)), meter=1)),
    Flow(1, 1, match(), Instructions((Output(2),))),
)
METER = Meter(1, MeterFlag.PKTPS, (Band(BandType.DROP, 1, 1),))
UDP = bytes.fromhex(
    "02000000000202000000000108004500002000004000401166cb0a0000010a0000020fa0003500180000"
) + bytes(20)
FRAGMENT = bytes.fromhex(
    "02000000000202000000000108004500002000012000401186ca0a0000010a0000020fa0003500180000"
) + bytes(20)


def test_asking_changes_no_map_and_tells_nobody() -> None:
    with Bench(ports=4) as bench:
        bench.load(MANY, meters=[METER])
        bench.decide(1, UDP)
        bench.decide(3, FRAME)
        bench.datapath.read_events()
        before = everything(bench)
        with bench.datapath.sandbox() as sandbox:
            for port in (1, 2, 3, 4):
                for frame in (UDP, FRAGMENT, FRAME, FRAME[:40], UDP.replace(b"\x0f\xa0", b"\x0f\xa1")):
                    for _ in range(3):
                        sandbox.run(port, frame)
        assert everything(bench) == before
        assert bench.datapath.read_events() == []
        assert bench.datapath.connections() != ()


def test_the_program_has_of_the_switchs_maps_only_those_that_packets_read() -> None:
    """And it knows no helper that sends: neither bpf_clone_redirect (13) nor bpf_redirect (23)."""
    from tests.bpf.verifier import CALL, _Measured

    loaded = _Measured(trace_object())
    try:
        loaded.load()
        (program,) = loaded._programs()
        code = loaded._code(program)
    finally:
        loaded.close()
    calls = {
        int.from_bytes(code[at + 4 : at + 8], "little")
        for at in range(0, len(code), 8)
        if code[at] == CALL and code[at + 1] >> 4 == 0
    }
    assert calls and not calls & {13, 23}
    assert not set(READ) & ({*COPIED, *COUNTED} | {"events", "scratch", "free_conns"})


def test_what_one_trace_leaves_the_next_finds_until_the_state_is_copied_anew() -> None:
    with Bench(ports=4) as bench:
        bench.load(MANY, meters=[METER])
        with bench.datapath.sandbox() as sandbox:
            first, second = sandbox.run(1, UDP), sandbox.run(1, UDP)
            assert first.connection is not None and second.connection is not None
            assert (first.connection.packets, second.connection.packets) == ((1, 0), (2, 0))
            sandbox.refresh()
            third = sandbox.run(1, UDP).connection
            assert third is not None and third.packets == (1, 0)


def test_a_full_table_of_connections_is_told() -> None:
    with Bench(ports=4) as bench:
        bench.load(MANY, meters=[METER])
        control = abi.CtControl(fresh=abi.CONNS)
        bench.datapath._map["ct_control"].set(0, bytes(control))
        live = abi.Conn(gen=1, last_seen_ns=1 << 62)
        with bench.datapath._map["conns"].window() as window:
            window.cast("B")[:] = bytes(live) * abi.CONNS
        with bench.datapath.sandbox() as sandbox:
            assert sandbox.run(1, UDP).reason is DropReason.CT_FULL


def test_a_port_over_its_share_of_refusals_is_told_so() -> None:
    with Bench(ports=4) as bench:
        bench.load([to(2, eth_dst=MAC2)])
        port = abi.Port.from_buffer_copy(bench.datapath._map["ports"].index(1) or b"")
        port.refusal_quota = 1
        bench.datapath._map["ports"].set(1, bytes(port))
        refused = FRAME.replace(FRAME[:6], bytes.fromhex("020000000009"))
        with bench.datapath.sandbox() as sandbox:
            reasons = set()
            for _ in range(50):  # until both fall into one window of time
                bench.decide(1, refused)
                sandbox.refresh()
                reasons.add(sandbox.run(1, refused).reason)
            assert reasons <= {DropReason.REFUSAL_QUOTA, DropReason.TABLE_MISS}
            assert DropReason.REFUSAL_QUOTA in reasons
            assert sandbox.run(1, FRAME).outputs or sandbox.run(1, FRAME).reason is DropReason.REFUSAL_QUOTA


def test_another_program_than_the_one_at_the_ports_is_not_asked(bench: Bench) -> None:
    control = abi.Control.from_buffer_copy(bench.datapath._map["control"].index(0) or b"")
    control.digest[0] ^= 1
    bench.datapath._map["control"].set(0, bytes(control))
    with pytest.raises(HostError, match="another program than the one installed"):
        bench.datapath.sandbox()


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (b"", "15 to 3500"),
        (bytes(14), "15 to 3500: a real one"),
        (bytes(3501), "15 to 3500$"),
        (UDP[:33], "34 to 3500"),
        (bytes(12) + b"\x86\xdd" + bytes(39), "54 to 3500"),
    ],
)
def test_a_frame_of_a_size_that_the_kernel_does_not_try_is_refused(
    bench: Bench, frame: bytes, words: str
) -> None:
    with bench.datapath.sandbox() as sandbox, pytest.raises(InputError, match=words):
        sandbox.run(1, frame)


@pytest.mark.parametrize("frame", [bytes(15), bytes(3500), UDP[:34], bytes(12) + b"\x86\xdd" + bytes(40)])
def test_a_frame_of_any_other_size_is_tried(bench: Bench, frame: bytes) -> None:
    with bench.datapath.sandbox() as sandbox:
        assert sandbox.run(1, frame).reason is not DropReason.NONE


# -- numbers --------------------------------------------------------------------------------------------


STRUCTS: Mapping[str, type[ctypes.Structure]] = {
    "vnet_step_record": trace.StepRecord,
    "vnet_trace_frame": trace.TraceFrame,
    "vnet_trace_log": trace.TraceLog,
}


@pytest.mark.parametrize("name", STRUCTS)
def test_struct_of_a_trace_has_the_same_layout_in_c_and_python(name: str) -> None:
    python = STRUCTS[name]
    offsets = {field[0]: getattr(python, field[0]).offset for field in python._fields_}
    assert members(dump(trace_object()), name) == offsets | {"": ctypes.sizeof(python)}


def test_steps_have_the_same_numbers_in_c_and_python() -> None:
    text = (Path(trace.__file__).parent / "bpf" / "trace.h").read_text()
    for kind in StepKind:
        assert f"VNET_STEP_{kind.name} = {kind.value}," in text
    assert CtFlag.COMMIT == 1
