"""Rules and policies put into the text of a topology file, in which all else stays as it is.

The file is not written anew from its values. `Sheet` knows from the YAML parser where each list of rules
begins and ends, and in which style it is written; what is added is text in that style, at that place. Whoever
uses the result reads it again and compares: positions are worked out, not proved.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

from yaml._yaml import CParser

from vnet.base.source import Location
from vnet.topology.model import Direction

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9./-]*")
_LIKE_ANOTHER = re.compile(r"[-+.0-9]+|0[ox].*|true|false|null|\d[\d.]*e.*", re.IGNORECASE)

BOM = "\ufeff"
"""The byte order mark with which some editors begin a file."""


class CannotEdit(Exception):
    """The text has no place where this could be put, for instance behind an alias."""


@dataclass(frozen=True, slots=True)
class RuleText:
    """An `allow` rule to write: the words of its `from` or `to` and of its `ports`, and comments above it."""

    peers: tuple[str, ...]
    ports: tuple[str, ...]
    comments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyText:
    """A policy to write; `settings` are its keys between `name` and its rules, each with its words."""

    name: str
    settings: tuple[tuple[str, tuple[str, ...]], ...]
    direction: Direction
    rules: tuple[RuleText, ...]


# -- where things stand ---------------------------------------------------------------------------


@dataclass(slots=True)
class Node:
    """A value of the file: from `start` to `end`, counted in characters; a block ends with its last value."""

    start: int
    end: int
    line: int
    column: int
    is_flow: bool = True
    is_shared: bool = False
    """It is an alias, or something else may be one of it."""
    text: str = ""
    items: list[Node] = field(default_factory=list)
    """Of a map: its keys and values by turns."""

    def get(self, key: str) -> Node | None:
        """The value of a key that the map has itself."""
        pairs = zip(self.items[::2], self.items[1::2], strict=True)
        return next((value for name, value in pairs if name.text == key), None)


class _Mark(Protocol):
    index: int
    line: int
    column: int


class _Event(Protocol):
    start_mark: _Mark
    end_mark: _Mark
    anchor: str | None
    flow_style: bool
    value: str


def tree(text: str) -> Node:
    """The first document of a text that is known to be good YAML."""
    skipped = len(text) - len(text.removeprefix(BOM))  # the parser does not count it
    parser, stack = CParser(text), [Node(0, 0, 0, 0)]
    while (event := parser.get_event()) is not None:
        kind = type(event).__name__
        if kind in ("ScalarEvent", "AliasEvent", "SequenceStartEvent", "MappingStartEvent"):
            node = _node(cast(_Event, event), kind, skipped)
            stack[-1].items.append(node)
            if kind.endswith("StartEvent"):
                stack.append(node)
        elif kind in ("SequenceEndEvent", "MappingEndEvent"):
            done = stack.pop()
            mark = cast(_Event, event).end_mark
            done.end = mark.index + skipped if done.is_flow else done.items[-1].end
    return stack[0].items[0]


def _node(event: _Event, kind: str, skipped: int) -> Node:
    start, end = event.start_mark, event.end_mark
    return Node(
        start.index + skipped,
        end.index + skipped,
        start.line + 1,
        start.column + 1,
        is_flow=kind in ("ScalarEvent", "AliasEvent") or event.flow_style,
        is_shared=event.anchor is not None,
        text=event.value if kind == "ScalarEvent" else "",
    )


class Sheet:
    """The text of one file, to which rules and policies can be added."""

    def __init__(self, text: str) -> None:
        self._bom = text[: len(text) - len(text.removeprefix(BOM))]
        self._text = text.removeprefix(BOM)
        self._root = tree(self._text)
        self._edits: list[tuple[int, str]] = []
        self._policies = self._root.get("policies")

    @property
    def has_policies(self) -> bool:
        """Whether the file has a list of policies."""
        return self._policies is not None

    @property
    def text(self) -> str:
        """The text with all that was added."""
        parts, at = [], 0
        for place, added in sorted(self._edits, key=lambda edit: edit[0]):
            parts += [self._text[at:place], added]
            at = place
        return self._bom + "".join((*parts, self._text[at:]))

    def can_extend(self, policy: Location, direction: Direction) -> bool:
        """Whether a list of rules of a policy can be added to without adding to others."""
        return self._list_of(policy, direction) is not None

    def _list_of(self, policy: Location, direction: Direction) -> Node | None:
        where = self._policy(policy)
        found = where.get(direction.value) if where and not where.is_shared else None
        is_list = found is not None and not found.is_shared and self._text[found.start] in "[-"
        return found if is_list else None

    def _policy(self, at: Location) -> Node | None:
        if self._policies is None or self._policies.is_shared:
            return None
        wanted = at.line, at.column
        return next((each for each in self._policies.items if (each.line, each.column) == wanted), None)

    def add_rules(
        self, policy: Location, direction: Direction, before: Location | None, rules: Sequence[RuleText]
    ) -> None:
        """Put rules in front of one of a policy's list, or at its end. Raises CannotEdit."""
        where = self._list_of(policy, direction)
        if where is None:
            raise CannotEdit(f"the {direction.value} list of the policy at {policy} is shared")
        index = _index(where, before)
        styled = [self._rule(where, direction, rule) for rule in rules]
        self._insert(where, index, styled)

    def add_policies(self, before: Location | None, policies: Sequence[PolicyText]) -> None:
        """Put policies in front of one, or behind all of the file. Raises CannotEdit."""
        where = self._policies
        if where is None:
            self._append_list(policies)
        elif where.is_shared or self._text[where.start] not in "[-":
            raise CannotEdit("the list of policies is shared")
        else:
            flow = where.is_flow or (bool(where.items) and where.items[-1].is_flow)
            items = [_policy(each, where.is_flow or (flow and len(each.rules) == 1)) for each in policies]
            self._insert(where, _index(where, before), items, self._is_spaced(where))

    def _append_list(self, policies: Sequence[PolicyText]) -> None:
        """A list of policies for a file that has none."""
        root = self._root
        if root.is_flow:
            items = [_policy(each, True) for each in policies]
            place = root.items[-1].end
            self._add_comments(place, items)
            self._add(place, f", policies: [{', '.join(item.lines[0] for item in items)}]")
            return
        indent = " " * (root.column - 1)
        lines = [f"{indent}policies:"]
        for each in policies:
            lines += _block_item(_policy(each, False), indent + "  ")
        self._add_lines(root.end, lines)

    def _rule(self, where: Node, direction: Direction, rule: RuleText) -> _Item:
        """A rule in the style of the last one of its list."""
        pairs = _rule_pairs(rule, direction)
        as_block = bool(where.items) and not where.is_flow and not where.items[-1].is_flow
        lines = tuple(f"{key}: {value}" for key, value in pairs) if as_block else (_flow_map(pairs),)
        return _Item(rule.comments, lines)

    # -- putting items into lists

    def _insert(self, where: Node, index: int, items: Sequence[_Item], spaced: bool = False) -> None:
        if not where.is_flow:
            self._into_block(where, index, items, spaced)
        elif where.items and self._begins_line(where.items[min(index, len(where.items) - 1)].start):
            self._into_lines(where, index, items)
        else:
            self._into_line(where, index, items)

    def _into_block(self, where: Node, index: int, items: Sequence[_Item], spaced: bool) -> None:
        indent = " " * (where.column - 1)
        lines: list[str] = []
        for item in items:
            block = _block_item(item, indent)
            blank = [""] if spaced else []
            lines += [*block, *blank] if index < len(where.items) else [*blank, *block]
        if index == len(where.items):
            self._add_lines(where.items[-1].end, lines, indent)
        else:
            place = self._above_comments(self._dash_of(where, index), indent)
            self._add(place, "".join(f"{line}\n" for line in lines))

    def _dash_of(self, where: Node, index: int) -> int:
        """Where the line of an item's dash begins."""
        at = self._line_start(where.items[index].start)
        while self._text[at + where.column - 1 : at + where.column] != "-":
            at = self._line_start(at - 1)
        return at

    def _into_lines(self, where: Node, index: int, items: Sequence[_Item]) -> None:
        """Into brackets with one item on each line."""
        is_last = index == len(where.items)
        other = where.items[index - 1 if is_last else index]
        indent = " " * (other.start - self._line_start(other.start))
        written = [[*(f"{indent}# {c}" for c in item.comments), indent + item.lines[0]] for item in items]
        if not is_last:
            place = self._above_comments(self._line_start(other.start), indent)
            self._add(place, "".join("\n".join(lines) + ",\n" for lines in written))
            return
        text = ",\n".join("\n".join(lines) for lines in written)
        comma = self._comma_after(other.end)
        end = self._line_end(comma or other.end)
        if where.end - 1 < end:  # the bracket is on the same line
            self._add(comma or other.end, f"{'' if comma else ','}\n{text}{',' if comma else ''}")
            return
        if not comma:
            self._add(other.end, ",")
        self._add(end, f"\n{text}{',' if comma else ''}")

    def _into_line(self, where: Node, index: int, items: Sequence[_Item]) -> None:
        """Into brackets on one line; comments stand above it."""
        text = ", ".join(item.lines[0] for item in items)
        if index < len(where.items):
            place, text = where.items[index].start, f"{text}, "
        elif where.items:
            place, text = where.items[-1].end, f", {text}"
        else:
            place = where.start + self._text[where.start : where.end].index("[") + 1
        self._add_comments(place, items)
        self._add(place, text)

    def _is_spaced(self, where: Node) -> bool:
        """Whether blank lines part the items of a list."""
        if where.is_flow or len(where.items) < 2:
            return False
        first = self._above_comments(self._dash_of(where, 1), " " * (where.column - 1))
        return not self._text[self._line_start(first - 1) : first - 1].strip()

    # -- lines

    def _add(self, place: int, text: str) -> None:
        if text:
            self._edits.append((place, text))

    def _add_comments(self, place: int, items: Sequence[_Item]) -> None:
        """The comments of items that are put into a line, above that line."""
        line = self._line_start(place)
        indent = " " * (len(self._text[line:]) - len(self._text[line:].lstrip(" ")))
        self._add(line, "".join(f"{indent}# {comment}\n" for item in items for comment in item.comments))

    def _add_lines(self, end: int, lines: Iterable[str], indent: str | None = None) -> None:
        """Lines below the one in which something ends, and below comments further in than `indent`."""
        at_start = end > 0 and self._text[end - 1] == "\n"  # a block of text ends with its line
        place = end if at_start else self._line_end(end)
        text = "".join(f"{line}\n" for line in lines)
        if at_start:
            self._add(place, text)
        elif place == len(self._text):
            self._add(place, "\n" + text.rstrip("\n"))
        else:
            self._add(self._below_comments(place + 1, indent), text)

    def _line_start(self, place: int) -> int:
        return self._text.rfind("\n", 0, max(place, 0)) + 1

    def _line_end(self, place: int) -> int:
        """Where the line's end stands, or the text's."""
        found = self._text.find("\n", place)
        return len(self._text) if found < 0 else found

    def _begins_line(self, place: int) -> bool:
        return not self._text[self._line_start(place) : place].strip()

    def _above_comments(self, line: int, indent: str) -> int:
        """Where the comments begin that stand directly above a line, as far in as it is."""
        while line > 0:
            above = self._line_start(line - 1)
            if not self._text[above:line].startswith(f"{indent}#"):
                break
            line = above
        return line

    def _below_comments(self, line: int, indent: str | None) -> int:
        """Where the comments end that begin with a line and are further in."""
        deeper = re.compile(rf"{indent} +#[^\n]*\n")
        while indent is not None and (found := deeper.match(self._text, line)):
            line = found.end()
        return line

    def _comma_after(self, place: int) -> int:
        """The place behind a comma that follows; 0 if none does."""
        found = re.compile(r"(?:\s|#[^\n]*\n)*,").match(self._text, place)
        return found.end() if found else 0


def _index(where: Node, before: Location | None) -> int:
    if before is None:
        return len(where.items)
    for index, item in enumerate(where.items):
        if (item.line, item.column) == (before.line, before.column) and not item.is_shared:
            return index
    raise CannotEdit(f"there is nothing at {before} to put it before")


# -- what is written ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Item:
    """An item of a list: comments above it, and its lines, without dash and indentation."""

    comments: tuple[str, ...]
    lines: tuple[str, ...]


_Pairs = Sequence[tuple[str, str]]


def _rule_pairs(rule: RuleText, direction: Direction) -> _Pairs:
    toward = "from" if direction is Direction.INGRESS else "to"
    return (toward, _words(rule.peers)), ("ports", f"[{', '.join(map(_word, rule.ports))}]")


def _flow_map(pairs: _Pairs) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"


def _words(words: Sequence[str]) -> str:
    """One word as it is, several in brackets."""
    return _word(words[0]) if len(words) == 1 else f"[{', '.join(map(_word, words))}]"


def _word(word: str) -> str:
    """In quotes unless it is text without any, in brackets too."""
    is_plain = _PLAIN.fullmatch(word) and not _LIKE_ANOTHER.fullmatch(word)
    return word if is_plain else f'"{word}"'


def _policy(policy: PolicyText, on_one_line: bool) -> _Item:
    head = [("name", _word(policy.name)), *((key, _words(words)) for key, words in policy.settings)]
    rules = [_flow_map(_rule_pairs(rule, policy.direction)) for rule in policy.rules]
    if on_one_line:
        comments = tuple(comment for rule in policy.rules for comment in rule.comments)
        return _Item(comments, (_flow_map([*head, (policy.direction.value, f"[{', '.join(rules)}]")]),))
    lines = [*(f"{key}: {value}" for key, value in head), f"{policy.direction.value}:"]
    for rule, written in zip(policy.rules, rules, strict=True):
        lines += [*(f"  # {comment}" for comment in rule.comments), f"  - {written}"]
    return _Item((), tuple(lines))


def _block_item(item: _Item, indent: str) -> list[str]:
    first, *others = item.lines
    comments = (f"{indent}# {comment}" for comment in item.comments)
    return [*comments, f"{indent}- {first}", *(f"{indent}  {line}" for line in others)]
