"""From a file to a Topology, or to the list of everything that is wrong with it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from vnet.base.errors import Fault, InputError
from vnet.base.source import Location
from vnet.topology.build import build
from vnet.topology.check import check
from vnet.topology.draft import draft
from vnet.topology.language import TOPOLOGY
from vnet.topology.model import Topology
from vnet.topology.reading import Reading
from vnet.topology.yaml import parse

STDIN = Path("-")


def load_file(path: Path, env: Mapping[str, str]) -> Topology:
    """Reads a topology file; `-` is standard input. Raises InputError with every fault found."""
    return load_text(read_text(path), "(stdin)" if path == STDIN else str(path), env)


def read_text(path: Path) -> str:
    """The text of a topology file; `-` is standard input. Raises InputError if there is none."""
    try:
        data = sys.stdin.buffer.read() if path == STDIN else path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the topology {path}: {error.strerror}") from None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError([_not_utf8(path, data, error)]) from None


def load_text(text: str, file_name: str, env: Mapping[str, str]) -> Topology:
    """The topology that a text declares; `file_name` is what positions name.

    Args: `env` gives the values of `${VAR}`. Raises InputError with every fault found.
    """
    reading = Reading(file_name, text, env)
    document = parse(text)
    for problem in document.problems:
        where = Location(file_name, problem.line, problem.column)
        reading.fault(where, problem.path, problem.text, problem.hint)
    root = None
    if document.root is not None:
        root = TOPOLOGY.read(document.root, "", reading)
    elif not document.problems:
        reading.fault(Location(file_name, 1, 1), "yaml", "the file is empty", 'it needs at least "name"')
    parts = None if root is None else draft(root.value)
    if parts is not None:
        check(parts, reading)
    if reading.faults or parts is None:
        raise InputError(reading.faults)
    return build(parts, file_name)


def _not_utf8(path: Path, data: bytes, error: UnicodeDecodeError) -> Fault:
    before = data[: error.start]
    line = before.count(b"\n") + 1
    column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8")) + 1
    problem = f"byte 0x{data[error.start]:02x} is not UTF-8"
    return Fault(Location(str(path), line, column), "yaml", problem, "save the file as UTF-8")
