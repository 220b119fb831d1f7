"""A NIC or a disk of a VM put into the text of a topology file, or taken out; all else stays as it is.

What is changed is the shortest piece of text that says it: an item of a list, a pair of a map. Whoever uses
the result reads it again and looks whether it says what was meant.
"""

from __future__ import annotations

from dataclasses import dataclass

from vnet.topology.edit import CannotEdit, Node, tree

NETWORKS, INTERFACES, DISKS = "networks", "interfaces", "disks"


@dataclass(frozen=True, slots=True)
class DiskText:
    """A disk to write, its size as a file says it."""

    name: str
    size: str


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
    raise CannotEdit(f"{vm} has its networks from a template or from defaults: give it {NETWORKS} of its own")


def with_disk(text: str, vm: str, disk: DiskText) -> str:
    """A disk more. Raises CannotEdit."""
    where, item = _vm(text, vm), f"{{name: {disk.name}, size: {disk.size}}}"
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
        return _remove(text, nics, _pairs(nics), keys.index(interface))
    if networks is not None:
        return _remove(text, networks, _items(networks), index)
    raise CannotEdit(f"{vm} has its networks from a template or from defaults: give it {NETWORKS} of its own")


def without_disk(text: str, vm: str, name: str) -> str:
    """Without the disk of that name. Raises CannotEdit."""
    disks = _vm(text, vm).get(DISKS)
    items = disks.items if disks is not None else []
    for index, each in enumerate(items):
        named = each.get("name")
        if disks is not None and named is not None and named.text == name:
            return _remove(text, disks, _items(disks), index)
    raise CannotEdit(f"{vm} has its disk {name} from a template or from defaults, or by `disk`")


def _vm(text: str, vm: str) -> Node:
    vms = tree(text).get("vms")
    found = vms.get(vm) if vms is not None else None
    if found is None or found.is_shared or not found.items:
        raise CannotEdit(f"{vm} is shared with other parts of the file, or has nothing of its own")
    return found


# -- pieces of text -----------------------------------------------------------------------------------

Span = tuple[int, int]


def _items(where: Node) -> list[Span]:
    return [(each.start, each.end) for each in where.items]


def _pairs(where: Node) -> list[Span]:
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
