"""What is to be reached: rows, the figures that make them, and their limits against peers of the same run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. `value` is in the row's unit; of instruction counts the harness is not yet off."""

    row: int
    case: str
    peer: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """`case` of `peer` must be at most (or at least) `bound` times `against` in `against_case`.

    Without `against` the bound is the number itself.
    """

    bound: float
    against: str = ""
    case: str = ""
    against_case: str | None = None
    peer: str = "vnet"
    at_least: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    number: int
    work: str
    unit: str
    limits: tuple[Limit, ...]
    harness: bool = False
    """Whether a peer `harness` is to be subtracted from every figure."""


ROWS = (
    Row(1, "L2 unicast, one flow", "instructions a packet", (Limit(1.0, "bridge"), Limit(0.6, "ovs")), True),
    Row(2, "stateful policy, established connection", "instructions a packet",
        (Limit(0.55, "nft"), Limit(0.37, "ovs")), True),
)  # fmt: skip
BY_NUMBER = {row.number: row for row in ROWS}
