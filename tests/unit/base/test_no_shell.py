"""No command of vnet's goes through a shell: nothing that a file or a guest says becomes a word of one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

VNET = Path(__file__).parents[3] / "vnet"
SHELLS = {"system", "popen", "getoutput", "getstatusoutput", "create_subprocess_shell"}


def shells(tree: ast.AST) -> Iterator[int]:
    """The lines of calls that begin a shell on this host."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            owner = getattr(getattr(node.func, "value", None), "id", "")
            by_name = name in SHELLS and owner in ("os", "subprocess", "asyncio", "")
            told = any(each.arg == "shell" and not _is_false(each.value) for each in node.keywords)
            if by_name or told:
                yield node.lineno


def _is_false(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is False


def test_no_command_goes_through_a_shell() -> None:
    found = [
        f"{path}:{line}" for path in VNET.rglob("*.py") for line in shells(ast.parse(path.read_text("utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize("text", ["os.system('x')", "subprocess.run('x', shell=True)", "run('x', shell=how)"])
def test_a_shell_would_be_found(text: str) -> None:
    assert list(shells(ast.parse(text))) == [1]
