"""`vnet import compose` and its like, as a user calls them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from vnet.cli.app import app
from vnet.topology.load import load_text

IMPORTS = Path(__file__).resolve().parents[2] / "golden/imports"
SHOP, LAB = IMPORTS / "compose-shop.compose.yaml", IMPORTS / "containerlab-frr.clab.yaml"


@pytest.mark.parametrize("words", [("compose", SHOP), ("containerlab", LAB)])
def test_what_is_printed_is_a_topology_and_what_is_left_out_is_told(words: tuple[str, Path]) -> None:
    done = CliRunner().invoke(app, ["import", words[0], str(words[1]), "-n", "lab"])
    assert done.exit_code == 0, done.output
    assert load_text(done.stdout, "out", {}).name == "lab"
    assert "see x-left-out" in done.stderr


def test_a_compose_file_may_come_from_standard_input() -> None:
    done = CliRunner().invoke(app, ["import", "compose", "-", "-q"], input=SHOP.read_text(encoding="utf-8"))
    assert (done.exit_code, done.stderr) == (0, "")
    assert "(stdin):" in yaml.safe_load(done.stdout)["vms"]["web"]["x-source"]


def test_variables_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAG", "9")
    text = "services: {a: {image: 'x:$TAG'}, b: {image: '${TAG?no}-${NONE-d}'}}"
    done = CliRunner().invoke(app, ["import", "compose", "-"], input=text)
    vms = yaml.safe_load(done.stdout)["vms"]
    assert (vms["a"]["x-image"], vms["b"]["x-image"]) == ("x:9", "9-d")


@pytest.mark.parametrize(
    ("words", "given", "code", "said"),
    [
        (["compose", "/nowhere"], "", 1, "cannot read /nowhere"),
        (["compose", "-", "-f", "x.yaml"], "", 2, "given without -f"),
        (["compose", "-", "-n", "No"], "services: {}", 2, "lowercase"),
        (["containerlab", "-"], "topology: {nodes: [a]}", 1, "expected a map, found a list"),
        (["compose", "-"], "services: {a: {ports: ['80:80', '80:81']}}", 1, "80"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_words(
    words: list[str], given: str, code: int, said: str
) -> None:
    done = CliRunner().invoke(app, ["import", *words], input=given)
    assert (done.exit_code, done.stdout) == (code, "")
    assert said in done.stderr
