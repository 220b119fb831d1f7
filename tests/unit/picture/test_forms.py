"""Each form of a picture is what its readers take, whatever VMs are called."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings

from tests.generators import Builder, three_tier
from tests.unit.picture.scenes import HOSTILE, UNICODE, drawn, scenes
from vnet.picture.dot import dot
from vnet.picture.drawio import drawio
from vnet.picture.geometry import Card
from vnet.picture.html import page
from vnet.picture.layout import layout
from vnet.picture.mermaid import mermaid
from vnet.picture.palette import BAND, EDGES, GROUND, INK, LINES, MUTED, PAPER, STATE_COLOURS, contrast
from vnet.picture.scene import Scene, State, Wanted
from vnet.picture.svg import SHAPES, lines, svg
from vnet.picture.views import View

SVG = "{http://www.w3.org/2000/svg}"
FORMS: dict[str, Callable[[Scene], str]] = {
    "svg": lambda scene: svg(layout(scene)),
    "drawio": lambda scene: drawio(layout(scene)),
    "html": lambda scene: page(scene.title, lines(layout(scene)), "told"),
    "mermaid": mermaid,
    "dot": dot,
}


def hostile() -> Scene:
    built = Builder().network(HOSTILE[1], 1, "10.0.0.0/24").network(HOSTILE[0], 2, "10.0.1.0/24")
    for number, name in enumerate((*HOSTILE, *UNICODE)):
        built.vm(name, HOSTILE[number % 2], groups=[name])
    return drawn(built.policy("p", f"vm:{HOSTILE[0]}", ingress=["allow any 22/tcp"]))


@settings(max_examples=25, deadline=None)
@given(scenes())
def test_svg_and_drawio_are_well_formed(scene: Scene) -> None:
    ElementTree.fromstring(svg(layout(scene)))
    ElementTree.fromstring(drawio(layout(scene)))


def test_every_name_can_be_read_in_the_svg_and_none_is_markup() -> None:
    root = ElementTree.fromstring(svg(layout(hostile())))
    assert {each.tag.removeprefix(SVG) for each in root.iter()} <= {
        *("svg", "title", "defs", "marker", "path", "rect", "g", "text", "circle")
    }
    shown = {text.text for text in root.iter(f"{SVG}text")}
    readable = {name.replace("\n", " ") for name in HOSTILE[:5]}
    assert {*readable, "\ufffd\ufffd[31m\ufffdevil"} <= shown


class Seen(HTMLParser):
    """Which elements a page has, and where it leads."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.leads: list[str] = []
        self.acts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.leads += [
            value or "" for name, value in attrs if name in ("src", "href", "data", "action", "srcset")
        ]
        self.acts += [name for name, _ in attrs if name.startswith("on")]


def test_the_page_needs_nothing_else_and_runs_only_its_own_script() -> None:
    for scene in (hostile(), drawn(three_tier())):
        text = FORMS["html"](scene)
        seen = Seen()
        seen.feed(text)
        assert (seen.leads, seen.acts, seen.tags.count("script")) == ([], [], 1)
        assert set(re.findall(r"https?://[^\s\"'<]+", text)) == {"http://www.w3.org/2000/svg"}
        assert not re.search(r"@import|url\((?!#)", text)


def test_mermaid_labels_have_nothing_that_ends_them() -> None:
    for line in mermaid(hostile()).splitlines():
        labels = re.findall(r'"([^"]*)"', line)
        assert line.count('"') == 2 * len(labels)
        for label in labels:
            bare = re.sub(r"#\d+;|<br/>", "", label)
            assert not set(bare) & set("\"#;<>`*[]{}|&\\'"), label


def test_dot_strings_are_closed_where_they_should_be() -> None:
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", dot(hostile()))
    assert '"' not in bare and "\\" not in bare
    assert "label=x" not in bare


@pytest.mark.skipif(not shutil.which("dot"), reason="needs Graphviz")
@pytest.mark.parametrize("make", [hostile, lambda: drawn(three_tier())])
def test_graphviz_takes_the_dot_file(make: Callable[[], Scene]) -> None:
    done = subprocess.run(["dot", "-Tcanon"], input=dot(make()).encode(), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_drawio_has_every_box_with_a_place_and_every_line_with_its_ends() -> None:
    scene = drawn(three_tier())
    placed, root = layout(scene), ElementTree.fromstring(drawio(layout(scene)))
    ids = [each.get("id") for each in root.iter() if each.tag in ("mxCell", "UserObject") and each.get("id")]
    assert len(ids) == len(set(ids))
    for card in placed.cards:
        assert drawn_at(root, card.key) == round_rect(card)
    edges = [each for each in root.iter("mxCell") if each.get("edge")]
    assert {(each.get("source"), each.get("target")) for each in edges} == {
        *(("v1", "g1"), ("v2", "g1"), ("g1", "v3"), ("v3", "g2"), ("g2", "v4"))
    }
    assert all(each.get("source") in ids and each.get("target") in ids for each in edges)


def drawn_at(root: ElementTree.Element, key: str) -> tuple[float, ...]:
    (found,) = (
        each for each in root.iter() if each.get("id") == key and each.tag in ("mxCell", "UserObject")
    )
    (geometry,) = found.iter("mxGeometry")
    return tuple(float(geometry.get(name, "nan")) for name in ("x", "y", "width", "height"))


def round_rect(card: Card) -> tuple[float, ...]:
    rect = card.rect
    return tuple(round(value, 1) for value in (rect.left, rect.top, rect.width, rect.height))


def test_all_words_can_be_read() -> None:
    for colour in (*EDGES, INK, MUTED):
        for ground in (PAPER, GROUND, BAND):
            assert contrast(colour, ground) >= 4.5, (colour, ground)


def test_shapes_can_be_seen_on_their_ground() -> None:
    for colour in (*LINES, *STATE_COLOURS.values()):
        assert contrast(colour, PAPER) >= 2, colour


def test_no_two_states_have_the_same_shape_unless_one_is_hollow() -> None:
    shapes = [SHAPES[state] for state in State]
    assert len(set(shapes)) == len(shapes) - 1, "ready is a full circle, running a hollow one"


def test_who_else_is_on_a_network_is_named_without_control_characters() -> None:
    built = Builder()
    for number in range(20):
        built.network(f"n{number}", number + 1, f"10.0.{number}.0/24")
    built.vm(HOSTILE[5], "n0", "n1").vm("b", "n2", "n3")
    ElementTree.fromstring(svg(layout(drawn(built, Wanted(View.NETWORKS)))))
