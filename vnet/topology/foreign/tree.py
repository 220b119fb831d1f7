"""YAML of strangers, read by who knows which keys matter; what is of the wrong kind is a fault."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from vnet.base.errors import InputError
from vnet.base.source import Location
from vnet.topology.reading import Reading, shown
from vnet.topology.yaml import ListNode, MapNode, Node, Scalar, parse

_BARE = re.compile(r"\$\$|\$([A-Za-z_][A-Za-z0-9_]*)|\$\{([A-Za-z_][A-Za-z0-9_]*)([-?])")
"""Forms of variables that Compose has besides those of the language."""


class Tree:
    """A value and where it stands. What it is not, is told once, and read as if it were not there."""

    def __init__(self, node: Node, path: str, reading: Reading) -> None:
        self._node = node
        self.path = path
        self.reading = reading

    @classmethod
    def of(cls, file: str, text: str, env: Mapping[str, str] | None) -> Tree:
        """The map that a file holds. Raises InputError for what is no YAML, or no map."""
        reading = Reading(file, {file: text}, env)
        document = parse(text)
        for problem in document.problems:
            reading.fault(
                Location(file, problem.line, problem.column), problem.path, problem.text, problem.hint
            )
        if document.root is None and not reading.faults:
            reading.fault(Location(file, 1, 1), "yaml", "the file is empty")
        if document.root is not None and not isinstance(document.root, MapNode):
            reading.fault(Location(file, 1, 1), "yaml", f"expected a map, found {shown(document.root)}")
        if reading.faults or document.root is None:
            raise InputError(reading.faults)
        return cls(document.root, "", reading)

    @property
    def at(self) -> Location:
        return self.reading.at(self._node)

    @property
    def is_map(self) -> bool:
        return isinstance(self._node, MapNode)

    @property
    def is_list(self) -> bool:
        return isinstance(self._node, ListNode)

    @property
    def is_nothing(self) -> bool:
        return isinstance(self._node, Scalar) and self._node.value is None

    def fault(self, problem: str, hint: str = "") -> None:
        self.reading.fault(self.at, self.path, problem, hint)

    def entries(self) -> Iterator[tuple[str, Tree]]:
        """Of a map; none of nothing."""
        if isinstance(self._node, MapNode):
            for key, value in self._node.entries:
                yield key.text, Tree(value, f"{self.path}.{key.text}".lstrip("."), self.reading)
        elif not self.is_nothing:
            self.fault(f"expected a map, found {shown(self._node)}")

    def get(self, path: str) -> Tree | None:
        """What stands at keys such as `deploy.replicas`; None if there is nothing."""
        key, _, rest = path.partition(".")
        found = next((value for name, value in self.entries() if name == key), None)
        if found is None or found.is_nothing:
            return None
        return found.get(rest) if rest else found

    def items(self) -> Iterator[Tree]:
        """Of a list; a scalar is a list of one."""
        if isinstance(self._node, ListNode):
            for index, item in enumerate(self._node.items):
                yield Tree(item, f"{self.path}[{index}]", self.reading)
        elif isinstance(self._node, MapNode):
            self.fault("expected a list, found a map")
        elif not self.is_nothing:
            yield self

    def text(self) -> str:
        """A scalar with its variables replaced; empty if it is none."""
        if not isinstance(self._node, Scalar):
            self.fault(f"expected one value, found {shown(self._node)}")
            return ""
        node = self._node
        if "$" in node.text:
            node = replace(node, text=_BARE.sub(_usual, node.text))
        found = self.reading.substituted(node, self.path)
        return "" if found is None else found.text

    def is_true(self) -> bool:
        return self.text().lower() == "true"

    def number(self) -> float | None:
        """A number that is not negative; a fault for anything else."""
        text = self.text()
        if re.fullmatch(r"[0-9]+(\.[0-9]+)?|\.[0-9]+", text):
            return float(text)
        self.fault(f"expected a number, found {text!r}")
        return None

    def whole(self) -> int | None:
        found = self.number()
        if found is not None and not found.is_integer():
            self.fault(f"expected a whole number, found {found}")
            return None
        return None if found is None else int(found)

    def pairs(self) -> dict[str, str]:
        """A map of texts, or a list of KEY=VALUE."""
        if self.is_map:
            return {key: "" if value.is_nothing else value.text() for key, value in self.entries()}
        return dict(each.text().partition("=")[::2] for each in self.items())


def _usual(found: re.Match[str]) -> str:
    if found[1]:
        return f"${{{found[1]}}}"
    return f"${{{found[2]}:{found[3]}" if found[2] else "$$"


_SIZES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def size_bytes(tree: Tree) -> int | None:
    """An amount of memory as Docker has it: `512m`, `1.5gb`, `256MiB`."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([bkmgt]?)(i?b)?", tree.text().lower())
    if found is None:
        tree.fault(f"expected an amount of memory such as 512m, found {tree.text()!r}")
        return None
    return round(float(found[1]) * _SIZES[found[2]])


_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def span(tree: Tree) -> str | None:
    """A time of Go such as `1m30s` in the language's words."""
    text = tree.text()
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        tree.fault(f"expected a time such as 1m30s, found {text!r}")
        return None
    if len(parts) == 1 and parts[0][1] != "us":
        return text
    return f"{sum(float(number) * _SECONDS[unit] for number, unit in parts):g}s"
