"""Where a value came from: file, line and column of the YAML that declared it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """A position in a topology file. Lines and columns count from 1; 0 means "the whole file"."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        """`file:line`, the form that flows, drops and plans print."""
        return f"{self.file}:{self.line}" if self.line else self.file


BUILT_IN = Location("(built in)")
"""The origin of what the fabric itself needs and no file declares."""
