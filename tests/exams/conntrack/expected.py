"""Which titles are known to fail on which switch and why, and the page of docs/ that says so."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.exams.conntrack.titles import ALL, EXTRA, IMPLEMENTED, TITLES

FILE = Path(__file__).with_name("expected_failures.toml")
PAGE = Path(__file__).resolve().parents[3] / "docs" / "conntrack-exam.md"

SEEN = "seen: "
"""Begins a reason that is only what happened."""
_HEAD = """\
# Titles that fail, by switch, with the reason. A title that is listed and passes is an error, too:
# `python -m tests.exams.conntrack --record` writes this file and docs/conntrack-exam.md anew.
"""


def failures() -> dict[str, dict[str, str]]:
    """Reason by title, by switch."""
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


def record(kind: str, failed: Mapping[str, str]) -> None:
    """Note what fails on a switch; a reason that was written by hand is kept."""
    known = failures()
    by_hand = {t: why for t, why in known.get(kind, {}).items() if not why.startswith(SEEN)}
    known[kind] = {title: by_hand.get(title, SEEN + why) for title, why in failed.items()}
    tables = (f"\n[{name}]\n" + "".join(_entries(known[name])) for name in sorted(known))
    FILE.write_text(_HEAD + "".join(tables), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")


def _entries(reasons: Mapping[str, str]) -> Iterable[str]:
    for title in ALL:
        if title in reasons:
            yield f"{json.dumps(title)} = {json.dumps(reasons[title], ensure_ascii=False)}\n"


def page() -> str:
    """docs/conntrack-exam.md."""
    known = failures()
    ovs, vnet = known.get("ovs", {}), known.get("vnet", {})
    total = len(IMPLEMENTED)
    ovs_passes, vnet_passes = (sum(title not in failed for title in IMPLEMENTED) for failed in (ovs, vnet))
    lines = [
        "# The connection tracking exam",
        "",
        "`make ct-exam` runs namesakes of the titles of Open vSwitch's public test suite `system-traffic.at`",
        "on Open vSwitch (3.1, in user space) and on this switch: the same body, the same flows through",
        "`ovs-ofctl`, real packets between network namespaces. This page is written by",
        "`python -m tests.exams.conntrack --record`.",
        "",
        f"Of {len(TITLES)} titles {total} apply. "
        f"Open vSwitch passes {ovs_passes}, this switch {vnet_passes}.",
        "",
        "## Titles that apply",
        "",
        "| title | Open vSwitch | this switch |",
        "|---|---|---|",
        *(f"| {title} | {_result(ovs, title)} | {_result(vnet, title)} |" for title in IMPLEMENTED),
        "",
        "## What the public titles leave out",
        "",
        "| what | Open vSwitch | this switch |",
        "|---|---|---|",
        *(f"| {title} | {_result(ovs, title)} | {_result(vnet, title)} |" for title in EXTRA),
        "",
        "## Titles that do not apply",
        "",
        "| title | because it |",
        "|---|---|",
        *(f"| {title} | {reason} |" for title, reason in TITLES.items() if reason),
        "",
    ]
    return "\n".join(lines)


def _result(failed: Mapping[str, str], title: str) -> str:
    why = failed.get(title, "").replace("|", "\\|")
    return f"fails: {why}" if why else "passes"
