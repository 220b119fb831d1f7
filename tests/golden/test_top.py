"""What `vnet top` shows, as text. `GOLDEN=rewrite` writes what is expected anew: review the diff."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.fabric.numbers_samples import fabric, nic, numbers, vitals, vm
from vnet.cli.top_form import Connection, Seen, Size, Sort, View
from vnet.cli.top_view import plain, render, whole
from vnet.fabric.numbers import FabricNumbers, Numbers
from vnet.fabric.rates import rates
from vnet.fabric.strain import Lack, Strain
from vnet.hv.vitals import Vitals

FOLDER = Path(__file__).parent / "top"
STEPS = 9
LONG = "the-one-with-the-name-that-never-ends-and-has-a-number-at-its-end-"


def shop(step: int) -> FabricNumbers:
    """Four VMs: one busy, one that scans, one idle, one that crashed."""
    busy = nic("web-1.eth0", 40_000 * step, 90_000 * step * (step % 3 + 1))
    scanning = nic(
        "intruder.eth0", 900 * step, 0, 800 * step, reasons={"REFUSAL_QUOTA": 30 * step, "POLICY": step}
    )
    return fabric(
        vm("web-1", busy, cpu_s=1.25 * step, ready_s=1.24 * step),
        vm("intruder", scanning, cpu_s=0.4 * step, ready_s=0.1 * step),
        replace(
            vm("db", nic("db.eth0", 3, 3), cpu_s=0.01 * step), vitals=_busy_disk(step), swapped_bytes=3 << 20
        ),
        vm("app", nic("app.eth0"), state="crashed"),
        name="shop",
        drops={"REFUSAL_QUOTA": 700 * step, "POLICY": 100 * step, "MTU": 0},
        lost_events={"drop": 40 * step},
    )


def _busy_disk(step: int) -> Vitals:
    """One of whose reads a few are slow, of a guest that has used up its memory."""
    return vitals(4000 * step, 90 * step, 300 * step, available_bytes=1 << 20, told_at_s=2.0 * step)


def many(step: int) -> FabricNumbers:
    """200 VMs, each busier than the one before."""
    vms = (
        vm(f"{LONG}{n}", nic(f"{n}.eth0", n * 1000 * step, n * step), cpu_s=0.001 * n * step)
        for n in range(200)
    )
    return fabric(*vms, name="much-too-long-a-name-for-a-fabric", drops={"POLICY": step})


def at(step: int, *fabrics: FabricNumbers) -> Numbers:
    return numbers(*fabrics, at_s=2.0 * step)


def seen(*parts: str) -> Seen:
    """After some moments."""
    make = {"shop": shop, "many": many}
    before, found = None, Seen(at(0))
    for step in range(STEPS):
        now = at(step, *(make[part](step) for part in parts))
        found = found.add(now, rates(before, now))
        before = now
    return found


TALK = (
    Connection("shop", "web-1", "db", "5432/tcp", 1_250_000.0, 9_300_000.0),
    Connection("shop", "intruder", "10.10.20.11", "icmp", 84.0, 0.0),
    Connection("shop", LONG + "1", "fd00:10:0:0:1234:5678:9abc:def0", "65535/sctp", 12.0, 700.0),
)
TALKING = replace(seen("shop"), connections=TALK)
LACKING = replace(
    seen("shop"),
    warnings=(
        Strain("shop", "db", Lack.DISK, 0.07, "db's disk data answers 7 % of its reads only after 5 s"),
        Strain("shop", "web-1", Lack.CPU, 0.31, "web-1 waits 31 % of the time for a CPU: 6 vCPUs on 2 cores"),
    ),
)
BEHIND = replace(seen("shop"), now=at(STEPS, replace(shop(STEPS), enforced=2)))
SCREENS = {
    "80x24": (seen("shop"), Size(80, 24), View()),
    "80x24-by-drops-of-one": (seen("shop"), Size(80, 24), View(Sort.DROPS, filter="intr")),
    "80x24-ascii": (seen("shop"), Size(80, 24), View(unicode=False)),
    "80x24-behind-and-paused": (BEHIND, Size(80, 24), View(paused=True)),
    "80x24-no-answer": (replace(seen("shop"), silence="does not answer: it is gone"), Size(80, 24), View()),
    "80x24-typing": (seen("shop"), Size(80, 24), View(typing="we")),
    "80x24-help": (seen("shop"), Size(80, 24), View(help=True)),
    "80x24-nothing": (seen(), Size(80, 24), View()),
    "80x24-connections": (TALKING, Size(80, 24), View(connections=True)),
    "120x40-connections-of-one": (TALKING, Size(120, 40), View(connections=True, filter="DB")),
    "80x24-resources": (LACKING, Size(80, 24), View(Sort.DISK, resources=True)),
    "160x14-resources-of-several": (
        replace(seen("shop", "many"), warnings=LACKING.warnings),
        Size(160, 14),
        View(Sort.DISK, resources=True),
    ),
    "80x24-resources-help": (LACKING, Size(80, 24), View(resources=True, help=True)),
    "80x24-warning": (LACKING, Size(80, 24), View()),
    "80x24-200": (seen("many"), Size(80, 24), View(offset=190)),
    "120x40": (seen("shop", "many"), Size(120, 40), View(offset=3)),
    "200x12": (seen("shop"), Size(200, 12), View(Sort.CPU)),
    "40x8": (seen("shop"), Size(40, 8), View()),
}


@pytest.mark.parametrize("name", SCREENS)
def test_a_screen_is_as_expected(name: str) -> None:
    what, size, view = SCREENS[name]
    found = plain(render(what, size, view))
    expected = FOLDER / f"{name}.txt"
    if os.environ.get("GOLDEN") == "rewrite":
        expected.write_text(found, encoding="utf-8")
    assert found == expected.read_text(encoding="utf-8")


@pytest.mark.parametrize("columns", [1, 20, 40, 79, 80, 81, 120, 250])
@pytest.mark.parametrize("lines", [2, 3, 8, 24, 40, 300])
def test_a_screen_is_as_large_as_the_terminal(columns: int, lines: int) -> None:
    for parts in (("shop",), ("many",), ("shop", "many"), ()):
        for view in (
            View(),
            View(help=True),
            View(typing="x" * 300),
            View(offset=10**6),
            View(connections=True),
            View(resources=True),
        ):
            shown = replace(seen(*parts), connections=TALK)
            screen = render(shown, Size(columns, lines), view)
            assert len(screen) == lines
            assert all(sum(len(span.text) for span in line) <= columns for line in screen)


def test_on_paper_all_vms_are_told() -> None:
    assert plain(whole(seen("many"), 120, View())).count("\n") == 207
