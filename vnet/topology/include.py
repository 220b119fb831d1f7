"""Topologies of several files: which files one includes, and what they say together.

An included file is a part of a topology: every key may be left out, its `name` too. Of single values
the last one counts, the included files in their order before the one that includes them; maps and lists
are joined, and what is declared twice is a fault.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from posixpath import normpath
from typing import Any

from vnet.topology import language as lang
from vnet.topology import language_cloud_init as words
from vnet.topology.merge import merge
from vnet.topology.reading import Reading, quoted
from vnet.topology.shape import Entry, Read
from vnet.topology.yaml import ListNode, MapNode, Node, Scalar, parse

_MAY_INCLUDE = re.compile(r"""^[{\s]*["']?include["']?\s*:|\bcloud_init\b""", re.MULTILINE)
_JOINED = (lang.POLICIES.name, lang.VERIFY.name)
"""Lists whose items all count."""
DEPTH_MAX = 8


def beside(file: str, included: str) -> str:
    """The path of an included file, which is relative to the one that includes it."""
    folder = PurePosixPath(file).parent if file[:1] not in ("(", "-") else PurePosixPath()
    return normpath(folder / included)


def beside_or_home(file: str, named: str) -> str:
    """The same, but the home of whoever runs the command stays to be looked up."""
    return named if named.startswith("~/") else beside(file, named)


def gather(file: str, text: str, read: Callable[[str], str | None]) -> Mapping[str, str]:
    """The texts of all files that a file includes or names for cloud-init, by path.

    Those that `read` has nothing for are left out.

    Nothing is checked: whoever loads the topology reports what is wrong with place and line.
    """
    found: dict[str, str] = {}
    waiting = [(file, text)]
    while waiting:
        name, content = waiting.pop()
        root = parse(content).root if _MAY_INCLUDE.search(content) else None
        for named in _told(root):
            path = beside_or_home(name, named)
            more = None if path in found else read(path)
            found |= {path: more} if more is not None else {}
        for included in _included(root):
            path = beside(name, included)
            more = read(path) if path not in found and path != file else None
            if more is not None:
                found[path] = more
                waiting.append((path, more))
    return found


def _included(root: Node | None) -> Iterator[str]:
    for key, value in root.entries if isinstance(root, MapNode) else ():
        if key.text == lang.INCLUDE.name:
            yield from _texts(value)


def _told(node: Node | None) -> Iterator[str]:
    """The files that keys of `cloud_init` name, wherever in the file it stands."""
    for key, value in node.entries if isinstance(node, MapNode) else ():
        if key.text != words.VM_CLOUD_INIT.name:
            yield from _told(value)
            continue
        for inner, given in value.entries if isinstance(value, MapNode) else ():
            if inner.text == words.CLOUD_SSH_KEYS.name:
                yield from (text for text in _texts(given) if not words.is_key(text))
            if inner.text == words.CLOUD_USER_DATA.name:
                yield from (text for text in _texts(given) if not words.is_document(text))


def _texts(value: Node) -> Iterator[str]:
    items = value.items if isinstance(value, ListNode) else (value,)
    yield from (item.text for item in items if isinstance(item, Scalar))


@dataclass(frozen=True, slots=True)
class Part:
    """What one file says."""

    file: str
    entry: Entry


def parts(file: str, reading: Reading, read: Callable[[str], Entry | None]) -> tuple[Part, ...]:
    """What a file and all that it includes say, in the order in which they count; faults are reported.

    Args:
        read: the entry of a file whose text is known, None if it is no map.
    """
    return tuple(_Gathering(reading, read).of(file, ()))


@dataclass(slots=True)
class _Gathering:
    reading: Reading
    read: Callable[[str], Entry | None]

    def of(self, file: str, including: tuple[str, ...]) -> Iterator[Part]:
        entry = self.read(file)
        if entry is None:
            return
        found = entry.get(lang.INCLUDE)
        for item in () if found is None else found.value:
            path = beside(file, item.value)
            problem = self._why_not(path, (*including, file))
            if problem:
                self.reading.fault(item.at, item.path, problem)
            else:
                yield from self.of(path, (*including, file))
        yield Part(file, entry)

    def _why_not(self, path: str, including: Sequence[str]) -> str:
        if path in including:
            return f"{quoted(path)} includes itself: {' includes '.join((*including, path))}"
        if len(including) >= DEPTH_MAX:
            return f"more than {DEPTH_MAX} files include one another"
        if path not in self.reading.texts:
            return f"cannot read the file {quoted(path)}"
        return ""


def joined(several: Sequence[Part], reading: Reading) -> Entry:
    """All parts as if they stood in one file."""
    values: dict[str, Read[Any]] = {}
    broken: frozenset[str] = frozenset()
    for part in _once(several):
        broken |= part.entry.broken
        for key, read in part.entry.values.items():
            values[key] = _join(key, values[key], read, reading) if key in values else read
    return Entry(values, broken - values.keys())


def _once(several: Sequence[Part]) -> Iterator[Part]:
    """A file that is included from two places says what it says once."""
    seen: set[str] = set()
    for part in several:
        if part.file not in seen:
            seen.add(part.file)
            yield part


def _join(key: str, one: Read[Any], other: Read[Any], reading: Reading) -> Read[Any]:
    if isinstance(other.value, Entry):
        return Read(merge(one.value, other.value), other.at, other.path)
    if isinstance(other.value, dict):
        for name in one.value.keys() & other.value.keys():
            again, first = other.value[name], one.value[name]
            reading.fault(again.at, again.path, f"{quoted(name)} is declared at {first.at} already")
        return Read({**other.value, **one.value}, one.at, one.path)
    if key in _JOINED:
        return Read((*one.value, *other.value), one.at, one.path)
    return other
