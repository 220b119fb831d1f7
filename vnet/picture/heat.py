"""Who may open how much to whom, as a table: what the heat map shows in all its forms."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace
from enum import StrEnum

from vnet.picture.alike import MANY, Kin, Opening, Openings, kins
from vnet.policy.compile import Compiled
from vnet.policy.outside import of_fabric
from vnet.policy.reach import beyond
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
    """Whom a row and a column is about: a VM, `count` that are alike, or who is outside."""

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
    heads = tuple(Head(kin.name, kin.count, tuple(vm.name for vm in kin.vms)) for kin in found)
    cells = tuple(tuple(_cell(one, other, openings.between(one, other)) for other in found) for one in found)
    return _with_outside(Heat(topology.name, len(inventory.vms), heads, cells), topology, inventory, compiled)


def _with_outside(inside: Heat, topology: Topology, inventory: Inventory, compiled: Compiled) -> Heat:
    """With a row and a column for each who is outside; VMs that share a row fare alike there too."""
    names = dict.fromkeys(end.who for end in of_fabric(topology, inventory).ends())
    strangers = tuple(Head(name, 1, (name,)) for name in names)
    ports = beyond(topology, inventory, compiled, {head.members[0] for head in inside.heads})

    def cell(one: Head, other: Head) -> Cell:
        if one is other:
            return Cell(Level.SELF)
        told = ports.get((one.members[0], other.members[0]))
        if told is None:
            return Cell(Level.APART)
        return Cell(Level.NOTHING) if told == "-" else Cell(Level.ALL if told == "any" else Level.SOME, told)

    rows = [
        (*row, *(cell(head, stranger) for stranger in strangers))
        for head, row in zip(inside.heads, inside.cells, strict=True)
    ]
    heads = (*inside.heads, *strangers)
    rows += [tuple(cell(stranger, head) for head in heads) for stranger in strangers]
    return replace(inside, heads=heads, cells=tuple(rows))


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
