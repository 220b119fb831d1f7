"""What reading a file needs besides the tree: its text for excerpts, its variables, the faults so far."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

from vnet.base.errors import Fault
from vnet.base.source import Location
from vnet.topology.yaml import ListNode, MapNode, Node, Scalar, resolve

_SHOWN = 60
"""At most so many characters of a wrong value are repeated in a message."""


class Reading:
    """One file being read, `file`, of those known by `texts`.

    Faults of all of them are collected, never raised, so that all are reported at once. Without `env`
    the language read has no variables, and a dollar sign is one.
    """

    def __init__(self, file: str, texts: Mapping[str, str], env: Mapping[str, str] | None) -> None:
        self.file = file
        self.texts = texts
        self._env = env
        self._faults: dict[tuple[Location, str], Fault] = {}
        self._lines: dict[str, list[str]] = {}

    def of(self, file: str) -> Reading:
        """Another of the files, its faults collected with these."""
        other = Reading(file, self.texts, self._env)
        other._faults, other._lines = self._faults, self._lines
        return other

    @property
    def faults(self) -> tuple[Fault, ...]:
        return tuple(self._faults.values())

    def at(self, node: Node, offset: int = 0) -> Location:
        """Where a value stands; with `offset`, where that character of its text stands."""
        if offset and isinstance(node, Scalar) and node.inline:
            return Location(self.file, node.line, node.inline + offset)
        return Location(self.file, node.line, node.column)

    def fault(self, where: Location, path: str, problem: str, hint: str = "") -> None:
        """Adds a fault; the same problem of the same value (seen through an alias) counts once."""
        fault = Fault(where, path or "yaml", problem, hint, self._excerpt(where))
        self._faults.setdefault((where, problem), fault)

    def substituted(self, node: Scalar, path: str) -> Scalar | None:
        """The scalar with its `${VAR}` replaced and read anew; None if that failed, with a fault."""
        if self._env is None or "$" not in node.text:
            return node
        try:
            text = _VARIABLE.sub(lambda match: self._value_of(match), node.text)
        except _Unset as unset:
            self.fault(self.at(node, unset.offset), path, str(unset), unset.hint)
            return None
        value = resolve(text) if text and text != node.text else text
        return Scalar(value, text, node.line, node.column)

    def _value_of(self, match: re.Match[str]) -> str:
        if match.group() == "$$":
            return "$"
        name, operator, operand = match.group("name", "operator", "operand")
        if name is None:
            forms = "write ${NAME}, ${NAME:-default} or ${NAME:?message}, and $$ for a dollar sign"
            raise _Unset(match.start(), f'"{match.group()}" is no variable', forms)
        value = (self._env or {}).get(name)
        if value or (value is not None and operator is None):
            return value
        if operator == ":-":
            return str(operand)
        problem = f"the environment variable {name} is {'not set' if value is None else 'empty'}"
        if operand:
            raise _Unset(match.start(), f"{problem}: {operand}", "")
        raise _Unset(match.start(), problem, f"set it, or give a default: ${{{name}:-...}}")

    def _excerpt(self, where: Location) -> str:
        if where.file not in self._lines:
            self._lines[where.file] = self.texts.get(where.file, "").removeprefix("\ufeff").splitlines()
        lines = self._lines[where.file]
        if not 0 < where.line <= len(lines):
            return ""
        # One character for one character, so that the caret stays under its column.
        return "".join(c if c.isprintable() else " " for c in lines[where.line - 1]).rstrip()


_VARIABLE = re.compile(
    r"\$\$|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<operator>:-|:\?)(?P<operand>[^{}]*))?\}"
    r"|\$\{[^}]*\}?|\$[A-Za-z_][A-Za-z0-9_]*"
)


class _Unset(Exception):
    def __init__(self, offset: int, problem: str, hint: str) -> None:
        super().__init__(problem)
        self.offset = offset
        self.hint = hint


def variables_in(text: str) -> frozenset[str]:
    """Names of the environment variables that a file mentions (also in comments): those to pass on."""
    return frozenset(match["name"] for match in _VARIABLE.finditer(text) if match["name"])


def shown(node: Node) -> str:
    """A value as messages repeat it: `"text"`, `12`, `a list`."""
    match node:
        case ListNode():
            return "a list"
        case MapNode():
            return "a map"
        case Scalar(value=None):
            return "nothing"
        case Scalar(value=str(), text=text):
            return quoted(text)
        case _:
            return node.text


def quoted(text: str) -> str:
    """Text in quotes, shortened, on one line."""
    flat = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return f'"{flat}"' if len(flat) <= _SHOWN else f'"{flat[: _SHOWN - 3]}..."'


def suggestion(word: str, candidates: Iterable[str]) -> str:
    """`did you mean "networks"?` for a near miss, else a short list of what there is, else nothing."""
    known = sorted(candidates)
    # In words of one or two letters everything is near everything.
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6) if len(word) > 2 else []
    if near:
        return f'did you mean "{near[0]}"?'
    listed = ", ".join(known)
    return f"known: {listed}" if known and len(listed) <= 100 else ""
