"""The picture of how a packet is decided shows all tables and drops, and no text runs into another."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

from vnet.policy.pipeline import TABLES

PICTURE = Path(__file__).parents[3] / "docs" / "images" / "packet.svg"
SVG = "{http://www.w3.org/2000/svg}"
SMALL, CAPITAL = 0.55, 0.7
"""The widths of letters as parts of the font's size: generous means for the widest font that is named."""


@dataclass(frozen=True, slots=True)
class Area:
    left: float
    top: float
    right: float
    bottom: float
    words: str = ""

    def meets(self, other: Area) -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom

    def holds(self, other: Area) -> bool:
        across = self.left <= other.left and other.right <= self.right
        return across and self.top <= other.top and other.bottom <= self.bottom


def number(element: ElementTree.Element, name: str) -> float:
    return float(element.get(name, "0"))


def text_area(element: ElementTree.Element) -> Area:
    words = element.text or ""
    x, y, size = (number(element, name) for name in ("x", "y", "font-size"))
    width = size * sum(CAPITAL if letter.isupper() or letter == "_" else SMALL for letter in words)
    if element.get("transform"):
        return Area(x - size, y - width, x, y, words)
    left = x - {"end": width, "middle": width / 2}.get(element.get("text-anchor", ""), 0)
    return Area(left, y - size * 0.8, left + width, y + size * 0.2, words)


def drawn() -> tuple[list[Area], list[Area]]:
    """All texts, and all boxes after the ground."""
    root = ElementTree.parse(PICTURE).getroot()
    boxes = []
    for each in root.findall(f"{SVG}rect"):
        x, y, width, height = (number(each, name) for name in ("x", "y", "width", "height"))
        boxes.append(Area(x, y, x + width, y + height))
    return [text_area(each) for each in root.findall(f"{SVG}text")], boxes


def test_every_table_and_every_reason_to_drop_is_shown() -> None:
    shown = " ".join(text.words for text in drawn()[0])
    for table in TABLES:
        assert f"{table.name} table {int(table.number)}" in shown
        assert all(reason.name in shown for reason in table.drops)


def test_no_text_runs_into_another_or_over_the_edge_of_a_box() -> None:
    texts, (ground, *boxes) = drawn()
    assert [(one.words, two.words) for one, two in combinations(texts, 2) if one.meets(two)] == []
    assert [text.words for text in texts if not ground.holds(text)] == []
    cut = [text.words for text in texts for box in boxes if box.meets(text) and not box.holds(text)]
    assert cut == []
