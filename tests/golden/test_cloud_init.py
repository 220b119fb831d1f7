"""What guests of distributions are told: `cloud_init/NAME.vnet.yaml` and `NAME.txt`.

`GOLDEN=rewrite` writes the expected texts anew; review the difference.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vnet.fabric.guest_changes import spec_of
from vnet.fabric.state import guest_of
from vnet.hv.cloud_init import seed_files
from vnet.topology.include import gather
from vnet.topology.inventory import expand
from vnet.topology.load import load_text, read_text

FOLDER = Path(__file__).parent / "cloud_init"
CASES = sorted(path.name.removesuffix(".vnet.yaml") for path in FOLDER.glob("*.yaml"))
BESIDE = {
    "keys.pub": "# ours\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA ada\n\nssh-rsa AAAAB3NzaC1yc2EAAAADAQ bob\n",
    "setup.sh": "#!/bin/sh\necho $HOME >/etc/ünïcode\n",
}


def told(case: str) -> str:
    path = FOLDER / f"{case}.vnet.yaml"
    text = read_text(path)
    topology = load_text(text, path.name, {}, gather(path.name, text, BESIDE.get))
    parts = []
    for vm in expand(topology, {}).vms:
        spec = spec_of("shop", guest_of(vm))
        files = seed_files(spec, vm.boot.cloud_init) if vm.boot.has_seed(False) else {}
        parts += [f"== {vm.name}: {name}\n{data.decode()}" for name, data in files.items()]
        parts += [] if files else [f"== {vm.name}: nothing\n"]
    return "\n".join(parts)


@pytest.mark.parametrize("case", CASES)
def test_guests_are_told_the_expected(case: str) -> None:
    expected = FOLDER / f"{case}.txt"
    found = told(case)
    if os.environ.get("GOLDEN") == "rewrite":
        expected.write_text(found, encoding="utf-8")
    assert found == expected.read_text(encoding="utf-8")
