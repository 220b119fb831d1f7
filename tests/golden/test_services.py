"""What dnsmasq is told for each network of a topology: `services/NAME.vnet.yaml` and `NAME.txt`.

`GOLDEN=rewrite` writes the expected texts anew; review the difference.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from vnet.services.dhcp import Files, files
from vnet.topology.inventory import expand
from vnet.topology.load import load_text, read_text

FOLDER = Path(__file__).parent / "services"
CASES = sorted(path.name.removesuffix(".vnet.yaml") for path in FOLDER.glob("*.yaml"))


def told(case: str) -> dict[str, Files]:
    path = FOLDER / f"{case}.vnet.yaml"
    topology = load_text(read_text(path), path.name, {})
    inventory = expand(topology, {})
    return {each.network: files(topology, inventory, each) for each in inventory.services}


def written(found: dict[str, Files]) -> str:
    parts = []
    for network, of in found.items():
        parts += [f"== {network}: dnsmasq.conf\n{of.config}", f"== {network}: hosts\n{of.hosts}"]
        parts.append(f"== {network}: names\n{of.names}")
    return "\n".join(parts)


@pytest.mark.parametrize("case", CASES)
def test_dnsmasq_is_told_the_expected(case: str) -> None:
    expected = FOLDER / f"{case}.txt"
    found = written(told(case))
    if os.environ.get("GOLDEN") == "rewrite":
        expected.write_text(found, encoding="utf-8")
    assert found == expected.read_text(encoding="utf-8")


@pytest.mark.parametrize("case", CASES)
def test_dnsmasq_understands_it(case: str, tmp_path: Path) -> None:
    dnsmasq = shutil.which("dnsmasq", path=f"{os.environ['PATH']}:/usr/sbin")
    assert dnsmasq, "apt install dnsmasq-base"
    for of in told(case).values():
        config = tmp_path / "dnsmasq.conf"
        config.write_text(of.config, encoding="utf-8")
        done = subprocess.run(
            [dnsmasq, "--test", f"--conf-file={config}"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
