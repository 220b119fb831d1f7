"""The example topologies as pictures. `GOLDEN=rewrite` writes them anew: look at them, review the diff."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vnet.picture.dot import dot
from vnet.picture.drawio import drawio
from vnet.picture.layout import layout
from vnet.picture.mermaid import mermaid
from vnet.picture.scene import Scene, Wanted, scene
from vnet.picture.svg import svg
from vnet.policy.compile import compile
from vnet.topology.inventory import expand
from vnet.topology.load import load_text

FOLDER = Path(__file__).parent / "picture"
EXAMPLES = Path(__file__).parents[2] / "topologies"
FORMS: dict[str, Callable[[Scene], str]] = {
    "svg": lambda drawn: svg(layout(drawn)),
    "drawio": lambda drawn: drawio(layout(drawn)),
    "mmd": mermaid,
    "gv": dot,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["flat", "three-tier", "dmz-bastion", "shop"])
def test_an_example_becomes_the_expected_picture(name: str, form: str) -> None:
    text = (EXAMPLES / f"{name}.vnet.yaml").read_text(encoding="utf-8")
    topology = load_text(text, f"{name}.vnet.yaml", {})
    inventory = expand(topology, {})
    drawn = FORMS[form](scene(topology, inventory, compile(topology, inventory), Wanted()))
    expected = FOLDER / f"{name}.{form}"
    if os.environ.get("GOLDEN") == "rewrite":
        expected.write_text(drawn, encoding="utf-8")
    assert drawn == expected.read_text(encoding="utf-8")
