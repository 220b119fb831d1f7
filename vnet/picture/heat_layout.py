"""Where the cells and names of a heat map stand, in pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vnet.picture.geometry import Rect
from vnet.picture.heat import Cell, Heat, Level
from vnet.picture.text import broken, clean, elided, listed, width

SMALL, NORMAL, TITLE = 10.0, 11.0, 19.0
LINE = 1.35
MARGIN, GAP = 22.0, 1.0
NAME_MAX = 210.0
WORDS_MAX, LINES_MAX = 112.0, 3
WORDED_MAX = 18
"""The most rows with words in their cells."""
CELL = 17.0
"""The side of a cell with a mark."""
PAD = 6.0


@dataclass(frozen=True, slots=True)
class Name:
    """A head's name. `x`, `y` are where it starts, ends or has its middle; upright ones read upwards."""

    place: int
    words: tuple[str, ...]
    x: float
    y: float
    anchor: str
    is_upright: bool = False


@dataclass(frozen=True, slots=True)
class Tile:
    """One cell, or `span` side by side that are the same. `words` are the lines in it, () for a mark."""

    row: int
    column: int
    span: int
    cell: Cell
    rect: Rect
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HeatLayout:
    """Everything with its place. `is_marked`: cells bear marks instead of words."""

    heat: Heat
    width: float
    height: float
    grid: Rect
    is_marked: bool
    rows: tuple[Name, ...]
    columns: tuple[Name, ...]
    tiles: tuple[Tile, ...]
    note: str
    legend: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """What a kind of cell means; `x`, `y` are where its words begin."""

    level: Level
    x: float
    y: float


KEY = 24.0
"""From where an example of a cell begins to its words."""
WIDTH_MIN = 380.0


def heat_layout(heat: Heat) -> HeatLayout:
    """The layout of a heat map: with words in cells where there are few, with marks where there are many."""
    worded = len(heat.heads) <= WORDED_MAX
    return _worded(heat) if worded else _marked(heat)


def _note(heat: Heat) -> str:
    merged = f" · {heat.vms} VMs, those alike share a row" if len(heat.heads) < heat.vms else ""
    return f"rows may open connections to columns{merged}"


_TOP = MARGIN + TITLE + 2.8 * NORMAL


def _worded(heat: Heat) -> HeatLayout:
    names = [broken(clean(head.label), NORMAL, WORDS_MAX, lines=2) for head in heat.heads]
    words = [[_words(cell) for cell in row] for row in heat.cells]
    wide = [
        max((width(line, SMALL) for lines in column for line in lines), default=0.0)
        for column in zip(*words, strict=True)
    ]
    wide = [
        max(36.0, most, *(width(line, NORMAL) for line in name)) + 2 * PAD
        for most, name in zip(wide, names, strict=True)
    ]
    high = [
        max(1, *(len(lines) for lines in row), len(name)) * NORMAL * LINE + 2 * PAD
        for row, name in zip(words, names, strict=True)
    ]
    left = MARGIN + max((width(line, NORMAL) for name in names for line in name), default=0) + 2 * PAD
    top = _TOP + max(map(len, names), default=0) * NORMAL * LINE + PAD
    xs, ys = _starts(left, wide), _starts(top, high)
    tiles = tuple(
        Tile(
            row,
            column,
            1,
            cell,
            Rect(xs[column], ys[row], wide[column] - GAP, high[row] - GAP),
            words[row][column],
        )
        for row, cells in enumerate(heat.cells)
        for column, cell in enumerate(cells)
    )
    rows = tuple(
        Name(n, name, left - PAD, ys[n] + (high[n] - GAP) / 2, "end") for n, name in enumerate(names)
    )
    columns = tuple(
        Name(n, name, xs[n] + (wide[n] - GAP) / 2, top - PAD, "middle") for n, name in enumerate(names)
    )
    return _whole(heat, Rect(left, top, sum(wide), sum(high)), False, rows, columns, tiles)


def _words(cell: Cell) -> tuple[str, ...]:
    if cell.ports:
        return listed(clean(cell.ports), SMALL, WORDS_MAX, lines=LINES_MAX)
    return ()


def _starts(first: float, sizes: list[float]) -> list[float]:
    found = [first]
    for size in sizes:
        found.append(found[-1] + size)
    return found


def _marked(heat: Heat) -> HeatLayout:
    names = [elided(clean(head.label), NORMAL, NAME_MAX) for head in heat.heads]
    room = max(width(name, NORMAL) for name in names)
    left, top = MARGIN + room + PAD, _TOP + room + PAD
    tiles = tuple(tile for row in range(len(names)) for tile in _runs(heat, row, left, top))
    rows = tuple(
        Name(n, (name,), left - PAD, top + n * CELL + CELL / 2, "end") for n, name in enumerate(names)
    )
    columns = tuple(
        Name(n, (name,), left + n * CELL + CELL / 2 + NORMAL * 0.36, top - PAD, "start", True)
        for n, name in enumerate(names)
    )
    side = CELL * len(names)
    return _whole(heat, Rect(left, top, side, side), True, rows, columns, tiles)


def _runs(heat: Heat, row: int, left: float, top: float) -> list[Tile]:
    """The cells of a row; neighbours without anything open are one tile."""
    found: list[Tile] = []
    for column, cell in enumerate(heat.cells[row]):
        rect = Rect(left + column * CELL, top + row * CELL, CELL - GAP, CELL - GAP)
        last = found[-1] if found else None
        if last and cell.level in (Level.NOTHING, Level.APART) and last.cell == cell:
            wider = Rect(last.rect.left, rect.top, rect.right - last.rect.left, rect.height)
            found[-1] = Tile(row, last.column, last.span + 1, cell, wider, ())
        else:
            found.append(Tile(row, column, 1, cell, rect, ()))
    return found


def _whole(
    heat: Heat,
    grid: Rect,
    is_marked: bool,
    rows: tuple[Name, ...],
    columns: tuple[Name, ...],
    tiles: tuple[Tile, ...],
) -> HeatLayout:
    note = _note(heat)
    needed = max(WIDTH_MIN, width(note, NORMAL), width(clean(heat.title), TITLE, bold=True))
    wide = max(grid.right, MARGIN + needed) + MARGIN
    legend = tuple(_legend(heat, wide, grid.bottom + 2.4 * NORMAL))
    high = max((entry.y for entry in legend), default=grid.bottom) + MARGIN
    return HeatLayout(heat, wide, high, grid, is_marked, rows, columns, tiles, note, legend)


def _legend(heat: Heat, wide: float, y: float) -> Iterator[Entry]:
    """The kinds of cells that occur, in as many rows as it takes."""
    shown, x = {cell.level for row in heat.cells for cell in row}, MARGIN
    for level in (each for each in Level if each in shown):
        needed = KEY + width(level.value, NORMAL)
        if x > MARGIN and x + needed > wide - MARGIN:
            x, y = MARGIN, y + 2 * NORMAL
        yield Entry(level, x + KEY, y)
        x += needed + 2 * NORMAL
