"""Boots a guest with another kernel and has `tests.vm.kernel_inside` tried in it.

By hand: `python -m tests.vm.kernel_lab 6.1`. Without a kernel it makes the guests and no more.
"""

from __future__ import annotations

import functools
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.guests import boot, image

ROOT = Path(__file__).resolve().parents[2]
RECIPE = image.Recipe(
    name="kernels",
    command="tests.vm.kernel_inside",
    modules=("veth", "tun", "cls_bpf", "sch_ingress", "ip_gre", "ip6_gre", "sch_tbf", "sch_netem"),
    host_programs=("/usr/sbin/ip", "/usr/sbin/tc"),
)
MACHINE = boot.Machine(options="-cpu max,-cx16 -smp 1", memory_mib=1024)
"""Without cmpxchg16b, because emulated 6.12 dies of it (`tests/perf/guest.py`)."""
STAGED = (
    *("tests/__init__.py", "tests/waiting.py", "tests/vm/__init__.py"),
    *("tests/vm/kernel_inside.py", "tests/vm/erspan_inside.py"),
    *("tests/bpf/__init__.py", "tests/bpf/verifier.py"),
    *("tests/perf/__init__.py", "tests/perf/inside/__init__.py", "tests/perf/inside/frames.py"),
    *("build/bpf/switch.bpf.o", "build/bpf/trace.bpf.o"),
)
LIMIT_S = 420.0


@dataclass(frozen=True, slots=True)
class Told:
    """What the guest said, and what else it printed."""

    facts: tuple[dict[str, Any], ...]
    console: str

    def all(self, name: str) -> list[Any]:
        """What was said by that name."""
        return [said[name] for said in self.facts if name in said]


@functools.cache
def trial(kernel: str) -> Told:
    """Everything tried under the kernel of a series, once."""
    with tempfile.TemporaryDirectory(prefix="vnet-kernels-") as name:
        facts = tuple(sayings(kernel, Path(name)))
        return Told(facts, Path(name, "console.log").read_text())


def sayings(kernel: str, folder: Path) -> Iterator[dict[str, Any]]:
    """What the guest says, as it comes."""
    return boot.run(image.ensure(RECIPE, image.SUITES[kernel]), MACHINE, tree(), folder, LIMIT_S)


@functools.cache
def tree() -> bytes:
    """The archive of what is under test and what tests it."""
    with tempfile.TemporaryDirectory(prefix="vnet-kernels-") as name:
        folder = Path(name)
        shutil.copytree(ROOT / "vnet", folder / "vnet", ignore=shutil.ignore_patterns("__pycache__"))
        for path in STAGED:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, folder / path)
        image.compile_tree(folder)
        return image.archive(folder)


def main(arguments: Sequence[str]) -> int:
    """Make the images; then try under the kernels that are named, and print what the guests say."""
    suites = image.SUITES.values()
    if arguments == ["--made"]:
        return int(not all(image.place(RECIPE, suite).is_dir() for suite in suites))
    for suite in suites:
        image.ensure(RECIPE, suite)
    for kernel in arguments:
        with tempfile.TemporaryDirectory(prefix="vnet-kernels-") as name:
            for said in sayings(kernel, Path(name)):
                print(*(f"{key}: {value}" for key, value in said.items()), flush=True)
            print(Path(name, "console.log").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
