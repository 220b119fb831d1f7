"""Files of others and the topologies that come of them: `imports/NAME` and `imports/NAME.expected`.

Those in `imports/bad` are refused; `NAME.expected` has the words. `GOLDEN=rewrite` writes what is expected
anew; review the difference.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from vnet.base.errors import InputError
from vnet.topology.foreign import compose, containerlab, libvirt, ovf
from vnet.topology.load import load_text

FOLDER = Path(__file__).parent / "imports"
SUFFIXES = (".compose.yaml", ".clab.yaml", ".xml", ".ovf")
GOOD = sorted(
    p.name for p in FOLDER.iterdir() if p.name.endswith(SUFFIXES) and not p.name.endswith(".net.xml")
)
BAD = sorted(p.name for p in (FOLDER / "bad").iterdir() if p.name.endswith(SUFFIXES))


def made(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.name.endswith(".compose.yaml"):
        document = compose.imported(path.name, text, {})
    elif path.name.endswith(".clab.yaml"):
        document = containerlab.imported(path.name, text, {})
    elif path.name.endswith(".ovf"):
        document = ovf.imported(path.name, text).document
    else:
        network = path.with_suffix(".net.xml")
        texts = {each.name: each.read_text(encoding="utf-8") for each in (path, network) if each.exists()}
        document = libvirt.imported(texts, path.stem)
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)


def matches(path: Path, found: str) -> None:
    expected = path.with_name(f"{path.name}.expected")
    if os.environ.get("GOLDEN") == "rewrite":
        expected.write_text(found, encoding="utf-8")
    assert found == expected.read_text(encoding="utf-8")


@pytest.mark.parametrize("case", GOOD)
def test_a_file_of_others_becomes_the_expected_topology(case: str) -> None:
    matches(FOLDER / case, made(FOLDER / case))


@pytest.mark.parametrize("case", GOOD)
def test_what_comes_of_it_is_a_topology(case: str) -> None:
    load_text(made(FOLDER / case), case, {})


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_read_is_refused_with_the_expected_words(case: str) -> None:
    with pytest.raises(InputError) as raised:
        made(FOLDER / "bad" / case)
    matches(FOLDER / "bad" / case, f"{raised.value}\n")
