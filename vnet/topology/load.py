"""From a file to a Topology, or to the list of everything that is wrong with it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from vnet.base.errors import Fault, InputError
from vnet.base.source import Location
from vnet.topology import language as lang
from vnet.topology.build import build
from vnet.topology.check import check
from vnet.topology.draft import draft
from vnet.topology.include import joined, parts
from vnet.topology.model import Topology
from vnet.topology.reading import Reading
from vnet.topology.shape import Entry
from vnet.topology.yaml import parse

STDIN = Path("-")
FOLDER = "PWD"
"""Of the environment: the working directory, to which the names of files are relative."""


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


def load_text(
    text: str, file_name: str, env: Mapping[str, str], included: Mapping[str, str] | None = None
) -> Topology:
    """The topology that a text declares; `file_name` is what positions name.

    Args:
        env: the values of `${VAR}`.
        included: the texts of the files that it includes, by path (`vnet.topology.include.gather`).

    Raises: InputError with every fault found.
    """
    reading = Reading(file_name, {**(included or {}), file_name: text}, env)
    several = parts(file_name, reading, lambda file: _read(file, reading.of(file)))
    root = joined(several, reading)
    if several:
        if not root.given(lang.NAME):
            reading.fault(Location(file_name, 1, 1), "name", f'a topology needs "name": {lang.NAME.doc}')
        whole = draft(root)
        check(whole, reading)
    if reading.faults:
        raise InputError(reading.faults)
    return build(whole, file_name, env.get(FOLDER, ""), reading.texts)


def _read(file: str, reading: Reading) -> Entry | None:
    document = parse(reading.texts[file])
    for problem in document.problems:
        where = Location(file, problem.line, problem.column)
        reading.fault(where, problem.path, problem.text, problem.hint)
    if document.root is not None:
        return lang.TOPOLOGY.read(document.root, "", reading).value
    if not document.problems:
        reading.fault(Location(file, 1, 1), "yaml", "the file is empty", 'it needs at least "name"')
    return None


def _not_utf8(path: Path, data: bytes, error: UnicodeDecodeError) -> Fault:
    before = data[: error.start]
    line = before.count(b"\n") + 1
    column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8")) + 1
    problem = f"byte 0x{data[error.start]:02x} is not UTF-8"
    return Fault(Location(str(path), line, column), "yaml", problem, "save the file as UTF-8")
