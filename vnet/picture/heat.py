"""Who may open how much to whom, as a table: what the heat map shows in all its forms."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from enum import StrEnum

from vnet.picture.alike import MANY, Kin, Opening, Openings, kins
from vnet.policy.compile import Compiled
from vnet.topology.inventory import Inventory
from vnet.topology.model import Topology


class Level(StrEnum):
    """How much is open, in words."""

    NOTHING = "nothing"
    SOME = "some ports"
    ALL = "everything"
    APART = "no common network"
    SELF = "itself"


@dataclass(frozen=True, slots=True)
class Head:
    """Whom a row and a column is about: a VM, or `count` that are alike."""

    name: str
    count: int
    members: tuple[str, ...]

    @property
    def label(self) -> str:
        """The name, with the number of those it stands for."""
        return f"{self.name} ×{self.count}" if self.count > 1 else self.name


@dataclass(frozen=True, slots=True)
class Cell:
    """What the row's VM may open to the column's; `ports` are words, empty for nothing."""

    level: Level
    ports: str = ""


@dataclass(frozen=True, slots=True)
class Heat:
    """The whole table: `cells[row][column]`, of senders and receivers, both in the order of `heads`."""

    title: str
    vms: int
    heads: tuple[Head, ...]
    cells: tuple[tuple[Cell, ...], ...]


def heat(topology: Topology, inventory: Inventory, compiled: Compiled, expand: bool = False) -> Heat:
    """The table of a fabric; if there are many VMs those that are alike share a row, unless `expand`."""
    found = kins(topology, inventory, compiled, merge=not expand and len(inventory.vms) > MANY)
    openings = Openings(topology, inventory, compiled)
    return Heat(
        topology.name,
        len(inventory.vms),
        tuple(Head(kin.name, kin.count, tuple(vm.name for vm in kin.vms)) for kin in found),
        tuple(tuple(_cell(one, other, openings.between(one, other)) for other in found) for one in found),
    )


def _cell(one: Kin, other: Kin, opening: Opening) -> Cell:
    if one is other and one.count == 1:
        return Cell(Level.SELF)
    if opening.is_apart:
        return Cell(Level.APART)
    if not opening.is_open:
        return Cell(Level.NOTHING)
    return Cell(Level.ALL if opening.is_all else Level.SOME, opening.ports)


def told(one: Head, other: Head, cell: Cell) -> str:
    """A cell as a sentence."""
    if cell.level is Level.SELF:
        return one.name
    words = {Level.NOTHING: "nothing is open", Level.APART: "no common network"}.get(cell.level, cell.ports)
    return f"{one.label} → {other.label}: {words}"


def table(of: Heat) -> str:
    """The table as CSV after RFC 4180: ports, `-` for nothing, `apart`, and empty for a VM and itself."""
    words = {Level.NOTHING: "-", Level.APART: "apart", Level.SELF: ""}
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(("from", *(head.label for head in of.heads)))
    for head, row in zip(of.heads, of.cells, strict=True):
        writer.writerow((head.label, *(words.get(cell.level, cell.ports) for cell in row)))
    return written.getvalue()
