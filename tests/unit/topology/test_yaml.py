"""The YAML 1.2 reader."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnet.topology.yaml import (
    MAX_ALIASED,
    MAX_DEPTH,
    ListNode,
    MapNode,
    Node,
    Scalar,
    parse,
    parse_stream,
    resolve,
)


def plain(node: Node) -> object:
    """The tree without positions."""
    match node:
        case Scalar():
            return node.value
        case ListNode():
            return [plain(item) for item in node.items]
        case MapNode():
            return {key.text: plain(value) for key, value in node.entries}


def read(text: str) -> object:
    document = parse(text)
    assert document.problems == ()
    assert document.root is not None
    return plain(document.root)


def problems(text: str) -> list[tuple[int, int, str, str]]:
    return [(each.line, each.column, each.path, each.text) for each in parse(text).problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("52:54:00:12:34:56", "52:54:00:12:34:56"),
        ("22:22", "22:22"),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("-7", -7),
        ("+7", 7),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("tRUE", "tRUE"),
        ("~", None),
        ("null", None),
        ("", None),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("-.inf", -math.inf),
        ("1.2.3", "1.2.3"),
        ("10.0.0.1", "10.0.0.1"),
        ("2030-01-01", "2030-01-01"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_plain_scalars_follow_the_core_schema(text: str, value: object) -> None:
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


def test_quoted_scalars_are_text() -> None:
    assert read("""['5', "true", '~', "010"]""") == ["5", "true", "~", "010"]


def test_tags_of_the_core_schema_are_obeyed() -> None:
    assert read("[!!str 5, !!int '5', !!null '', !!bool 'true']") == ["5", 5, None, True]


def test_ipv6_prefixes_need_no_quotes() -> None:
    assert read("[fd00:10::/64, 10.0.0.0/8]") == ["fd00:10::/64", "10.0.0.0/8"]


def test_values_know_their_line_and_column() -> None:
    root = parse("a: 1\nb:\n  - x\n  - {c: é, d: 2}\n").root
    assert isinstance(root, MapNode)
    (_, one), (key_b, items) = root.entries
    assert (one.line, one.column) == (1, 4)
    assert (key_b.line, key_b.column) == (2, 1)
    assert isinstance(items, ListNode)
    inner = items.items[1]
    assert isinstance(inner, MapNode)
    assert [(value.line, value.column) for _, value in inner.entries] == [(4, 9), (4, 15)]


def test_a_byte_order_mark_is_no_part_of_the_first_key() -> None:
    assert read("\ufeffname: lab\n") == {"name": "lab"}


def test_duplicate_keys_are_reported_and_the_first_one_holds() -> None:
    document = parse("a: 1\nb: {c: 1, c: 2}\na: 3\n")
    assert document.root is not None
    assert plain(document.root) == {"a": 1, "b": {"c": 1}}
    assert problems("a: 1\nb: {c: 1, c: 2}\na: 3\n") == [
        (2, 11, "b.c", 'the key "c" is given twice'),
        (3, 1, "a", 'the key "a" is given twice'),
    ]


def test_keys_that_differ_only_in_their_quotes_are_duplicates() -> None:
    assert len(problems("1: a\n'1': b\n")) == 1


def test_merge_keys_complete_a_map_and_own_keys_win() -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: [*a, *b], x: 3}\nd: {x: 3, <<: *a}\n"
    assert read(text) == {
        "a": {"x": 1, "y": 1},
        "b": {"y": 2, "z": 2},
        "c": {"x": 3, "y": 1, "z": 2},
        "d": {"x": 3, "y": 1},
    }


def test_a_quoted_merge_key_is_an_ordinary_key() -> None:
    assert read('{"<<": 1}') == {"<<": 1}


def test_an_alias_bomb_is_refused_without_being_built() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    assert problems("\n".join(lines))[0][3] == f"aliases repeat more than {MAX_ALIASED} values"


def test_a_merge_key_bomb_is_refused() -> None:
    lines = ["m0: &m0 {" + ", ".join(f"k{i}: 1" for i in range(1000)) + "}"]
    lines += [f"m{i}: {{<<: *m0}}" for i in range(1, 200)]
    assert "aliases repeat" in problems("\n".join(lines))[0][3]


def test_an_alias_to_a_value_around_it_is_refused() -> None:
    assert problems("a: &a\n  b: *a\n") == [(2, 6, "a.b", 'the value marked "&a" contains itself')]


def test_an_anchor_may_be_set_anew() -> None:
    assert read("[&a 1, *a, &a 2, *a]") == [1, 1, 2, 2]


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 900, 100_000])
def test_deep_nesting_is_refused_and_never_a_crash(depth: int) -> None:
    assert problems("[" * depth + "]" * depth)[0][3].startswith("nested more than")


def test_control_characters_are_reported_where_they_stand() -> None:
    assert problems("a: 1\né: \x01\n") == [(2, 4, "yaml", "the character U+0001 is not allowed in YAML")]


def test_an_empty_file_has_no_root_and_no_problem() -> None:
    assert parse("# nothing\n").root is None
    assert problems("# nothing\n") == []


@given(st.text(alphabet=st.sampled_from("ab:-,&*!|>%@`\"'[]{}<~#?$ \n\t\\01."), max_size=60))
def test_no_text_makes_the_reader_crash(text: str) -> None:
    for each in parse(text).problems:
        assert each.line >= 1
        assert each.column >= 1


@given(st.text(max_size=40))
def test_any_unicode_text_is_read_or_refused(text: str) -> None:
    parse(text)


TREES = st.recursive(
    st.integers(-1000, 1000) | st.booleans() | st.none() | st.text("abc :#-'\"é", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc-", max_size=4), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(TREES)
def test_json_is_read_as_what_it_says(tree: object) -> None:
    assert read(json.dumps(tree, ensure_ascii=False)) == tree


def test_a_stream_has_any_number_of_documents_and_empty_ones_do_not_count():
    stream = parse_stream("---\n# nothing\n---\na: 1\n---\n---\n[b]\n...\n")
    assert [plain(root) for root in stream.roots] == [{"a": 1}, ["b"]]
    assert [root.line for root in stream.roots] == [4, 7]
    assert parse_stream("").roots == ()


def test_an_anchor_is_known_within_its_document_only():
    stream = parse_stream("a: &x 1\nb: *x\n---\nc: *x\n")
    assert [(each.line, each.text) for each in stream.problems] == [
        (4, 'no value before this one is marked "&x"')
    ]
