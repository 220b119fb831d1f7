"""Which file a command is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from vnet.base.errors import InputError, UsageError, VnetError
from vnet.topology import discover


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text("name: lab\n")


def test_the_option_wins_over_the_variable_and_the_directory(tmp_path: Path) -> None:
    touch(tmp_path, "a.yaml", "b.yaml", "vnet.yaml")
    assert discover(["a.yaml"], {"VNET_FILE": "b.yaml"}, tmp_path) == Path("a.yaml")
    assert discover([], {"VNET_FILE": "b.yaml"}, tmp_path) == Path("b.yaml")
    assert discover([], {"VNET_FILE": ""}, tmp_path) == Path("vnet.yaml")


def test_the_only_candidate_of_the_directory_is_found(tmp_path: Path) -> None:
    touch(tmp_path, "lab.vnet.yaml", "other.yaml")
    assert discover([], {}, tmp_path) == Path("lab.vnet.yaml")


def test_a_dash_is_standard_input(tmp_path: Path) -> None:
    assert discover(["-"], {}, tmp_path) == Path("-")


@pytest.mark.parametrize(
    ("files", "paths", "env", "kind", "words"),
    [
        ([], [], {}, UsageError, "no topology file"),
        (["lab.vnet.yml"], [], {}, UsageError, "rename it to end in .yaml"),
        (["a.vnet.yaml", "vnet.yaml"], [], {}, UsageError, "a.vnet.yaml, vnet.yaml; choose one with -f"),
        ([], ["none.yaml"], {}, InputError, r"there is no file none.yaml \(-f\)"),
        ([], [], {"VNET_FILE": "none.yaml"}, InputError, r"there is no file none.yaml \(\$VNET_FILE\)"),
        (["a.yaml", "b.yaml"], ["a.yaml", "b.yaml"], {}, UsageError, "not supported yet"),
        (["vnet.yaml"], ["."], {}, InputError, "is a directory, .* did you mean vnet.yaml"),
        ([], [""], {}, UsageError, "names no file"),
    ],
)
def test_an_unclear_choice_is_explained(
    tmp_path: Path, files: list[str], paths: list[str], env: dict[str, str], kind: type[VnetError], words: str
) -> None:
    touch(tmp_path, *files)
    with pytest.raises(kind, match=words):
        discover(paths, env, tmp_path)
