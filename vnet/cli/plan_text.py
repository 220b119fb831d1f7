"""A plan as people read it: what is added, changed and removed, by kind, and how much of it there is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_HEADINGS = {
    "fabric": "fabric",
    "vm": "VMs",
    "port": "ports",
    "mirror": "mirrors",
    "service": "networks whose guests are answered",
    "gateway": "ways out",
    "uplink": "uplinks",
    "endpoint": "endpoints",
    "policy": "policies",
    "reach": "who may open connections",
    "connection": "live connections that are cut",
}
_COLOURS = {"+": "32", "~": "33", "-": "31"}
_COUNTED = {"vms": ("VM", "VMs"), "ports": ("port", "ports"), "flows": ("flow", "flows")}

Plan = Mapping[str, Any]
VERDICTS_MAX = 20
"""So many of the recorded flows are listed; those that would be stopped come first."""


def lines(plan: Plan, coloured: bool) -> Iterator[str]:
    """The plan, line by line; nothing but its generation when it changes nothing."""
    if not plan["actions"]:
        yield f"{plan['fabric']}: nothing to change, generation {plan['generation']}"
        return
    yield f"{plan['fabric']}: to generation {plan['generation']}"
    for kind, heading in _HEADINGS.items():
        found = [change for change in plan["changes"] if change["kind"] == kind]
        if found:
            yield heading
        yield from (_change(change, coloured) for change in found)
    yield from _verdicts(plan.get("verdicts", ()), coloured)
    yield from (f"advice: {each['vm']}: {each['text']}" for each in plan.get("advice", ()))
    yield "; ".join(
        filter(None, (_counted(plan["counts"][kind], *names) for kind, names in _COUNTED.items()))
    )


def _change(change: Mapping[str, str], coloured: bool) -> str:
    mark = change["mark"]
    if coloured:
        mark = f"\x1b[{_COLOURS[mark]}m{mark}\x1b[0m"
    what = f": {change['what']}" if change["what"] else ""
    return f"  {mark} {change['name']}{what}"


def _verdicts(changes: Sequence[Mapping[str, Any]], coloured: bool) -> Iterator[str]:
    """Recorded flows that would be decided otherwise, as many as fit."""
    if changes:
        yield "recorded flows that would be decided otherwise"
    for change in changes[:VERDICTS_MAX]:
        mark = {"denied": "-", "audited": "~"}.get(change["becomes"], "+")
        yield _change({"mark": mark, "name": change["text"], "what": ""}, coloured)
    if len(changes) > VERDICTS_MAX:
        yield f"    and {len(changes) - VERDICTS_MAX:,} more; `vnet plan -o json` has all of them"


def _counted(count: Mapping[str, int], one: str, many: str) -> str:
    """`VMs: 1 added, 3 kept`; nothing where there is none."""
    parts = [f"{number} {word}" for word, number in count.items() if number]
    return f"{one if sum(count.values()) == 1 else many}: {', '.join(parts)}" if parts else ""
