"""`vnet import compose` and its like, as a user calls them."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from vnet.cli.app import app
from vnet.topology.load import load_file, load_text

IMPORTS = Path(__file__).resolve().parents[2] / "golden/imports"
DOMAIN = IMPORTS / "libvirt-debian.xml"
SHOP, LAB = IMPORTS / "compose-shop.compose.yaml", IMPORTS / "containerlab-frr.clab.yaml"


@pytest.mark.parametrize("words", [("compose", SHOP), ("containerlab", LAB), ("libvirt", DOMAIN)])
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


def packed(path: Path) -> Path:
    """An OVA as VirtualBox writes it, with a disk of 64 MiB."""
    raw, vmdk = path.with_suffix(".raw"), path.with_suffix(".vmdk")
    with raw.open("wb") as file:
        file.write(bytes(510) + b"\x55\xaa")
        file.truncate(64 << 20)
    stream = ["-O", "vmdk", "-o", "subformat=streamOptimized"]
    subprocess.run(["qemu-img", "convert", "-f", "raw", *stream, str(raw), str(vmdk)], check=True)
    with tarfile.open(path, "w") as archive:
        archive.add(IMPORTS / "ovf-virtualbox.ovf", "debian.ovf")
        archive.add(vmdk, "Debian 12-disk001.vmdk")
    return path


def test_an_ova_is_printed_or_taken_apart_into_a_folder(tmp_path: Path) -> None:
    file, made = packed(tmp_path / "debian.ova"), tmp_path / "made"
    done = CliRunner().invoke(app, ["import", "ova", str(file)])
    assert done.exit_code == 0, done.stderr
    assert load_text(done.stdout, "out", {}).name == "debian-12"
    done = CliRunner().invoke(app, ["import", "ova", str(file), "--into", str(made), "-n", "lab"])
    assert (done.exit_code, done.stdout) == (0, ""), done.stderr
    assert "has no manifest: nothing was verified" in done.stderr
    assert sorted(each.name for each in made.iterdir()) == ["debian-12-root.qcow2", "lab.vnet.yaml"]
    image = load_file(made / "lab.vnet.yaml", {}).vms["debian-12"].boot.root
    assert image and image.file and image.file.path == str(made / "debian-12-root.qcow2")
    done = CliRunner().invoke(app, ["import", "ova", str(file), "--into", str(made)])
    assert done.exit_code == 1
    assert "is there already" in done.stderr
