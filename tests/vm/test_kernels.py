"""The programs under the kernels that Debian 12 has, loaded, fed and taken off (`tests/vm/kernel_inside.py`).

The guests are emulated: what is tried is whether a kernel's verifier takes the programs and whether they do
what they should under it, not how fast. Under this machine's own kernel `tests/bpf` and `tests/net` run.
"""

from __future__ import annotations

import pytest

from tests.bpf import budget
from tests.bpf.verifier import Cost
from tests.guests import image
from tests.vm import kernel_inside
from tests.vm.kernel_lab import Told, trial

STEPS = [name.replace("_", " ") for name in kernel_inside.steps()]
ATTACHED = {"6.1": "filter", "6.12": "tcx"}
"""TCX came with Linux 6.6."""


@pytest.fixture(params=sorted(image.SUITES, key=lambda series: [int(part) for part in series.split(".")]))
def kernel(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def told(kernel: str) -> Told:
    return trial(kernel)


def test_the_guest_runs_the_kernel_that_is_meant(kernel: str, told: Told) -> None:
    assert told.facts, told.console[-3000:]
    (release,) = told.all("kernel")
    assert release.startswith(f"{kernel}.")


@pytest.mark.parametrize("step", STEPS)
def test_the_switch_works_under_another_kernel(step: str, kernel: str, told: Told) -> None:
    failed = dict(zip(told.all("failed"), told.all("why"), strict=True))
    assert step not in failed, failed[step]
    assert step in told.all("passed"), f"not reached: {failed or told.console[-3000:]}"


def test_the_program_is_attached_by_what_the_kernel_has(kernel: str, told: Told) -> None:
    assert told.all("attached") == [[ATTACHED[kernel]]]


def test_the_programs_cost_the_verifier_what_is_budgeted(kernel: str, told: Told) -> None:
    assert told.all("costs"), told.all("why") or told.console[-3000:]
    measured = {name: Cost(**cost) for name, cost in told.all("costs")[0].items()}
    if budget.rewriting():
        budget.rewrite(kernel, measured)
    assert budget.complaints(kernel, measured) == []
