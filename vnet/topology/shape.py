"""What a field of the language may hold, as data: read by `Shape.read`, published by `Shape.schema`.

One table (`vnet.topology.language`) made of these shapes drives the reader and the JSON schema, so
that the two cannot disagree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

from vnet.base.source import Location
from vnet.topology.reading import Reading, shown, suggestion
from vnet.topology.yaml import ListNode, MapNode, Node, Scalar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

JsonObject = dict[str, Any]
Definitions = dict[str, JsonObject]

VARIABLE: JsonObject = {"type": "string", "pattern": r"\$\{"}
"""In the schema: any scalar may be given by a variable."""


class Refused(Exception):
    """A scalar that cannot be read. Without a problem: "expected ..., found ..."."""

    def __init__(self, problem: str = "", hint: str = "", offset: int = 0) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint
        self.offset = offset


def later(what: str) -> str:
    """The problem of something that the language has and this version does not."""
    return f"{what} is not supported yet"


@dataclass(frozen=True, slots=True)
class Read(Generic[T_co]):
    """A value that knows where it stands."""

    value: T_co
    at: Location
    path: str


class Shape(Protocol[T_co]):
    """Reads a node, or reports why not and gives None; describes itself in JSON schema (draft-07)."""

    def read(self, node: Node, path: str, reading: Reading) -> Read[T_co] | None: ...

    def schema(self, definitions: Definitions) -> JsonObject: ...


@dataclass(frozen=True, slots=True)
class Word(Generic[T]):
    """A scalar. `expected` completes "expected ..."; `parse` raises Refused; `json` is its schema."""

    expected: str
    parse: Callable[[Scalar], T]
    json: Mapping[str, Any]

    def read(self, node: Node, path: str, reading: Reading) -> Read[T] | None:
        if not isinstance(node, Scalar):
            self._report(node, node, path, reading, Refused())
            return None
        scalar = reading.substituted(node, path)
        return None if scalar is None else self.read_text(node, scalar, path, reading)

    def read_text(self, node: Node, scalar: Scalar, path: str, reading: Reading) -> Read[T] | None:
        """Reads `scalar`, which is what stands at `node` after substitution."""
        try:
            if scalar.value is None:
                raise Refused
            return Read(self.parse(scalar), reading.at(node), path)
        except Refused as refused:
            self._report(node, scalar, path, reading, refused)
            return None

    def _report(self, node: Node, found: Node, path: str, reading: Reading, refused: Refused) -> None:
        problem = refused.problem or f"expected {self.expected}, found {shown(found)}"
        offset = refused.offset if found is node else 0
        reading.fault(reading.at(node, offset), path, problem, refused.hint)

    def schema(self, definitions: Definitions) -> JsonObject:
        if self.json.get("type") == "string" and "pattern" not in self.json:
            return dict(self.json)
        return {"anyOf": [dict(self.json), VARIABLE]}


@dataclass(frozen=True, slots=True)
class ListOf(Generic[T]):
    """A list; with `single`, also one item without the brackets; `minimum` items or more."""

    item: Shape[T]
    expected: str
    single: bool = False
    minimum: int = 0
    if_empty: str = ""
    """The hint for a list with too few items."""

    def read(self, node: Node, path: str, reading: Reading) -> Read[tuple[Read[T], ...]] | None:
        where = reading.at(node)
        if self.single and not isinstance(node, ListNode):
            one = self.item.read(node, path, reading)
            return None if one is None else Read((one,), where, path)
        if not isinstance(node, ListNode):
            hint = "write [] for none" if isinstance(node, Scalar) and node.value is None else ""
            reading.fault(where, path, f"expected {self.expected}, found {shown(node)}", hint)
            return None
        if len(node.items) < self.minimum:
            reading.fault(where, path, f"expected {self.expected}, found an empty list", self.if_empty)
            return None
        items = [self.item.read(item, f"{path}[{i}]", reading) for i, item in enumerate(node.items)]
        good = tuple(item for item in items if item is not None)
        return Read(good, where, path)

    def schema(self, definitions: Definitions) -> JsonObject:
        item = self.item.schema(definitions)
        listed: JsonObject = {"type": "array", "items": item}
        if self.minimum:
            listed["minItems"] = self.minimum
        return {"anyOf": [item, listed]} if self.single else listed


@dataclass(frozen=True, slots=True)
class MapOf(Generic[T]):
    """A map from names of the user's choice to values of one shape; nothing stands for an empty map.

    An entry's place is that of its name. `x-` has no meaning here: a VM may be called `x-ray`.
    """

    name: Word[str]
    value: Shape[T]
    expected: str

    def read(self, node: Node, path: str, reading: Reading) -> Read[dict[str, Read[T]]] | None:
        where = reading.at(node)
        if isinstance(node, Scalar) and node.value is None:
            return Read({}, where, path)
        if not isinstance(node, MapNode):
            reading.fault(where, path, f"expected {self.expected}, found {shown(node)}")
            return None
        entries: dict[str, Read[T]] = {}
        for key, value in node.entries:
            entry_path = f"{path}.{key.text}"
            self._check_name(key, entry_path, reading)
            entry = self.value.read(value, entry_path, reading)
            if entry is not None:
                entries[key.text] = Read(entry.value, reading.at(key), entry_path)
        return Read(entries, where, path)

    def _check_name(self, key: Scalar, path: str, reading: Reading) -> None:
        # A wrong name is reported and kept: what refers to it is not to be reported as well.
        # Keys are text whatever they look like, and variables stand in values only.
        name = replace(key, value=key.text)
        self.name.read_text(name, name, path, reading)

    def schema(self, definitions: Definitions) -> JsonObject:
        names = {key: value for key, value in self.name.json.items() if key in ("pattern", "maxLength")}
        return {
            "type": ["object", "null"],
            "propertyNames": names,
            "additionalProperties": self.value.schema(definitions),
        }


@dataclass(frozen=True, slots=True)
class Field(Generic[T_co]):
    """A key of a Record. `default` is what holds if nobody sets it, None if there is no default."""

    name: str
    shape: Shape[T_co]
    doc: str
    required: bool = False
    default: T_co | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """The values of a Record by key. `broken` are keys whose faults have been reported already."""

    values: Mapping[str, Read[Any]]
    broken: frozenset[str] = field(default_factory=frozenset)

    def get(self, key: Field[T]) -> Read[T] | None:
        """What was read for a field, None if it is absent or broken."""
        return self.values.get(key.name)

    def value(self, key: Field[T]) -> T:
        """The field's value or default; only for a file without faults."""
        found = self.values.get(key.name)
        value: T | None = key.default if found is None else found.value
        assert value is not None, f"{key.name} is checked before it is used"
        return value

    def part(self, key: Field[Entry]) -> Entry:
        """The record that a field holds; one without any key where it is absent or broken."""
        found = self.get(key)
        return Entry({}) if found is None else found.value

    def given(self, key: Field[Any]) -> bool:
        """Whether the file has the key, broken or not."""
        return key.name in self.values or key.name in self.broken


@dataclass(frozen=True, slots=True)
class Record:
    """A map with known keys; `x-*` is ignored.

    `later` are keys of the language that this version does not have; `misplaced` says of keys that
    belong elsewhere where. With `partial` a missing required key is for somebody else to report
    (VM fields are complete only after templates and defaults are merged).
    """

    title: str
    fields: tuple[Field[Any], ...]
    later: tuple[str, ...] = ()
    misplaced: Mapping[str, str] = field(default_factory=dict)
    partial: bool = False

    def read(self, node: Node, path: str, reading: Reading) -> Read[Entry]:
        """Gives an entry for anything: the name of a broken one is to be known to who refers to it."""
        if isinstance(node, Scalar) and node.value is None:
            node = MapNode((), node.line, node.column)
        if not isinstance(node, MapNode):
            known = ", ".join(each.name for each in self.fields[:4])
            problem = f"expected {self.title} (a map with {known}...), found {shown(node)}"
            reading.fault(reading.at(node), path, problem)
            return Read(Entry({}, frozenset(each.name for each in self.fields)), reading.at(node), path)
        entry = self._entry(node, path, reading)
        if not self.partial:
            self._report_missing(entry, node, path, reading)
        return Read(entry, reading.at(node), path)

    def _entry(self, node: MapNode, path: str, reading: Reading) -> Entry:
        values: dict[str, Read[Any]] = {}
        broken = set()
        shapes = {each.name: each.shape for each in self.fields}
        for key, value in node.entries:
            shape = shapes.get(key.text)
            key_path = f"{path}.{key.text}" if path else key.text
            if shape is None:
                self._report_key(key, key_path, reading)
                continue
            read = shape.read(value, key_path, reading)
            if read is None:
                broken.add(key.text)
            else:
                values[key.text] = read
        return Entry(values, frozenset(broken))

    def _report_key(self, key: Scalar, path: str, reading: Reading) -> None:
        where = reading.at(key)
        if key.text.startswith("x-"):
            return
        if key.text in self.later:
            reading.fault(where, path, later(f'"{key.text}"'))
        elif key.text in self.misplaced:
            reading.fault(where, path, self.misplaced[key.text])
        else:
            hint = suggestion(key.text, [*(each.name for each in self.fields), *self.later])
            reading.fault(where, path, f'{self.title} has no key "{key.text}"', hint)

    def _report_missing(self, entry: Entry, node: MapNode, path: str, reading: Reading) -> None:
        for each in self.fields:
            if each.required and not entry.given(each):
                where = reading.at(node)
                reading.fault(where, path or each.name, f'{self.title} needs "{each.name}": {each.doc}')

    def schema(self, definitions: Definitions) -> JsonObject:
        name = re.sub(r"^an? ", "", self.title).replace(" ", "-")
        if name not in definitions:
            definitions[name] = {}
            definitions[name] = self._definition(definitions)
        return {"$ref": f"#/definitions/{name}"}

    def _definition(self, definitions: Definitions) -> JsonObject:
        properties = {each.name: _described(each, definitions) for each in self.fields}
        required = [each.name for each in self.fields if each.required]
        nothing_allowed = self.partial or not required
        definition: JsonObject = {
            "type": ["object", "null"] if nothing_allowed else "object",
            "properties": properties,
            "patternProperties": {"^x-": {}},
            "additionalProperties": False,
        }
        if required and not self.partial:
            definition["required"] = required
        return definition


@dataclass(frozen=True, slots=True)
class TextOrMap(Generic[T]):
    """A record with a short form: a scalar, which stands for `inner` of it alone."""

    short: Word[T]
    long: Record
    inner: Field[T]

    def read(self, node: Node, path: str, reading: Reading) -> Read[Entry] | None:
        if isinstance(node, MapNode):
            entry = self.long.read(node, path, reading)
            is_whole = not self.inner.required or entry.value.get(self.inner) is not None
            return entry if is_whole else None
        alone = self.short.read(node, path, reading)
        return None if alone is None else Read(Entry({self.inner.name: alone}), alone.at, path)

    def schema(self, definitions: Definitions) -> JsonObject:
        return {"anyOf": [self.short.schema(definitions), self.long.schema(definitions)]}


@dataclass(frozen=True, slots=True)
class ListOrMap:
    """A map of records with a short form: a list of its names, each a record with nothing set."""

    names: ListOf[str]
    long: MapOf[Entry]

    def read(self, node: Node, path: str, reading: Reading) -> Read[dict[str, Read[Entry]]] | None:
        if isinstance(node, MapNode):
            return self.long.read(node, path, reading)
        listed = self.names.read(node, path, reading)
        if listed is None:
            return None
        return Read(
            {each.value: Read(Entry({}), each.at, each.path) for each in listed.value}, listed.at, path
        )

    def schema(self, definitions: Definitions) -> JsonObject:
        return {"anyOf": [self.names.schema(definitions), self.long.schema(definitions)]}


@dataclass(frozen=True, slots=True)
class TextForAll(Generic[T]):
    """A record with a short form: a scalar, which stands for it with each of `fields` set to that."""

    short: Word[T]
    long: Record
    fields: tuple[Field[T], ...]

    def read(self, node: Node, path: str, reading: Reading) -> Read[Entry] | None:
        if isinstance(node, MapNode):
            return self.long.read(node, path, reading)
        alone = self.short.read(node, path, reading)
        return None if alone is None else Read(Entry({f.name: alone for f in self.fields}), alone.at, path)

    def schema(self, definitions: Definitions) -> JsonObject:
        return {"anyOf": [self.short.schema(definitions), self.long.schema(definitions)]}


@dataclass(frozen=True, slots=True)
class YesOrMap:
    """Something that is there or not: `true` is the record with nothing set, `false` is None."""

    yes: Word[bool]
    long: Record

    def read(self, node: Node, path: str, reading: Reading) -> Read[Entry | None] | None:
        if isinstance(node, MapNode):
            entry = self.long.read(node, path, reading)
            return Read(entry.value, entry.at, path)
        alone = self.yes.read(node, path, reading)
        return None if alone is None else Read(Entry({}) if alone.value else None, alone.at, path)

    def schema(self, definitions: Definitions) -> JsonObject:
        return {"anyOf": [self.yes.schema(definitions), self.long.schema(definitions)]}


def _described(each: Field[Any], definitions: Definitions) -> JsonObject:
    schema = each.shape.schema(definitions)
    # In draft-07 nothing beside a $ref counts, so the description goes around it.
    around: JsonObject = {"allOf": [schema]} if "$ref" in schema else schema
    return {**around, "description": each.doc}
