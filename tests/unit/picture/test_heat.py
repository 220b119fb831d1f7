"""The heat map says of each pair what is open, with a mark for every colour, and nothing in it overlaps."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.generators import Builder, World, three_tier, worlds
from tests.unit.picture.areas import holds, meet
from tests.unit.picture.scenes import HOSTILE, LONG, UNICODE
from tests.unit.picture.test_forms import Seen
from vnet.picture.geometry import Rect
from vnet.picture.heat import Cell, Head, Heat, Level, heat, table
from vnet.picture.heat_layout import KEY, MARGIN, NORMAL, SMALL, TITLE, HeatLayout, heat_layout
from vnet.picture.heat_svg import FILLS, INKS, baselines, inside, lines, svg
from vnet.picture.heat_text import ASCII, MARKS, WIDTH_MIN, rendered
from vnet.picture.html import page
from vnet.picture.palette import contrast
from vnet.picture.text import clean, width
from vnet.policy.compile import compile
from vnet.policy.reach import reach


def heat_of(builder: Builder, expand: bool = False) -> Heat:
    topology, inventory = builder.build()
    return heat(topology, inventory, compile(topology, inventory), expand)


def some(
    names: tuple[str, ...], ports: str = "icmp, 8080/tcp, 9000-9100/udp, 5432/tcp, 53/udp, 22/tcp"
) -> Heat:
    """A heat map in which all kinds of cells occur."""
    kinds = (Cell(Level.NOTHING), Cell(Level.SOME, ports), Cell(Level.ALL, "any"), Cell(Level.APART))
    heads = tuple(Head(name, 1 + number % 3, (name,)) for number, name in enumerate(names))
    cells = tuple(
        tuple(
            Cell(Level.SELF) if row == column else kinds[(row * 7 + column) % 4]
            for column in range(len(names))
        )
        for row in range(len(names))
    )
    return Heat(names[0] if names else "none", len(names) + 1, heads, cells)


@settings(max_examples=40, deadline=None)
@given(worlds())
def test_every_cell_is_what_the_flows_say(world: World) -> None:
    compiled = compile(world.topology, world.inventory)
    found = heat(world.topology, world.inventory, compiled, expand=True)
    pairs: dict[tuple[str, str], set[str]] = {}
    for pair in reach(world.topology, world.inventory, compiled):
        pairs.setdefault((pair.source, pair.target), set()).add(pair.ports)
    for one, row in zip(found.heads, found.cells, strict=True):
        for other, cell in zip(found.heads, row, strict=True):
            told = pairs.get((one.name, other.name), set())
            assert (cell.level in (Level.SOME, Level.ALL)) == bool(told - {"-"})
            assert cell.level is not Level.ALL or told == {"any"}
            assert cell.level is not Level.APART or not told - {"-"}
            assert (cell.level is Level.SELF) == (one is other)


def test_who_shares_no_network_or_is_isolated_is_told_from_who_is_denied() -> None:
    built = Builder().network("lan", 1, "10.0.0.0/24").network("cell", 2, "10.0.1.0/24", isolated=True)
    built.vm("a", "lan", "cell").vm("b", "cell").vm("c", "lan")
    levels = [[cell.level for cell in row] for row in heat_of(built).cells]
    assert levels[0] == [Level.SELF, Level.APART, Level.NOTHING]
    assert levels[1] == [Level.APART, Level.SELF, Level.APART]


def areas(placed: HeatLayout) -> Iterator[Rect]:
    """Where all texts are seen."""
    for name in (*placed.rows, *placed.columns):
        if name.is_upright:
            long = width(name.words[0], NORMAL)
            yield Rect(name.x - 0.8 * NORMAL, name.y - long, NORMAL, long)
            continue
        for x, y, words in baselines(name):
            long = width(words, NORMAL)
            left = x - (long if name.anchor == "end" else long / 2)
            yield Rect(left, y - 0.8 * NORMAL, long, NORMAL)
    for tile in placed.tiles:
        for x, y, words in inside(tile) if tile.words else ():
            long = width(words, SMALL)
            yield Rect(x - long / 2, y - 0.8 * SMALL, long, SMALL)
    for entry in placed.legend:
        yield Rect(entry.x - KEY, entry.y - 12, KEY + width(entry.level.value, NORMAL), 16)
    yield Rect(MARGIN, MARGIN, width(clean(placed.heat.title), TITLE, bold=True), TITLE)
    yield Rect(MARGIN, MARGIN + TITLE + NORMAL * 0.4, width(placed.note, NORMAL), NORMAL)


NAMES = st.lists(
    st.one_of(st.sampled_from(HOSTILE + UNICODE + LONG), st.from_regex(r"[a-z]{1,8}", fullmatch=True)),
    max_size=30,
)


@settings(max_examples=40, deadline=None)
@given(NAMES)
def test_no_texts_meet_and_words_stay_in_their_cells(names: list[str]) -> None:
    placed = heat_layout(some(tuple(names)))
    found = list(areas(placed))
    whole = Rect(0, 0, placed.width, placed.height)
    assert [area for area in found if not holds(whole, area)] == []
    assert [(one, two) for n, one in enumerate(found) for two in found[n + 1 :] if meet(one, two)] == []
    for tile in placed.tiles:
        assert holds(placed.grid, tile.rect)
        for x, y, words in inside(tile) if tile.words else ():
            long = width(words, SMALL)
            assert holds(tile.rect, Rect(x - long / 2, y - 0.8 * SMALL, long, SMALL))
    ElementTree.fromstring(svg(placed))


def test_200_vms_have_cells_that_can_be_seen_and_named() -> None:
    placed = heat_layout(some(tuple(f"vm-{number}" for number in range(200))))
    assert placed.is_marked and placed.width < 4000
    found = [area for area in areas(placed) if area.left < placed.grid.left or area.top < placed.grid.top]
    assert [(one, two) for n, one in enumerate(found) for two in found[n + 1 :] if meet(one, two)] == []
    covered = sum(tile.span for tile in placed.tiles)
    assert covered == 200 * 200


def test_words_in_cells_can_be_read() -> None:
    for level, ink in INKS.items():
        if FILLS[level].startswith("#"):
            assert contrast(ink, FILLS[level]) >= 4.5, level


def test_every_open_cell_has_its_ports_in_a_hover_title() -> None:
    root = ElementTree.fromstring(svg(heat_layout(heat_of(three_tier()))))
    titles = {title.text for title in root.iter("{http://www.w3.org/2000/svg}title")}
    assert {"web-1 → app: icmp, 8080/tcp", "app → db: 5432/tcp", "web-1 → db: no common network"} <= titles


def test_the_page_needs_nothing_else() -> None:
    seen = Seen()
    seen.feed(page("x", lines(heat_layout(some(HOSTILE))), "told"))
    assert (seen.leads, seen.acts, seen.tags.count("script")) == ([], [], 1)


def test_the_csv_is_read_back_as_the_same_table() -> None:
    read = list(csv.reader(io.StringIO(table(heat_of(three_tier())))))
    assert read[0] == ["from", "web-1", "web-2", "app", "db", "intruder"]
    assert read[1] == ["web-1", "", "-", "icmp, 8080/tcp", "apart", "-"]


@pytest.mark.parametrize("columns", [40, 80, 132])
@pytest.mark.parametrize("vms", [1, 5, 18, 76, 200])
def test_no_line_is_longer_than_the_terminal(columns: int, vms: int) -> None:
    drawn = some(tuple(f"vm-{number}" for number in range(vms)), "443/tcp")
    assert max(map(len, rendered(drawn, columns, colour=False))) <= columns


def test_without_colour_every_kind_of_cell_still_has_a_mark_of_its_own() -> None:
    assert len(set(MARKS.values())) == len(set(ASCII.values())) == len(Level)
    text = "\n".join(rendered(some(tuple(f"vm-{n}" for n in range(30))), 80, colour=False))
    assert "\x1b" not in text and {*MARKS.values()} <= set(text)


def test_colours_change_nothing_that_is_written() -> None:
    drawn = some(tuple(f"vm-{number}" for number in range(30)))
    for each in (drawn, some(("a", "b", "c"), "22/tcp")):
        plain = list(rendered(each, 100, colour=False))
        coloured = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in rendered(each, 100, colour=True)]
        assert coloured == plain


def test_on_a_wide_terminal_the_ports_stand_in_the_cells() -> None:
    wide = "\n".join(rendered(heat_of(three_tier()), 100, colour=False))
    narrow = "\n".join(rendered(heat_of(three_tier()), WIDTH_MIN, colour=False))
    assert "icmp, 8080/tcp" in wide and "icmp" not in narrow
