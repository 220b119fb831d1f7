"""A YAML 1.2 (core schema) reader whose values know their line and column.

PyYAML's libyaml parser delivers events; the tree and the meaning of plain scalars are made here,
because PyYAML itself follows YAML 1.1: there `52:54:00:12:34:56` is an integer, `22:22` is 1342,
`010` is 8, `no` is false, and of two equal keys the last one silently wins.

The tree is built without recursion, so depth is limited by `MAX_DEPTH` and not by the C stack, and
aliases are counted as if written out (`MAX_ALIASED`), so that a small file cannot become a huge tree.

Source: YAML 1.2.2, chapter 10.3 (core schema); merge keys: https://yaml.org/type/merge.html
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, cast

from yaml._yaml import CParser
from yaml.error import MarkedYAMLError, YAMLError
from yaml.reader import ReaderError

MAX_DEPTH = 64
MAX_ALIASED = 100_000
"""How many values all aliases together may repeat."""

Plain = None | bool | int | float | str


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value. `text` is what the file says, `value` what the core schema makes of it.

    `inline` is the column of the first character of `text` when text and source line agree
    character by character (a caret can point inside), 0 when they do not.
    """

    value: Plain
    text: str
    line: int
    column: int
    inline: int = 0


@dataclass(frozen=True, slots=True)
class ListNode:
    items: tuple[Node, ...]
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class MapNode:
    """Keys are unique by their text; merge keys are already resolved, behind the map's own keys."""

    entries: tuple[tuple[Scalar, Node], ...]
    line: int
    column: int


Node = Scalar | ListNode | MapNode


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with the file as YAML. `path` is the dotted path of the value, if there is one."""

    line: int
    column: int
    path: str
    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """`root` is None when the file is empty or broken; `problems` in order of appearance."""

    root: Node | None
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Stream:
    """The documents of a file of several, empty ones left out; none when the file is broken."""

    roots: tuple[Node, ...]
    problems: tuple[Problem, ...]


def parse(text: str) -> Document:
    """The tree of a one-document stream and all that is wrong with it."""
    stream = _composed(_Composer(is_single=True), text)
    return Document(stream.roots[-1] if stream.roots else None, stream.problems)


def parse_stream(text: str) -> Stream:
    """The trees of a stream of any number of documents, and all that is wrong with it."""
    stream = _composed(_Composer(is_single=False), text)
    return Stream(tuple(root for root in stream.roots if not _is_nothing(root)), stream.problems)


def _is_nothing(root: Node) -> bool:
    return isinstance(root, Scalar) and root.value is None


def _composed(composer: _Composer, text: str) -> Stream:
    try:
        _feed(composer, text)
    except _Stop as stop:
        return Stream((), (*composer.problems, stop.problem))
    except YAMLError as error:
        return Stream((), (*composer.problems, _syntax_problem(error, text)))
    return Stream(tuple(composer.roots), tuple(composer.problems))


def _feed(composer: _Composer, text: str) -> None:
    parser = CParser(text.removeprefix("\ufeff"))
    handlers = composer.handlers()
    while (event := parser.get_event()) is not None:
        handler = handlers.get(type(event).__name__)
        if handler is not None:
            handler(cast(_Event, event))


# ---- the core schema ------------------------------------------------------------------------

_WORDS: dict[str, Plain] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
}
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL_OR_HEX = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_LONGEST_NUMBER = 32
"""A longer run of digits stays text: no field needs it, and converting it costs quadratic time."""


def resolve(text: str) -> Plain:
    """What a plain (unquoted) scalar means in the core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789" or len(text) > _LONGEST_NUMBER:
        return text
    if _INT.fullmatch(text):
        return int(text)
    if _OCTAL_OR_HEX.fullmatch(text):
        return int(text, 0)
    return float(text) if _FLOAT.fullmatch(text) else text


# ---- from events to the tree ----------------------------------------------------------------


class _Stop(Exception):
    """The rest of the file cannot be read."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.text)
        self.problem = problem


@dataclass(slots=True)
class _Open:
    """A list or map whose end has not come yet. `weight` counts its values, aliases written out."""

    anchor: str | None
    is_map: bool
    line: int
    column: int
    items: list[Node] = field(default_factory=list)
    entries: dict[str, tuple[Scalar, Node]] = field(default_factory=dict)
    merged: list[MapNode] = field(default_factory=list)
    key: Scalar | None = None
    key_is_known: bool = False
    weight: int = 1


class _Mark(Protocol):
    """A position, counted from 0."""

    line: int
    column: int


class _Event(Protocol):
    """What the events of PyYAML's `events.py` have that is used here; the C extension is untyped."""

    start_mark: _Mark
    end_mark: _Mark
    anchor: str | None
    tag: str | None
    implicit: tuple[bool, bool]
    style: str
    value: str


_CORE_TAG = "tag:yaml.org,2002:"
_READ_TAGGED: dict[str, tuple[type, ...]] = {
    _CORE_TAG + "null": (type(None),),
    _CORE_TAG + "bool": (bool,),
    _CORE_TAG + "int": (int,),
    _CORE_TAG + "float": (int, float),
}
_TEXT_TAGS = (_CORE_TAG + "str", "!")
_CONTAINER_TAGS = {False: (None, "!", _CORE_TAG + "seq"), True: (None, "!", _CORE_TAG + "map")}


class _Composer:
    """Builds the tree from events; wants no more than one pass and no recursion."""

    def __init__(self, is_single: bool) -> None:
        self.roots: list[Node] = []
        self._is_single = is_single
        self.problems: list[Problem] = []
        self._stack: list[_Open] = []
        self._anchors: dict[str, tuple[Node | None, int]] = {}
        self._documents = 0
        self._aliased = 0

    def handlers(self) -> dict[str, Callable[[_Event], None]]:
        """By the name of the event's class; stream events need nothing."""
        return {
            "DocumentStartEvent": self._document,
            "ScalarEvent": self._scalar,
            "SequenceStartEvent": self._open_list,
            "MappingStartEvent": self._open_map,
            "SequenceEndEvent": self._close,
            "MappingEndEvent": self._close,
            "AliasEvent": self._alias,
        }

    # -- events

    def _document(self, event: _Event) -> None:
        self._documents += 1
        self._anchors.clear()  # they are known within their document only
        if self._is_single and self._documents > 1:
            problem = "expected one document, found a second one"
            raise _Stop(_problem_at(event, "yaml", problem, 'remove the "---"'))

    def _scalar(self, event: _Event) -> None:
        is_plain = event.implicit[0] and event.tag is None
        value = resolve(event.value) if is_plain else event.value
        if event.tag is not None and event.tag not in _TEXT_TAGS:
            value = self._tagged(event, event.tag)
        mark = event.start_mark
        node = Scalar(value, event.value, mark.line + 1, mark.column + 1, _inline(event))
        self._remember(event.anchor, node, 1)
        self._put(node, 1)

    def _open_list(self, event: _Event) -> None:
        self._open(event, is_map=False)

    def _open_map(self, event: _Event) -> None:
        self._open(event, is_map=True)

    def _alias(self, event: _Event) -> None:
        anchor = event.anchor or ""
        if anchor not in self._anchors:
            raise _Stop(_problem_at(event, self._path(), f'no value before this one is marked "&{anchor}"'))
        node, weight = self._anchors[anchor]
        if node is None:
            raise _Stop(_problem_at(event, self._path(), f'the value marked "&{anchor}" contains itself'))
        self._aliased += weight
        if self._aliased > MAX_ALIASED:
            raise _Stop(_problem_at(event, self._path(), f"aliases repeat more than {MAX_ALIASED} values"))
        self._put(node, weight)

    def _open(self, event: _Event, is_map: bool) -> None:
        if len(self._stack) >= MAX_DEPTH:
            raise _Stop(_problem_at(event, "yaml", f"nested more than {MAX_DEPTH} deep"))
        tag = event.tag
        if tag not in _CONTAINER_TAGS[is_map]:
            self._report_at(event, f'the tag "{tag}" is not supported', "remove it")
        self._remember(event.anchor, None, 0)
        mark = event.start_mark
        self._stack.append(_Open(event.anchor, is_map, mark.line + 1, mark.column + 1))

    def _close(self, _event: _Event) -> None:
        top = self._stack.pop()
        node: Node
        if top.is_map:
            node = MapNode(tuple(_with_merged(top).values()), top.line, top.column)
        else:
            node = ListNode(tuple(top.items), top.line, top.column)
        self._remember(top.anchor, node, top.weight)
        self._put(node, top.weight)

    # -- placing a finished value

    def _put(self, node: Node, weight: int) -> None:
        if not self._stack:
            self.roots.append(node)
            return
        top = self._stack[-1]
        top.weight += weight
        if not top.is_map:
            top.items.append(node)
        elif not top.key_is_known:
            self._put_key(top, node)
        else:
            self._put_value(top, node)

    def _put_key(self, top: _Open, node: Node) -> None:
        top.key_is_known = True
        if not isinstance(node, Scalar):
            problem = "expected plain text as a key, found a list or a map"
            self._report(node, problem, "quote a key that begins with { or [")
            return
        top.key = node
        if node.text in top.entries:
            first, _ = top.entries[node.text]
            hint = f"the first one is on line {first.line}"
            self._report(node, f'the key "{node.text}" is given twice', hint)
            top.key = None

    def _put_value(self, top: _Open, node: Node) -> None:
        key, top.key = top.key, None
        top.key_is_known = False
        if key is None:
            return
        if not _is_merge(key):
            top.entries[key.text] = (key, node)
            return
        parts = node.items if isinstance(node, ListNode) else (node,)
        for part in parts:
            if isinstance(part, MapNode):
                top.merged.append(part)
            else:
                self._report(part, 'expected a map (or a list of maps) after "<<"')

    # -- helpers

    def _tagged(self, event: _Event, tag: str) -> Plain:
        value = resolve(event.value)
        if tag not in _READ_TAGGED:
            self._report_at(event, f'the tag "{tag}" is not supported', "remove it")
        elif not isinstance(value, _READ_TAGGED[tag]):
            self._report_at(event, f'"{event.value}" is no "!!{tag.removeprefix(_CORE_TAG)}"')
        return value

    def _remember(self, anchor: str | None, node: Node | None, weight: int) -> None:
        if anchor is not None:
            self._anchors[anchor] = (node, weight)

    def _report(self, node: Node, text: str, hint: str = "") -> None:
        self.problems.append(Problem(node.line, node.column, self._path(), text, hint))

    def _report_at(self, event: _Event, text: str, hint: str = "") -> None:
        self.problems.append(_problem_at(event, self._path(), text, hint))

    def _path(self) -> str:
        """The dotted path of the value that is being read."""
        path = ""
        for level in self._stack:
            if not level.is_map:
                path += f"[{len(level.items)}]"
            elif level.key is not None:
                path += f".{level.key.text}" if path else level.key.text
        return path or "yaml"


def _inline(event: _Event) -> int:
    """See `Scalar.inline`: same line, and as long in the file as in memory (no escapes, no tag)."""
    start, end = event.start_mark, event.end_mark
    quotes = 1 if event.style in ("'", '"') else 0
    agrees = start.line == end.line and end.column - start.column == len(event.value) + 2 * quotes
    return start.column + 1 + quotes if agrees else 0


def _is_merge(key: Scalar) -> bool:
    # A quoted "<<" is text; its column says so.
    return key.text == "<<" and key.inline == key.column


def _with_merged(top: _Open) -> dict[str, tuple[Scalar, Node]]:
    """Own keys win over merged ones, and an earlier merged map over a later one."""
    entries = top.entries
    for part in top.merged:
        for key, value in part.entries:
            entries.setdefault(key.text, (key, value))
    return entries


# ---- problems -------------------------------------------------------------------------------

_SYNTAX_HINTS = (
    (re.compile(r"^\s*\t"), "cannot start any token", "indent with spaces: YAML allows no tabs there"),
    (re.compile(r"\$\{"), "", 'inside { } or [ ], quote a value that contains "${"'),
    (re.compile(r"[:\s\[,][@`%]"), "cannot start any token", "quote a value that begins with @, ` or %"),
    (re.compile(r":\s.*:\s"), "mapping values are not allowed", 'quote text that contains ": "'),
)


def _problem_at(event: _Event, path: str, text: str, hint: str = "") -> Problem:
    mark = event.start_mark
    return Problem(mark.line + 1, mark.column + 1, path, text, hint)


def _syntax_problem(error: YAMLError, text: str) -> Problem:
    if isinstance(error, ReaderError):
        return _unreadable_character(error, text)
    assert isinstance(error, MarkedYAMLError)
    mark = error.problem_mark or error.context_mark
    assert mark is not None, "libyaml gives a position with every syntax error"
    message = str(error.problem or error.context)
    if error.context and error.problem and error.context_mark and error.context_mark.line != mark.line:
        message += f" ({error.context} that began on line {error.context_mark.line + 1})"
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    return Problem(mark.line + 1, mark.column + 1, "yaml", message, _syntax_hint(line, message))


def _syntax_hint(line: str, message: str) -> str:
    for pattern, needed, hint in _SYNTAX_HINTS:
        if needed in message and pattern.search(line):
            return hint
    return ""


def _unreadable_character(error: ReaderError, text: str) -> Problem:
    # libyaml counts bytes of UTF-8; text decoded up to there gives line and column.
    before = text.removeprefix("\ufeff").encode()[: error.position].decode(errors="ignore")
    line = before.count("\n") + 1
    column = len(before) - (before.rfind("\n") + 1) + 1
    return Problem(line, column, "yaml", f"the character U+{error.character:04X} is not allowed in YAML")
