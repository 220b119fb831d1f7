"""VMs in the text of a topology file: one put in as another is declared there, NICs and disks put in or out.

All else stays as it is. What is changed is the shortest piece of text that says it: an item of a list, a pair
of a map. Whoever uses the result reads it again and looks whether it says what was meant.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from vnet.topology.edit import CannotEdit, Node, tree

Left = Mapping[str, "Left"]
"""What is left out of a map: its key with {} as a whole, otherwise what is left out further in."""
OWN: Left = {"replicas": {}, "ports": {}, "interfaces": {"*": {"addresses": {}, "mac": {}}}}
"""What belongs to one VM alone, by where it stands: a copy gets its own, and publishes nothing."""

NETWORKS, INTERFACES, DISKS = "networks", "interfaces", "disks"


def with_vm(text: str, like: str, new: str) -> str:
    """The text in which `new` is declared as `like` is, but for what is its own.

    Raises:
        CannotEdit: what it is declared by is shared with others by an anchor or an alias, or is not there.
    """
    vms = tree(text).get("vms")
    value = vms.get(like) if vms else None
    if vms is None or value is None or vms.is_shared:
        raise CannotEdit(f"there is no VM {like} in `vms` of this file")
    written = f"{new}: {_flow(text, value, OWN)}"
    if vms.is_flow:
        at = vms.items[-1].end
        return f"{text[:at]}, {written}{text[at:]}"
    at = _below(text, value)
    indent = " " * (vms.column - 1)
    gap = "" if at == 0 or text[at - 1] == "\n" else "\n"
    return f"{text[:at]}{gap}{indent}{written}\n{text[at:]}"


def _below(text: str, value: Node) -> int:
    """Where the line begins that follows a value."""
    if text[value.end - 1 : value.end] == "\n":
        return value.end
    return min(_line_end(text, value.end) + 1, len(text))


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


# -- NICs and disks ---------------------------------------------------------------------------------


def declares(text: str, vm: str) -> bool:
    """Whether a file declares that VM."""
    vms = tree(text).get("vms")
    return vms is not None and vms.get(vm) is not None


def with_network(text: str, vm: str, network: str, interface: str) -> str:
    """A NIC more in that network; `interface` is its name where NICs have names. Raises CannotEdit."""
    where = _vm(text, vm)
    nics, networks = where.get(INTERFACES), where.get(NETWORKS)
    if nics is not None:
        return _add_pair(text, nics, f"{interface}: {{network: {network}}}")
    if networks is not None:
        return _add_item(text, networks, network)
    raise _no_networks(vm)


def with_disk(text: str, vm: str, name: str, size: str, location: str = "") -> str:
    """A disk more; its size is as a file says it. Raises CannotEdit."""
    there = f", location: {location}" if location else ""
    where, item = _vm(text, vm), f"{{name: {name}, size: {size}{there}}}"
    disks = where.get(DISKS)
    if disks is not None:
        return _add_item(text, disks, item)
    if where.get("disk") is not None:
        raise CannotEdit(f"{vm} has `disk`: write {DISKS}, with both of them")
    return _add_pair(text, where, f"{DISKS}: [{item}]")


def without_nic(text: str, vm: str, interface: str, index: int) -> str:
    """Without the NIC of that name, the `index`-th of the VM. Raises CannotEdit."""
    where = _vm(text, vm)
    nics, networks = where.get(INTERFACES), where.get(NETWORKS)
    if nics is not None:
        keys = [key.text for key in nics.items[::2]]
        if interface not in keys:
            raise CannotEdit(f"{vm} has {interface} from a template or from defaults")
        return _remove(text, nics, _pair_spans(nics), keys.index(interface))
    if networks is not None:
        return _remove(text, networks, _item_spans(networks), index)
    raise _no_networks(vm)


def without_disk(text: str, vm: str, name: str) -> str:
    """Without the disk of that name. Raises CannotEdit."""
    disks = _vm(text, vm).get(DISKS)
    items = disks.items if disks is not None else []
    for index, each in enumerate(items):
        named = each.get("name")
        if disks is not None and named is not None and named.text == name:
            return _remove(text, disks, _item_spans(disks), index)
    raise CannotEdit(f"{vm} has its disk {name} from a template or from defaults, or by `disk`")


def _no_networks(vm: str) -> CannotEdit:
    return CannotEdit(
        f"{vm} has its networks from a template or from defaults: give it {NETWORKS} of its own"
    )


def _vm(text: str, vm: str) -> Node:
    vms = tree(text).get("vms")
    found = vms.get(vm) if vms is not None else None
    if found is None or found.is_shared or not found.items:
        raise CannotEdit(f"{vm} is shared with other parts of the file, or has nothing of its own")
    return found


# -- pieces of text --------------------------------------------------------------------------------

Span = tuple[int, int]


def _item_spans(where: Node) -> list[Span]:
    return [(each.start, each.end) for each in where.items]


def _pair_spans(where: Node) -> list[Span]:
    return [(key.start, value.end) for key, value in zip(where.items[::2], where.items[1::2], strict=True)]


def _add_item(text: str, where: Node, item: str) -> str:
    return _add(text, where, item, f"- {item}")


def _add_pair(text: str, where: Node, pair: str) -> str:
    return _add(text, where, pair, pair)


def _add(text: str, where: Node, flow: str, line: str) -> str:
    """Behind the last of a list or map: within its line, or as a line of its own."""
    if where.is_shared or not (where.items or text[where.start] in "[{"):
        raise CannotEdit("what would have to be changed is shared with other parts of the file")
    if not where.is_flow:
        end = _line_end(text, where.items[-1].end)
        return f"{text[:end]}\n{' ' * (where.column - 1)}{line}{text[end:]}"
    if not where.items:
        return text[: where.start + 1] + flow + text[where.start + 1 :]
    end = where.items[-1].end
    return f"{text[:end]}, {flow}{text[end:]}"


def _remove(text: str, where: Node, spans: list[Span], index: int) -> str:
    """One of several; a list or map that becomes empty stays, if it is in brackets."""
    if where.is_shared or index >= len(spans) or (len(spans) == 1 and not where.is_flow):
        raise CannotEdit("it is the last one, or shared with other parts of the file")
    start, end = spans[index]
    if not where.is_flow:
        begin = text.rfind("\n", 0, start) + 1
        return text[:begin] + text[_line_end(text, end) + 1 :]
    if index:
        start = spans[index - 1][1]
    elif len(spans) > 1:
        end = spans[1][0]
    return text[:start] + text[end:]


def _line_end(text: str, place: int) -> int:
    found = text.find("\n", place)
    return len(text) if found < 0 else found
