"""Draws cost against rules, flows and ports: `plots.py FIGURES.json FOLDER`. Needs only matplotlib."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib  # type: ignore[import-not-found]

matplotlib.use("svg")
from matplotlib import pyplot

Curves = Mapping[str, list[tuple[int, float]]]
COLOURS = {"vnet": "#1f6f8b", "bridge": "#b0653a", "nft linear": "#7a7a7a"}


def main(source: Path, folder: Path) -> None:
    figures = json.loads(source.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    harness = next((f["value"] for f in figures if f["row"] == 3 and f["peer"] == "harness"), 0.0)
    rules = {
        name: [(x, y - harness) for x, y in curve] for name, curve in curves(figures, 3, r"^(\d+)$").items()
    }
    draw(
        folder / "cost-rules.svg",
        rules,
        "rules",
        "instructions a packet",
        "Established connection, rules for its receiver",
    )
    flows = curves(figures, 5, r"^(\d+) flows, ns$")
    draw(folder / "cost-flows.svg", flows, "flows in turn", "ns a packet", "Layer 2 with a look at UDP ports")
    ports = curves(figures, 17, r"^unicast (\d+)$")
    copies = {f"{name}, flood": curve for name, curve in curves(figures, 17, r"^copy of (\d+)$").items()}
    draw(
        folder / "cost-ports.svg",
        {**ports, **copies},
        "ports",
        "instructions a packet or copy",
        "Unicast, and each copy of a flood",
    )


def curves(figures: list[dict[str, Any]], row: int, case: str) -> dict[str, list[tuple[int, float]]]:
    """The points of each peer of a row, in order."""
    found: dict[str, list[tuple[int, float]]] = {}
    for figure in figures:
        matched = re.match(case, figure["case"])
        if figure["row"] == row and matched and figure["peer"] != "harness":
            found.setdefault(figure["peer"], []).append((int(matched[1]), figure["value"]))
    return {name: sorted(points) for name, points in found.items()}


def draw(target: Path, lines: Curves, across: str, up: str, title: str) -> None:
    """One plot with the number of things on a logarithmic axis."""
    if not lines:
        return
    # the same figures make the same file: neither a date nor random names in it
    pyplot.rcParams["svg.hashsalt"] = "vnet"
    figure, axes = pyplot.subplots(figsize=(6, 3.4))
    for name, points in lines.items():
        peer, _, flood = name.partition(",")
        style = "--" if flood else "-"
        axes.plot(*zip(*points, strict=True), style, marker="o", ms=4, color=COLOURS.get(peer), label=name)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set(xlabel=across, ylabel=up, title=title)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(target, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
