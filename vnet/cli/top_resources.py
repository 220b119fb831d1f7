"""The page of `vnet top` with memory as guests tell it, and with what disks do and how long it takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vnet.cli.output import amount
from vnet.cli.top_form import NAME_LEAST, Line, Row, Seen, Span, View, label, shortened
from vnet.fabric.disk_rates import PERCENTILES
from vnet.fabric.strain import DEGREES, SLOW_S, Lack
from vnet.hv.latency import Latencies, together

_COLUMNS = ("USED%", "AVAIL", "BALLN", " SWAP", "  R/s", "  W/s", " RB/s", " WB/s")
_PERCENTILES = tuple(f"P{each}ms" for each in PERCENTILES)
_FIXED = sum(len(each) + 1 for each in (*_COLUMNS, *_PERCENTILES))


HELP: tuple[Line, ...] = (
    (Span("USED%   of the memory that the guest's kernel has, as it tells itself"),),
    (Span("AVAIL   what its programs can still be given without swapping"),),
    (Span("BALLN   what its balloon has taken from it; SWAP what the host has in its swap"),),
    (Span("R/s W/s what its disks are asked for, RB/s and WB/s in bytes"),),
    (Span("P50ms   within so many milliseconds half of it is answered, P95ms 95 of 100"),),
    (Span("LACKS   what it waits too long for or has too little of: `vnet doctor`"),),
)


def table(seen: Seen, rows: Sequence[Row], columns: int, view: View, several: bool) -> list[Line]:
    """The heading, then a line for each VM; behind it what it lacks, as far as there is room."""
    longest = max((len(label(row, several)) for row in rows), default=0)
    width = max(NAME_LEAST, min(longest, columns - _FIXED - 1))
    heading = " ".join((f"{'VM':<{width}}", *_COLUMNS, *_PERCENTILES, "LACKS"))
    texts = {(each.fabric, each.subject): each.text for each in seen.warnings}
    lines = (_vm(row, width, view, several, texts) for row in rows)
    return [(Span(f"{heading:<{columns}}", "head"),), *lines]


def _vm(row: Row, width: int, view: View, several: bool, texts: Mapping[tuple[str, str], str]) -> Line:
    name = shortened(label(row, several), width, view.unicode)
    lacks = texts.get((row.fabric, row.vm.name), "")
    return (
        Span(f"{name:<{width}} "),
        *_memory(row),
        *_disks(row),
        Span(lacks.removeprefix(row.vm.name).removeprefix("'s ").strip(), "warn"),
    )


def _memory(row: Row) -> tuple[Span, ...]:
    memory, vm = row.vm.vitals.memory, row.vm
    full = memory is not None and memory.used >= DEGREES[Lack.GUEST_MEMORY].begins
    used = f"{memory.used * 100:.0f}" if memory else "-"
    available = amount(memory.available_bytes, 1024) if memory else "-"
    return (
        Span(f"{used:>5} {available:>5} ", "bad" if full else ""),
        Span(f"{amount(vm.ballooned_bytes, 1024):>5} "),
        Span(f"{amount(vm.swapped_bytes, 1024):>5} ", "warn" if vm.swapped_bytes else ""),
    )


def _disks(row: Row) -> tuple[Span, ...]:
    """All disks of a VM together."""
    disks = row.rate.disks
    if not disks:
        return (Span(" ".join(f"{'-':>5}" for _ in range(4 + len(PERCENTILES))) + " ", "dim"),)
    numbers = (
        sum(each.reads_ps for each in disks),
        sum(each.writes_ps for each in disks),
        sum(each.read_bytes_ps for each in disks),
        sum(each.write_bytes_ps for each in disks),
    )
    answers = together(each.answers for each in disks)
    return (
        Span("".join(f"{amount(each):>5} " for each in numbers)),
        *(_percentile(answers, each) for each in PERCENTILES),
    )


def _percentile(answers: Latencies, percent: float) -> Span:
    taken_s = answers.percentile_s(percent)
    text = milliseconds(taken_s) if answers.count else "-"
    return Span(f"{text:>5} ", "bad" if taken_s >= SLOW_S else "")


def milliseconds(time_s: float) -> str:
    """In at most four characters."""
    ms = time_s * 1000
    return f"{ms:.2f}" if ms < 1 else f"{ms:.1f}" if ms < 10 else f"{ms:.0f}"
