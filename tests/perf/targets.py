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
    """Whether the figure of the peer `harness` is to be taken off the others of its case.

    A case without one is measured against the row's first.
    """
    missed: str = ""
    """Why a limit of this row is missed where it is, and what would close the gap."""


ROWS = (
    Row(1, "L2 unicast, one flow", "instructions a packet", (Limit(1.0, "bridge"), Limit(0.6, "ovs")), True),
    Row(
        2,
        "stateful policy, established connection",
        "instructions a packet",
        (Limit(0.55, "nft"), Limit(0.37, "ovs")),
        True,
    ),
    Row(
        3,
        "stateful policy with many rules",
        "instructions a packet",
        (Limit(1.05, "vnet", "10000", "10"), Limit(1 / 9, "nft linear", "10000", "100")),
        True,
    ),
    Row(
        4,
        "first packet of a flow, full pipeline",
        "instructions; ns of a SYN",
        (Limit(3000.0, "", "ns"), Limit(1 / 20, "ovs", "instructions")),
        True,
    ),
    Row(
        5,
        "many flows in turn",
        "ns a packet",
        (Limit(1.5, "vnet", "1000000 flows, ns", "1000 flows, ns"),),
    ),
    Row(
        6,
        "a TCP connection is opened",
        "instructions for its three packets",
        (Limit(0.5, "nft", "open"), Limit(256, "", "bytes each")),
        True,
    ),
    Row(
        7,
        "one VM attacks",
        "throughput that the others keep",
        tuple(Limit(0.98, "", case, at_least=True) for case in ("SYN flood", "scan", "rule-shaped")),
    ),
    Row(
        8,
        "a rule is revoked under traffic",
        "packets let through afterwards",
        (Limit(0, "", "of 20 revocations"),),
    ),
    Row(
        11,
        "the daemon is killed, started, upgraded",
        "of 4,000 pings lost",
        (Limit(0, "", "killed and started again"), Limit(0, "", "program exchanged")),
    ),
    Row(
        15,
        "bulk TCP, namespace to namespace and TAP to TAP",
        "Gb/s, ratios of rounds",
        (
            Limit(0.95, "", "Gb/s / direct", at_least=True),
            Limit(1.0, "", "Gb/s / bridge", at_least=True),
            Limit(1.0, "", "TAP Gb/s / bridge", at_least=True),
        ),
    ),
    Row(
        16,
        "a byte there and one back over TCP",
        "us, ratios of rounds",
        tuple(
            Limit(bound, "", f"{place} us / {peer}")
            for place in ("P50", "P99")
            for peer, bound in (("direct", 1.05), ("bridge", 1.0))
        ),
    ),
    Row(
        17,
        "many ports; flood",
        "instructions a packet or copy, harness included",
        (Limit(1.02, "vnet", "unicast 1000", "unicast 2"), Limit(1.0, "bridge", "copy of 1000")),
    ),
    Row(18, "another VM is captured", "instructions a packet", (Limit(1.02, "vnet", "on", "off"),), True),
)
BY_NUMBER = {row.number: row for row in ROWS}
