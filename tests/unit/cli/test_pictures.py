"""`vnet graph` and `vnet policy matrix` as a user meets them: files, forms, refusals."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vnet.base.errors import HostError
from vnet.cli.picture_files import put

ROOT = Path(__file__).resolve().parents[3]
TWO = """\
name: two
networks: {lan: {vlan: 1, subnets: 10.0.0.0/24}}
vms: {a: {networks: [lan]}, b: {networks: [lan]}}
policies: [{name: p, applied_to: vm:b, ingress: [{from: vm:a, ports: [22/tcp]}]}]
"""
needs_renderer = pytest.mark.skipif(not shutil.which("rsvg-convert"), reason="needs rsvg-convert")


@pytest.fixture
def vnet(tmp_path):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("VNET_")}
    environment |= {"VNET_RUN_DIR": str(tmp_path / "run"), "VNET_STATE_DIR": str(tmp_path / "state")}
    environment["PYTHONPATH"] = str(ROOT)
    (tmp_path / "two.vnet.yaml").write_text(TWO)

    def run(*words, **extra):
        command = [sys.executable, "-m", "vnet", *words]
        return subprocess.run(
            command, capture_output=True, env=environment | extra, cwd=tmp_path, check=False, timeout=60
        )

    return run


@pytest.mark.parametrize(
    ("name", "beginning"),
    [
        ("two.svg", b"<svg "),
        ("two.html", b"<!DOCTYPE html>"),
        ("two.drawio", b"<mxfile "),
        ("two.mmd", b"flowchart LR"),
        ("two.gv", b"digraph vnet {"),
        ("two.dot", b"digraph vnet {"),
    ],
)
def test_the_form_of_a_graph_is_that_of_the_files_name(vnet, tmp_path, name, beginning):
    done = vnet("graph", "-w", name)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / name).read_bytes().startswith(beginning)
    assert b"22/tcp" in (tmp_path / name).read_bytes()


@pytest.mark.parametrize("name", ["m.svg", "m.html", "m.csv", "m.txt"])
def test_the_form_of_a_heat_map_is_that_of_the_files_name(vnet, tmp_path, name):
    assert vnet("policy", "matrix", "-w", name).returncode == 0
    assert b"22/tcp" in (tmp_path / name).read_bytes()


def test_without_a_file_a_graph_is_svg_on_standard_output(vnet):
    assert vnet("graph").stdout == vnet("graph", "-w", "-", "--format", "svg").stdout
    assert vnet("graph").stdout.startswith(b"<svg ")


@needs_renderer
@pytest.mark.parametrize("words", [("graph",), ("policy", "matrix")])
def test_a_png_has_two_pixels_for_one_of_the_svg(vnet, tmp_path, words):
    assert vnet(*words, "-w", "two.png").returncode == 0
    svg = vnet(*words, "--format", "svg").stdout.decode()
    width = int(svg.split(' width="')[1].split('"')[0])
    data = (tmp_path / "two.png").read_bytes()
    assert data.startswith(b"\x89PNG") and struct.unpack(">I", data[16:20]) == (2 * width,)


@needs_renderer
def test_the_same_topology_gives_the_same_png(vnet, tmp_path):
    for name in ("one.png", "two.png"):
        vnet("graph", "-w", name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_a_png_without_the_tool_for_it_says_what_to_install(vnet, tmp_path):
    done = vnet("graph", "-w", "two.png", PATH="/nowhere")
    assert done.returncode == 1 and b"apt-get install librsvg2-bin" in done.stderr
    assert not (tmp_path / "two.png").exists()


def test_an_unknown_ending_is_refused_with_those_there_are(vnet, tmp_path):
    done = vnet("graph", "-w", "two.jpg")
    assert done.returncode == 2 and b"one of svg, png, mermaid, dot, drawio, html" in done.stderr
    assert vnet("graph", "-w", "two.jpg", "--format", "svg").returncode == 0


def test_a_file_that_cannot_be_written_is_an_error_in_words(vnet):
    done = vnet("graph", "-w", "nowhere/two.svg")
    assert (done.returncode, done.stderr) == (
        1,
        b"vnet: cannot write nowhere/two.svg: No such file or directory\n",
    )


def test_a_file_and_a_fabric_that_is_up_are_not_drawn_at_once(vnet):
    done = vnet("graph", "-f", "two.vnet.yaml", "-n", "two")
    assert done.returncode == 2 and b"give one of them" in done.stderr


def test_the_heat_map_has_no_colours_where_nobody_sees_them(vnet):
    done = vnet("policy", "matrix")
    assert done.returncode == 0 and b"\x1b" not in done.stdout
    assert "rows may open connections to columns" in done.stdout.decode()


def test_a_matrix_for_programs_is_a_list_of_pairs(vnet):
    rows = json.loads(vnet("policy", "matrix", "-o", "json").stdout)
    assert rows == [{"from": "a", "to": "b", "network": "lan", "ports": "22/tcp"}]
    assert vnet("policy", "matrix", "--all").stdout.decode().splitlines()[0].split() == [
        "FROM",
        "TO",
        "PORTS",
    ]


def test_what_is_no_file_is_written_into_and_stays_what_it_is(tmp_path):
    pipe, told = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: told.append(pipe.read_bytes()), daemon=True)
    reader.start()
    put(str(pipe), b"picture")
    reader.join(5)
    assert pipe.is_fifo()
    assert told == [b"picture"]
    with pytest.raises(HostError, match="No space left"):
        put("/dev/full", b"picture")
    assert Path("/dev/full").is_char_device()


def test_a_link_leads_to_the_file_that_is_replaced_and_nothing_beside_it_is_touched(tmp_path):
    link, beside = tmp_path / "link.svg", tmp_path / "a.svg.new"
    link.symlink_to(tmp_path / "a.svg")
    beside.write_text("somebody's")
    for data in (b"one", b"two"):
        put(str(link), data)
        assert link.is_symlink()
        assert (tmp_path / "a.svg").read_bytes() == data
    assert beside.read_text() == "somebody's"
    assert len(list(tmp_path.iterdir())) == 3
