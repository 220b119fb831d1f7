"""The pages hold what is true: generated parts, examples, links, commands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from vnet.fabric.cable import Presence
from vnet.hv.spec import GuestState
from vnet.policy.compile import compile
from vnet.policy.verify import verify
from vnet.topology.inventory import expand
from vnet.topology.load import load_text

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def test_generated_parts_are_what_the_code_makes() -> None:
    done = subprocess.run(
        [sys.executable, "tools/docs.py", "--check"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_example_of_the_readme_is_a_topology_whose_claims_hold() -> None:
    example = re.search(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert example
    topology = load_text(example[1], "README.md", {})
    inventory = expand(topology, {})
    results = verify(topology, inventory, compile(topology, inventory).flows)
    assert results
    assert [str(result) for result in results if not result.holds] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


def test_the_states_that_ps_tells_are_named() -> None:
    lines = (ROOT / "docs/manual/cli.md").read_text(encoding="utf-8").splitlines()
    row = next(line for line in lines if line.startswith("| `state` | `ready`"))
    assert [each.value for each in (*GuestState, *Presence) if f"`{each.value}`" not in row] == []


def test_files_that_the_architecture_names_exist() -> None:
    text = (ROOT / "docs/ARCHITECTURE.md").read_text(encoding="utf-8")
    named = set(
        re.findall(r"`((?:topology|openflow|policy|switch|capture|fabric|hv)/[\w./]+\.(?:py|c|h))`", text)
    )
    assert len(named) >= 15
    assert [name for name in sorted(named) if not (ROOT / "vnet" / name).exists()] == []


def test_every_decision_is_in_their_index() -> None:
    folder = ROOT / "docs/decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in sorted(folder.glob("0*.md")) if page.name not in index] == []
