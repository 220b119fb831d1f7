"""What the programs cost the verifier of this kernel; `tests/vm/test_kernels.py` asks older ones."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bpf import budget, verifier
from tests.bpf.verifier import Cost
from vnet.switch.live.maps import PROGRAMS, object_path

COST = Cost(instructions=1000, translated=200, stack_bytes=96)
TEXT = budget.document({"6.1": {"vnet_ingress": budget.budget(COST)}})


def objects() -> list[Path]:
    """Everything that `make bpf` compiles."""
    return sorted(object_path().parent.glob("*.bpf.o"))


def test_the_programs_cost_the_verifier_what_is_budgeted() -> None:
    measured = {name: cost for path in objects() for name, cost in verifier.costs(path).items()}
    series = verifier.host_series()
    if budget.rewriting():
        budget.rewrite(series, measured)
    if not budget.known(series):
        pytest.skip(f"no budget for Linux {series}: make budget")
    assert budget.complaints(series, measured) == []


def test_every_program_that_a_switch_pins_has_a_budget() -> None:
    text = budget.FILE.read_text()
    for series, name in itertools.product(("6.1", "6.12"), PROGRAMS):
        assert f'["{series}".{name}]' in text


def test_what_was_measured_is_within_its_own_budget() -> None:
    assert budget.complaints("6.1", {"vnet_ingress": COST}, TEXT) == []


@pytest.mark.parametrize(
    ("cost", "words"),
    [
        (replace(COST, instructions=1101), ["1101 instructions, over the ceiling of 1100", "make budget"]),
        (replace(COST, instructions=800), ["800 instructions, far below the ceiling of 1100", "make budget"]),
        (replace(COST, translated=300), ["300 translated, over"]),
        (replace(COST, stack_bytes=128), ["128 stack_bytes, over the ceiling of 106"]),
    ],
)
def test_a_cost_that_went_up_or_far_down_is_complained_of(cost: Cost, words: Sequence[str]) -> None:
    (complaint,) = budget.complaints("6.1", {"vnet_ingress": cost}, TEXT)
    assert all(word in complaint for word in words), complaint


def test_a_program_without_budget_and_a_budget_without_program_are_complained_of() -> None:
    found = budget.complaints("6.1", {"vnet_other": COST}, TEXT)
    assert [line.split(":")[0] for line in found] == ["vnet_ingress", "vnet_other"]


def test_no_stack_ceiling_lies_above_what_the_kernel_allows() -> None:
    assert budget.budget(replace(COST, stack_bytes=512))["stack_bytes"]["ceiling"] == 512


def test_the_deepest_chain_counts_callbacks_and_rounds_each_frame_up() -> None:
    call, function, leave = (0x85, 0x10), (0x18, 0x42), (0x95, 0)
    code = [(*call, 4), (*function, 5), (0, 0, 0), (0x85, 0, 181), (*leave, 0), (*leave, 0), (*leave, 0)]
    raw = b"".join(bytes(insn[:2]) + bytes(2) + insn[2].to_bytes(4, "little") for insn in code)
    assert verifier.deepest(raw, [64 + 24, 8, 100]) == 64 + 128  # without the 24 that an unrolled loop adds
