"""Figures to lines: peers side by side, ratios, what was to be reached and by how much it was missed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from tests.perf.targets import Figure, Limit, Row

HARNESS = "harness"
PLAIN = ("bytes each", "ns")
"""Cases that hold no packets, so nothing of the harness."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A limit, what was measured of it, and whether it is kept."""

    limit: Limit
    ratio: float
    met: bool

    @property
    def text(self) -> str:
        limit = self.limit
        sign = ">=" if limit.at_least else "<="
        against = f" x {limit.against}" if limit.against else ""
        where = f" ({limit.case})" if limit.case else ""
        target = f"target {sign} {limit.bound:g}{against}"
        return f"{limit.peer}{where} {self.ratio:.3g}{against}, {target}: {self._outcome}"

    @property
    def _outcome(self) -> str:
        if self.met:
            return "met"
        bound = self.limit.bound
        return f"missed by {abs(self.ratio / bound - 1):.0%}" if bound else "missed"


def net(row: Row, figures: Iterable[Figure]) -> tuple[Figure, ...]:
    """The row's figures, each without what the harness costs in the same case."""
    own = tuple(figure for figure in figures if figure.row == row.number)
    if not row.harness:
        return own
    base = {figure.case: figure.value for figure in own if figure.peer == HARNESS}
    if not base:
        return ()
    first = next(iter(base.values()))
    counted = (figure for figure in own if figure.peer != HARNESS)
    return tuple(
        f if f.case in PLAIN else replace(f, value=f.value - base.get(f.case, first)) for f in counted
    )


def verdicts(row: Row, figures: Sequence[Figure]) -> Iterator[Verdict]:
    """Of each limit whose figures were measured."""
    values = {(figure.case, figure.peer): figure.value for figure in figures}
    for limit in row.limits:
        value = values.get((limit.case, limit.peer))
        other_case = limit.case if limit.against_case is None else limit.against_case
        against = values.get((other_case, limit.against)) if limit.against else 1.0
        if value is None or not against:
            continue
        ratio = value / against
        yield Verdict(limit, ratio, ratio >= limit.bound if limit.at_least else ratio <= limit.bound)


def lines(row: Row, figures: Iterable[Figure]) -> Iterator[str]:
    """The row as text."""
    own = net(row, figures)
    yield f"{row.number}. {row.work} [{row.unit}]"
    for case in dict.fromkeys(figure.case for figure in own):
        shown = "  ".join(f"{f.peer} {number(f)}" for f in own if f.case == case)
        yield f"   {case + ': ' if case else ''}{shown}"
    for verdict in verdicts(row, own):
        yield f"   {'   ' if verdict.met else '-> '}{verdict.text}"


def number(figure: Figure) -> str:
    """A value, with the least and the most of its rounds if it has any."""
    value = f"{figure.value:,.0f}" if abs(figure.value) >= 100 else f"{figure.value:.3g}"
    if figure.low is None or figure.high is None:
        return value
    return f"{value} ({figure.low:.3g} to {figure.high:.3g})"
