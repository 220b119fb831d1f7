"""The JSON schema agrees with the reader and with what is published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vnet.base.errors import InputError
from vnet.topology import schema
from vnet.topology.language import TOPOLOGY
from vnet.topology.load import load_text
from vnet.topology.shape import Entry, Field, ListOf, MapOf, Record, TextOrMap
from vnet.topology.yaml import ListNode, MapNode, Node, Scalar, parse

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "topologies").glob("*.yaml"))
BAD_VALUES = sorted((ROOT / "tests/golden/topology_errors").glob("not-yet-*.yaml"))
VALIDATOR = jsonschema.Draft7Validator(schema.json_schema())


def plain(node: Node | None) -> Any:
    match node:
        case Scalar():
            return node.value
        case ListNode():
            return [plain(item) for item in node.items]
        case MapNode():
            return {key.text: plain(value) for key, value in node.entries}


def errors(text: str) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(plain(parse(text).root))]


def test_the_schema_is_valid_draft_07() -> None:
    jsonschema.Draft7Validator.check_schema(schema.json_schema())


def test_the_published_schema_is_up_to_date() -> None:
    assert (ROOT / schema.PUBLISHED).read_text(encoding="utf-8") == schema.text()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_satisfies_the_schema(path: Path) -> None:
    assert errors(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text",
    [
        "name: Lab",
        "name: lab\nimages: {debian: {path: a.qcow2, sha256: abc}}",
        "name: lab\nvms: {a: {boot: {firmware: efi}}}",
        "name: lab\nnetworks: {lan: {vlan: 4095, subnets: 10.0.0.0/8}}",
        "name: lab\nnetworks: {lan: {vlan: 1, subnets: []}}",
        "name: lab\nvms: {a: {networks: lan}}",
        "name: lab\nvms: {A: {networks: [lan]}}",
        "name: lab\nvms: {a: {memory: 96}}",
        "name: lab\nvms: {a: {interfaces: {eth0: {mac: 1}}}}",
        "name: lab\npolicies: [{name: a, applied_to: any, ingress: [{to: any}]}]",
        "name: lab\npolicies: [{name: a, applied_to: any, ingress: [{from: any, action: refuse}]}]",
        "name: lab\nverify: [allow a]",
    ],
)
def test_what_the_reader_refuses_for_its_form_the_schema_refuses(text: str) -> None:
    assert errors(text)


def test_variables_extension_keys_and_short_forms_satisfy_the_schema() -> None:
    text = (
        "name: lab\nx-a: {b: c}\nnetworks: {lan: {vlan: '${VLAN:-1}', subnets: [{cidr: 10.0.0.0/24}]}}\n"
        "templates: {t: }\n"
        "vms: {a: , b: {memory: '${M}', x-y: 1, interfaces: {eth0: {addresses: [10.0.0.2/24]}}}}\n"
    )
    assert errors(text) == []


def fields(shape: object) -> list[Field[Any]]:
    """All fields that can be reached from a shape."""
    match shape:
        case Record():
            return [each for field in shape.fields for each in (field, *fields(field.shape))]
        case ListOf():
            return fields(shape.item)
        case MapOf():
            return fields(shape.value)
        case TextOrMap():
            return fields(shape.long)
        case _:
            return []


def records(shape: object) -> list[Record]:
    inner = [each for field in fields(shape) for each in _record_of(field.shape)]
    return [shape, *inner] if isinstance(shape, Record) else inner


def _record_of(shape: object) -> list[Record]:
    match shape:
        case Record():
            return [shape]
        case ListOf():
            return _record_of(shape.item)
        case MapOf():
            return _record_of(shape.value)
        case TextOrMap():
            return [shape.long]
        case _:
            return []


def test_the_manual_explains_every_key_and_lists_every_one_that_is_not_supported() -> None:
    manual = (ROOT / "docs/manual/topology.md").read_text(encoding="utf-8")
    names = {field.name for field in fields(TOPOLOGY)}
    names |= {name for record in records(TOPOLOGY) for name in record.later}
    assert {name for name in names if f"`{name}`" not in manual} == set()


def test_an_entry_tells_absent_from_broken() -> None:
    key = TOPOLOGY.fields[0]
    assert not Entry({}).given(key)
    assert Entry({}, frozenset({"name"})).given(key)
    assert Entry({}, frozenset({"name"})).get(key) is None


def test_the_schema_can_be_written_anywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schema.main([str(tmp_path / "schema.json")])
    schema.main(["-"])
    assert json.loads((tmp_path / "schema.json").read_text()) == json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("path", BAD_VALUES, ids=lambda path: path.stem)
def test_what_is_not_supported_yet_is_no_part_of_the_schema(path: Path) -> None:
    assert errors(path.read_text(encoding="utf-8"))


# ---- mutants ---------------------------------------------------------------------------------

JUNK = st.sampled_from(
    [None, True, 0, 1, -1, 1.5, 99999, "", "x", "any", "10.0.0.0/8", "a -> b", "96M", [], ["x"], {}, {"x": 1}]
)


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every position in a tree."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


def planted(tree: Any, path: tuple[Any, ...], junk: Any) -> Any:
    """The tree with something else at one position."""
    if not path:
        return junk
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[path[0]] = planted(tree[path[0]], path[1:], junk)
    return copy


WHOLE = plain(parse((ROOT / "topologies/three-tier.vnet.yaml").read_text(encoding="utf-8")).root)
WHOLE |= {
    "groups": {"g": {"cidrs": ["10.0.0.0/8"]}, "h": {"labels": {"a": "b"}}},
    "services": {"s": ["1/tcp"]},
}
WHOLE |= {"templates": {"t": {"labels": {"a": "b"}}}, "tiers": ["application"], "description": "d"}


@settings(max_examples=300)
@given(st.sampled_from(places(WHOLE)), JUNK)
def test_what_the_schema_refuses_the_reader_refuses_with_faults(place: tuple[Any, ...], junk: Any) -> None:
    mutant = planted(WHOLE, place, junk)
    try:
        load_text(json.dumps(mutant), "mutant.json", {})
    except InputError as error:
        found = error.faults
    else:
        found = ()
    if any(VALIDATOR.iter_errors(mutant)):
        assert found
    assert all(fault.where.line and fault.problem for fault in found)
