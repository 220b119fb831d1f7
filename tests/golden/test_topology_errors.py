"""Bad topologies and what is said about them: `topology_errors/NAME.yaml` and `NAME.txt`.

`GOLDEN=rewrite` writes the expected texts anew; review the difference.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vnet.base.errors import InputError
from vnet.topology.inventory import expand
from vnet.topology.load import load_text, read_text

FOLDER = Path(__file__).parent / "topology_errors"
CASES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
ENV = {"EMPTY": "", "WORD": "many"}


def complaint(path: Path) -> str:
    """What the user reads, with the file's bare name."""
    with pytest.raises(InputError) as raised:
        expand(load_text(read_text(path), path.name, ENV), {})
    return f"{raised.value}\n"


@pytest.mark.parametrize("case", CASES)
def test_bad_topology_is_refused_with_the_expected_words(case: str) -> None:
    expected = FOLDER / f"{case}.txt"
    found = complaint(FOLDER / f"{case}.yaml")
    if os.environ.get("GOLDEN") == "rewrite":
        expected.write_text(found, encoding="utf-8")
    assert found == expected.read_text(encoding="utf-8")


@pytest.mark.parametrize("case", CASES)
def test_every_fault_names_a_position_inside_its_file(case: str) -> None:
    path = FOLDER / f"{case}.yaml"
    text = read_text(path)
    with pytest.raises(InputError) as raised:
        expand(load_text(text, path.name, ENV), {})
    lines = text.splitlines() or [""]
    for fault in raised.value.faults:
        assert fault.where.file == path.name
        assert 1 <= fault.where.line <= len(lines) + 1
        assert fault.where.column >= 1
        assert fault.path and fault.problem


def test_every_expected_text_has_its_topology() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.txt")) == CASES
