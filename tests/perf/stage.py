"""The tree that goes into the guest: the product under test from any checkout, the bench from this one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.guests import image

HERE = Path(__file__).resolve().parent
HARNESS = "tests/perf/harness.bpf.o"


def stage(tree: Path, rows: Sequence[int], counts: Sequence[int], folder: Path) -> None:
    """Lay out `folder`. `tree` is the checkout under test, `counts` the numbers of rules of row 3."""
    for left in folder.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(tree / "vnet", folder / "vnet", ignore=unwanted)
    shutil.copytree(HERE, folder / "tests" / "perf", ignore=unwanted)
    (folder / "tests" / "__init__.py").touch()
    (folder / "build" / "bpf").mkdir(parents=True)
    _run("make", "-s", "-C", str(tree), "bpf")
    for built in (tree / "build" / "bpf").glob("*.o"):
        shutil.copy(built, folder / "build" / "bpf")
    _compile(HERE / "bpf" / "harness.bpf.c", folder / HARNESS)
    _run("cc", "-O2", "-Wall", "-Werror", "-o", str(folder / "tests/perf/rr"), str(HERE / "c" / "rr.c"))
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    numbers = (",".join(map(str, given)) for given in (rows, counts or (0,)))
    command = (sys.executable, "-m", "tests.perf.orders", *numbers, "orders.pickle")
    _run(*command, cwd=folder, env=environment)
    image.compile_tree(folder)


def _compile(source: Path, target: Path) -> None:
    include = f"-I/usr/include/{os.uname().machine}-linux-gnu"
    flags = ("-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-mcpu=v3", include)
    _run(os.environ.get("CLANG", "clang"), *flags, "-c", str(source), "-o", str(target))


def _run(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}{done.stdout}")
