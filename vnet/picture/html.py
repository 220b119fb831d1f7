"""A picture as one HTML file that needs nothing else: move, zoom, search, and follow one VM's connections."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from vnet.picture.palette import BLUE, GROUND, INK, MUTED, PAPER, RULE
from vnet.picture.text import FONT

STYLE = f"""
html, body {{ margin: 0; height: 100%; background: {GROUND}; color: {INK}; font: 13px {FONT}; }}
body {{ display: flex; flex-direction: column; }}
header {{ display: flex; flex-wrap: wrap; gap: 8px; align-items: center; padding: 8px 12px; }}
header {{ background: {PAPER}; border-bottom: 1px solid {RULE}; }}
header output, header span {{ color: {MUTED}; }}
input, button {{ font: inherit; padding: 4px 8px; color: {INK}; background: {PAPER}; }}
input, button {{ border: 1px solid {MUTED}; border-radius: 4px; }}
input:focus-visible, button:focus-visible, g:focus-visible {{ outline: 3px solid {BLUE}; }}
main {{ flex: 1; overflow: hidden; cursor: grab; touch-action: none; }}
main svg {{ width: 100%; height: 100%; }}
svg.chosen .box, svg.chosen .gate, svg.chosen .wire {{ opacity: 0.13; }}
svg.chosen .cell {{ opacity: 0.35; }}
svg.chosen .on {{ opacity: 1 !important; }}
svg .wire.on {{ stroke-width: 2.6; }}
svg .found > rect {{ stroke-width: 4; }}
svg .head.on text, svg .head.found text {{ font-weight: bold; fill: {BLUE}; }}
"""

SCRIPT = """
"use strict";
const svg = document.querySelector("main svg"), search = document.querySelector("input");
const told = document.querySelector("output"), whole = svg.getAttribute("viewBox").split(" ").map(Number);
svg.removeAttribute("width");
svg.removeAttribute("height");
let box = [...whole], held = null, kept = null, moved = 0;
const all = (what) => [...svg.querySelectorAll(what)];
const show = () => svg.setAttribute("viewBox", box.join(" "));
const scale = () => Math.max(box[2] / svg.clientWidth, box[3] / svg.clientHeight);
function zoom(by, x, y) {
  const width = Math.min(whole[2] * 4, Math.max(whole[2] / 80, box[2] * by));
  by = width / box[2];
  const at = svg.createSVGPoint();
  at.x = x; at.y = y;
  const here = at.matrixTransform(svg.getScreenCTM().inverse());
  box = [here.x - (here.x - box[0]) * by, here.y - (here.y - box[1]) * by, width, box[3] * by];
  show();
}
svg.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(event.deltaY / 500), event.clientX, event.clientY);
}, { passive: false });
svg.addEventListener("pointerdown", (event) => {
  held = [event.clientX, event.clientY];
  moved = 0;
});
addEventListener("pointerup", () => { held = null; });
addEventListener("pointermove", (event) => {
  if (!held) return;
  const by = scale(), right = event.clientX - held[0], down = event.clientY - held[1];
  box[0] -= right * by;
  box[1] -= down * by;
  held = [event.clientX, event.clientY];
  moved += Math.abs(right) + Math.abs(down);
  show();
});
const buttons = { in: () => middle(0.7), out: () => middle(1.4), all: () => { box = [...whole]; show(); } };
function middle(by) {
  const area = svg.getBoundingClientRect();
  zoom(by, area.left + area.width / 2, area.top + area.height / 2);
}
for (const [name, act] of Object.entries(buttons)) {
  document.getElementById(name).addEventListener("click", act);
}
const words = (element, name) => (element.dataset[name] || "").split(" ").filter(Boolean);
function follow(thing) {
  all(".on").forEach((each) => each.classList.remove("on"));
  svg.classList.toggle("chosen", !!thing);
  if (!thing) return;
  const boxes = new Set(), gates = new Set(), own = thing.dataset.box;
  for (const gate of all(".gate")) {
    const from = words(gate, "sources"), to = words(gate, "targets"), is = thing === gate;
    if (!is && !from.includes(own) && !to.includes(own)) continue;
    gates.add(gate.dataset.gate);
    if (is || from.includes(own)) to.forEach((each) => boxes.add(each));
    if (is || to.includes(own)) from.forEach((each) => boxes.add(each));
  }
  if (own) boxes.add(own);
  for (const each of all(".box")) each.classList.toggle("on", boxes.has(each.dataset.box));
  for (const each of all(".gate")) each.classList.toggle("on", gates.has(each.dataset.gate));
  for (const each of all(".wire")) {
    const ends = each.dataset.box;
    each.classList.toggle("on", gates.has(each.dataset.gate) && (!ends || boxes.has(ends)));
  }
  const { row, column } = thing.dataset;
  for (const each of all(".cell, .head")) {
    const near = (row && each.dataset.row === row) || (column && each.dataset.column === column);
    each.classList.toggle("on", !!near);
  }
}
for (const thing of all(".box, .gate, .cell")) {
  thing.setAttribute("tabindex", "0");
  thing.addEventListener("pointerenter", () => { if (!kept && !held) follow(thing); });
  thing.addEventListener("pointerleave", () => { if (!kept && !held) follow(null); });
  thing.addEventListener("focus", () => { if (!held) follow(thing); });
  thing.addEventListener("blur", () => { if (!kept) follow(null); });
  thing.addEventListener("click", () => {
    if (moved > 4) return;
    kept = kept === thing ? null : thing;
    follow(kept);
  });
}
addEventListener("keydown", (event) => { if (event.key === "Escape") { kept = null; follow(null); } });
search.addEventListener("input", () => {
  const wanted = search.value.trim().toLowerCase(), found = [];
  for (const each of all(".box, .gate, .head")) {
    const text = each.textContent.toLowerCase();
    const is = wanted !== "" && text.includes(wanted);
    each.classList.toggle("found", is);
    if (is) found.push(each);
  }
  told.textContent = wanted === "" ? "" : `${found.length} found`;
  if (found.length) {
    const place = found[0].getBBox(), width = Math.min(whole[2], 900), high = width * box[3] / box[2];
    box = [place.x + place.width / 2 - width / 2, place.y + place.height / 2 - high / 2, width, high];
  } else box = [...whole];
  show();
});
"""


def page(title: str, svg: Iterable[str], what: str) -> str:
    """The whole file.

    Args:
        what: what pointing at a thing does, in words.
    """
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style></head><body><header>",
            f"<strong>{escape(title)}</strong>",
            '<input type="search" placeholder="find a VM, address, port" aria-label="find">',
            '<button id="in" aria-label="closer">+</button><button id="out" aria-label="farther">−</button>',
            f'<button id="all">all</button><output></output><span>{escape(what)}</span>',
            "</header><main>",
            *svg,
            f"</main><script>{SCRIPT}</script></body></html>",
            "",
        )
    )
