"""What the pages of `vnet top` are made of: what was seen, what the user chose, text with styles."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vnet.fabric.numbers import Numbers, VmNumbers
from vnet.fabric.rates import Rates, VmRate
from vnet.fabric.strain import Strain

KEPT = 60
"""Rates that are remembered for sparklines."""
NAME_LEAST = 12
"""So wide a column of names is at least."""


class Sort(StrEnum):
    """By what VMs are sorted, most first, but for names."""

    TRAFFIC = "traffic"
    CPU = "cpu"
    READY = "ready"
    MEMORY = "memory"
    DISK = "disk"
    DROPS = "drops"
    NAME = "name"


@dataclass(frozen=True, slots=True)
class Size:
    """Of the terminal, in characters."""

    columns: int = 80
    lines: int = 24


@dataclass(frozen=True, slots=True)
class View:
    """What the user chose. `typing` is the filter while it is typed, None when it is not."""

    sort: Sort = Sort.TRAFFIC
    filter: str = ""
    typing: str | None = None
    offset: int = 0
    paused: bool = False
    help: bool = False
    connections: bool = False
    resources: bool = False
    interval_s: float = 2.0
    unicode: bool = True


@dataclass(frozen=True, slots=True)
class Connection:
    """One that carries much: its ends as people know them, and what its client sends and gets a second."""

    fabric: str
    client: str
    server: str
    service: str
    sent_bytes_ps: float
    received_bytes_ps: float


@dataclass(frozen=True, slots=True)
class Seen:
    """The last snapshot, the rates up to then, oldest first, and why there is nothing newer, if so."""

    now: Numbers
    rates: tuple[Rates, ...] = ()
    silence: str = ""
    connections: tuple[Connection, ...] = ()
    warnings: tuple[Strain, ...] = ()

    @property
    def last(self) -> Rates:
        """The rates of now."""
        return self.rates[-1] if self.rates else Rates()

    def add(self, now: Numbers, found: Rates) -> Seen:
        """After another snapshot."""
        rates = (*self.rates, found) if found.span_s else self.rates
        return Seen(now, rates[-KEPT:], connections=self.connections, warnings=self.warnings)


@dataclass(frozen=True, slots=True)
class Span:
    """Text of one style: "", or one of STYLES."""

    text: str
    style: str = ""


STYLES = ("title", "head", "good", "warn", "bad", "dim", "keys")
Line = tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One VM with its rates, the newest last."""

    fabric: str
    vm: VmNumbers
    rate: VmRate
    sent: tuple[float, ...] = ()
    received: tuple[float, ...] = ()


def label(row: Row, several: bool) -> str:
    """Whose row it is; with several fabrics, of which."""
    return f"{row.fabric}/{row.vm.name}" if several else row.vm.name


def shortened(text: str, width: int, unicode: bool = True) -> str:
    """The text, its middle left out when it is longer: beginnings and numbers at the end tell names apart."""
    if len(text) <= width:
        return text
    gap = "…" if unicode else "~"
    tail = (width - 1) // 2
    return text[: width - 1 - tail] + gap + text[len(text) - tail :]
