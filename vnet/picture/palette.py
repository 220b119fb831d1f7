"""The colours of all pictures: Okabe and Ito's, which the colour-blind tell apart.

Pictures bring their own light ground, so that they read the same on a dark page. No colour stands
alone: a word, a mark or a shape says the same.
"""

from __future__ import annotations

from vnet.picture.beyond import Kind
from vnet.picture.scene import State

INK, MUTED, GROUND, PAPER, BAND, RULE = "#1a1a1a", "#555555", "#fbfbf8", "#ffffff", "#f1f1ec", "#bbbbbb"
BLUE, GREEN, VERMILION, PURPLE = "#0072b2", "#00795c", "#b84700", "#9a4f85"
"""Dark enough for text on PAPER: a contrast of 4.5 and more. All but BLUE are darker than the original."""
SKY, ORANGE, YELLOW = "#56b4e9", "#e69f00", "#f0e442"
"""For shapes and grounds only."""
LINES = (BLUE, "#d55e00", "#009e73", "#cc79a7", ORANGE, SKY, "#1a1a1a")
"""For networks, in turn."""
EDGES = (BLUE, VERMILION, GREEN, PURPLE, "#7a5c00", "#444444")
"""For what policies allow, in turn; labels are written in them."""
FILLS = {Kind.VM: PAPER, Kind.ROUTER: "#e3f1fb", Kind.OUTSIDE: "#fdf1d6"}
"""Grounds of boxes, light enough for any text."""
STATE_COLOURS = {
    State.CRASHED: VERMILION,
    State.NOT_ENFORCED: VERMILION,
    State.DROPPING: VERMILION,
    State.STARTING: ORANGE,
    State.STOPPING: ORANGE,
    State.STOPPED: MUTED,
    State.RUNNING: BLUE,
    State.READY: GREEN,
}


def edge_colour(gate: str) -> str:
    """The colour of a gate and its lines."""
    return EDGES[(int(gate[1:]) - 1) % len(EDGES)]


def network_colour(place: int) -> str:
    """The colour of the network at that place in the file."""
    return LINES[place % len(LINES)]


def contrast(one: str, other: str) -> float:
    """The ratio of two colours' luminance, 1 to 21. Source: WCAG 2.2, "contrast ratio"."""
    low, high = sorted(map(_luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    red, green, blue = (_linear(int(colour[at : at + 2], 16) / 255) for at in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(part: float) -> float:
    return part / 12.92 if part <= 0.04045 else float(((part + 0.055) / 1.055) ** 2.4)
