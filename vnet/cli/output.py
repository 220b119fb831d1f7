"""Prints answers: a table for people, JSON or YAML for programs. Data goes to standard output only."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

Row = Mapping[str, Any]


class Format(StrEnum):
    """What `-o` takes."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its heading and how a row is shown in it. `wide` ones need `-o wide`."""

    heading: str
    show: Callable[[Row], str]
    wide: bool = False


def rows(data: Sequence[Row], columns: Sequence[Column], form: Format) -> None:
    """Print a list: an array for programs, a table for people."""
    if form in (Format.JSON, Format.YAML):
        document(list(data), form)
        return
    chosen = [column for column in columns if form is Format.WIDE or not column.wide]
    lines = [
        [column.heading for column in chosen],
        *([column.show(row) for column in chosen] for row in data),
    ]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    for line in lines:
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        emit(text.rstrip())


def document(data: Any, form: Format) -> None:
    """Print one value as JSON, or as YAML for `-o yaml`."""
    if form is Format.YAML:
        import yaml

        emit(yaml.safe_dump(data, sort_keys=False, allow_unicode=True).rstrip())
    else:
        emit(json.dumps(data, indent=2, ensure_ascii=False))


def emit(text: str) -> None:
    """One piece of data on standard output."""
    sys.stdout.write(text + "\n")


def emit_lines(lines: Iterable[str]) -> None:
    """Several."""
    for line in lines:
        emit(line)


def tell(text: str) -> None:
    """Something that is no data, on standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def colour_wanted(stream: Any) -> bool:
    """Whether to colour what goes to the stream (https://no-color.org)."""
    return not os.environ.get("NO_COLOR") and stream.isatty()


def mib(size_bytes: int) -> str:
    """Bytes as `96M` or `2G`, the way the topology writes them."""
    if size_bytes % (1 << 30) == 0 and size_bytes:
        return f"{size_bytes >> 30}G"
    return f"{size_bytes >> 20}M"


def amount(value: float, base: int = 1000) -> str:
    """A number in at most five characters: 0, 7, 950, 1.2k, 38M; `base` 1024 for memory."""
    units = iter(("", "k", "M", "G", "T", "P"))
    unit = next(units)
    while value >= 999.5:
        value, unit = value / base, next(units)
    if unit and value < 9.95:
        return f"{value:.1f}{unit}"
    if not unit and 0 < value < 0.95:
        return f"{value:.1f}"
    return f"{value:.0f}{unit}"


def clock(text: str) -> str:
    """A time as the answer has it, in local time, to the second."""
    return f"{datetime.fromisoformat(text).astimezone():%Y-%m-%d %H:%M:%S}"


def age(seconds: float) -> str:
    """A time span in its largest unit that leaves two digits: `12s`, `5m`, `3h`, `9d`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f}{unit}"
    return f"{seconds:.0f}s"
