"""`vnet clone` of a VM whose disks are not those that the file declares."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.unit.fabric.fakes import World, make_engine
from vnet.base.errors import InputError
from vnet.cli import clone_command
from vnet.cli.client import Client
from vnet.cli.options import Settings
from vnet.fabric.live import attaching, cloning
from vnet.fabric.live.cloning import Wanted
from vnet.fabric.live.engine import Engine
from vnet.fabric.progress import silent
from vnet.fabric.store import Source

LAB = """\
name: lab
defaults: {image: micro, cpus: 1, memory: 96M}
networks: {lan: {vlan: 10, subnets: 10.0.0.0/24}}
vms:
  al: {networks: [lan], disks: [{name: d, size: 20M}]}
  no: {networks: [lan]}
"""


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("VNET_STATE_DIR", str(tmp_path / "state"))
    made = make_engine(World(), tmp_path)
    asyncio.run(made.up(Source("lab.vnet.yaml", LAB), silent))
    yield made
    asyncio.run(made.close())


def clone(engine: Engine, vm: str, *disks: str) -> Any:
    asyncio.run(engine.stop("lab", vm, 1.0, silent))
    return asyncio.run(cloning.clone(engine, "lab", vm, Wanted("new", disks=disks), silent))


@pytest.mark.parametrize(
    ("vm", "what", "attach", "declared", "told"),
    [
        ("al", "d", False, ["d"], "the file: d; in force: none"),
        ("no", "zz:20M", True, [], "the file: none; in force: zz"),
    ],
)
def test_disks_that_the_file_does_not_say_are_refused(
    engine: Engine, vm: str, what: str, attach: bool, declared: list[str], told: str
) -> None:
    assert clone(engine, vm, *declared)["vm"] == "new"
    asyncio.run(attaching.change(engine, "lab", vm, what, attach=attach, report=silent))
    with pytest.raises(InputError, match=told):
        clone(engine, vm, *declared)


def test_the_command_says_which_disks_the_copy_is_declared_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def run(client: Client, method: str, path: str, body: Any, report: Any) -> Any:
        asked.append(body)
        return {"disks": [], "linked": []}

    monkeypatch.setattr(Settings, "daemon", lambda settings: Client())
    monkeypatch.setattr(Client, "run", run)
    file = tmp_path / "lab.vnet.yaml"
    file.write_text(LAB)
    clone_command.clone(Settings(file=(str(file),)), "al", "new")
    assert asked == [{"name": "new", "linked": False, "disks": ["d"]}]
