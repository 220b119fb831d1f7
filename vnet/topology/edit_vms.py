"""A VM put into the text of a topology file, as another one is declared there; all else stays as it is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from vnet.topology.edit import CannotEdit, Node, tree

Left = Mapping[str, "Left"]
"""What is left out of a map: its key with {} as a whole, otherwise what is left out further in."""
OWN: Left = {"replicas": {}, "ports": {}, "interfaces": {"*": {"addresses": {}, "mac": {}}}}
"""What belongs to one VM alone, by where it stands: a copy gets its own, and publishes nothing."""


def with_vm(text: str, like: str, new: str) -> str:
    """The text in which `new` is declared as `like` is, but for what is its own.

    Raises:
        CannotEdit: what it is declared by is shared with others by an anchor or an alias, or is not there.
    """
    bom = text[: len(text) - len(text.removeprefix("\ufeff"))]
    text = text.removeprefix("\ufeff")
    vms = tree(text).get("vms")
    value = vms.get(like) if vms else None
    if vms is None or value is None or vms.is_shared:
        raise CannotEdit(f"there is no VM {like} in `vms` of this file")
    written = f"{new}: {_flow(text, value, OWN)}"
    if vms.is_flow:
        at = vms.items[-1].end
        return f"{bom}{text[:at]}, {written}{text[at:]}"
    at = _below(text, value)
    indent = " " * (vms.column - 1)
    gap = "" if at == 0 or text[at - 1] == "\n" else "\n"
    return f"{bom}{text[:at]}{gap}{indent}{written}\n{text[at:]}"


def _below(text: str, value: Node) -> int:
    """Where the line begins that follows a value."""
    if text[value.end - 1 : value.end] == "\n":
        return value.end
    found = text.find("\n", value.end)
    return len(text) if found < 0 else found + 1


def _flow(text: str, node: Node, left: Left) -> str:
    """A value on one line."""
    if node.is_shared:
        raise CannotEdit("its declaration uses anchors or aliases")
    first = text[node.start : node.start + 1]
    if node.items and (first == "[" or (first == "-" and not node.is_flow)):
        return f"[{', '.join(_flow(text, each, {}) for each in node.items)}]"
    if node.items:
        return "{" + ", ".join(_pairs(text, node, left)) + "}"
    if node.is_flow and first in ("[", "{"):
        return f"{first}{']' if first == '[' else '}'}"
    return _scalar(text, node)


def _pairs(text: str, node: Node, left: Left) -> Iterator[str]:
    for key, value in zip(node.items[::2], node.items[1::2], strict=True):
        inner = left.get(key.text, left.get("*"))
        if inner is None or inner:
            yield f"{_scalar(text, key)}: {_flow(text, value, inner or {})}"


def _scalar(text: str, node: Node) -> str:
    """As it is written, unless that would mean something else within brackets."""
    written = text[node.start : node.end]
    if written[:1] in "\"'":
        return json.dumps(node.text) if "\n" in written else written
    if written[:1] in "|>" or set(written) & set(",[]{}#\n"):
        return json.dumps(node.text)
    return written
