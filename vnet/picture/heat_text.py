"""The heat map for a terminal: blocks of colour that bear marks or ports, as wide as the terminal allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from vnet.picture.heat import Heat, Level

MARKS: Mapping[Level, str] = {
    Level.NOTHING: "·",
    Level.SOME: "▒",
    Level.ALL: "█",
    Level.APART: " ",
    Level.SELF: "\\",
}
ASCII: Mapping[Level, str] = {**MARKS, Level.NOTHING: ".", Level.SOME: "o", Level.ALL: "#"}
BLOCKS = (Level.SOME, Level.ALL)
"""Drawn as wide as the cell."""
_COLOURS: Mapping[Level, str] = {
    Level.SOME: "48;5;117;38;5;16",
    Level.ALL: "48;5;25;38;5;231",
    Level.APART: "38;5;245",
    Level.NOTHING: "",
    Level.SELF: "38;5;245",
}
"""SGR parameters of 256 colours: black on sky blue, white on blue, grey."""
_GAP = 1
_LABEL_MAX, _PORTS_MAX = 32, 24
WIDTH_MIN = 40


def rendered(heat: Heat, width: int, colour: bool, marks: Mapping[Level, str] = MARKS) -> Iterator[str]:
    """Lines no longer than `width`, as far as one column of cells needs no more.

    Args:
        width: of the terminal, in characters.
        colour: whether escape sequences may be used.
    """
    width = max(width, WIDTH_MIN)
    if not heat.heads:
        yield "no VMs"
        return
    worded = _worded(heat, width, marks)
    if worded is not None:
        yield from _with_ports(heat, worded, colour)
    else:
        yield from _with_marks(heat, width, colour, marks)
    yield ""
    yield from _legend(heat, width, colour, marks, worded is not None)


def _painted(text: str, level: Level, colour: bool) -> str:
    style = _COLOURS[level]
    return f"\x1b[{style}m{text}\x1b[0m" if colour and style else text


def _shortened(words: str, most: int) -> str:
    return words if len(words) <= most else words[: most - most // 2 - 1] + "…" + words[-(most // 2) :]


# ---- with ports: a table like any other -------------------------------------------------------


def _worded(heat: Heat, width: int, marks: Mapping[Level, str]) -> list[list[str]] | None:
    """The words of all cells, the heads as first row and column; None if that is wider than the terminal."""
    words = [["from \\ to", *(_shortened(head.label, _LABEL_MAX) for head in heat.heads)]]
    for head, row in zip(heat.heads, heat.cells, strict=True):
        cells = (cell.ports or marks[cell.level] for cell in row)
        words.append([_shortened(head.label, _LABEL_MAX), *cells])
    if any(len(word) > _PORTS_MAX for row in words[1:] for word in row[1:]):
        return None
    return words if sum(_widths(words)) + (2 + _GAP) * len(heat.heads) <= width else None


def _widths(words: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*words, strict=True)]


def _with_ports(heat: Heat, words: Sequence[Sequence[str]], colour: bool) -> Iterator[str]:
    first, *widths = _widths(words)
    names = (f" {name.center(width)} " for name, width in zip(words[0][1:], widths, strict=True))
    yield (words[0][0].ljust(first) + " " + " ".join(names)).rstrip()
    for row, cells in zip(words[1:], heat.cells, strict=True):
        painted = (
            _painted(f" {word.center(width)} ", cell.level, colour)
            for word, cell, width in zip(row[1:], cells, widths, strict=True)
        )
        yield (row[0].ljust(first) + " " + " ".join(painted)).rstrip()


# ---- with marks: numbered columns, as many side by side as fit ------------------------------------


def _with_marks(heat: Heat, width: int, colour: bool, marks: Mapping[Level, str]) -> Iterator[str]:
    digits = len(str(len(heat.heads)))
    names = [_shortened(head.label, min(_LABEL_MAX, width // 3)) for head in heat.heads]
    label = max(map(len, names)) + digits + 2
    room = width - label
    step = 2 if 2 * len(heat.heads) <= room else 1
    per_part = max(1, room // step)
    for start in range(0, len(heat.heads), per_part):
        part = range(start, min(start + per_part, len(heat.heads)))
        if start:
            yield ""
        for place in range(digits):
            numbers = (str(column + 1).rjust(digits)[place].ljust(step) for column in part)
            yield (" " * label + "".join(numbers)).rstrip()
        for row, name in enumerate(names):
            cells = (heat.cells[row][column] for column in part)
            painted = "".join(_painted(_mark(cell.level, marks, step), cell.level, colour) for cell in cells)
            yield f"{row + 1:>{digits}} {name.ljust(label - digits - 2)} {painted}".rstrip()


def _mark(level: Level, marks: Mapping[Level, str], step: int) -> str:
    return marks[level] * step if level in BLOCKS else marks[level].ljust(step)


def _legend(heat: Heat, width: int, colour: bool, marks: Mapping[Level, str], worded: bool) -> Iterator[str]:
    """What the marks that occur mean, in as many lines as that takes."""
    yield "rows may open connections to columns"
    levels = {cell.level for row in heat.cells for cell in row}
    line, taken = "", 0
    for level in (each for each in Level if each in levels and not (worded and each in BLOCKS)):
        needed = len(f"[.] {level.value}   ")
        if taken and taken + needed - 3 > width:
            yield line.rstrip()
            line, taken = "", 0
        line += f"[{_painted(marks[level], level, colour)}] {level.value}   "
        taken += needed
    yield line.rstrip()
    if len(heat.heads) < heat.vms:
        yield f"{heat.vms} VMs; those alike share a row (×N)"
