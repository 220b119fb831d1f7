"""Writes the generated parts of docs/: `make docs`. With `--check`, says which are out of date, exit 1.

A part of a page stands between `<!-- generated: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path

import picture

from vnet.base.drop import DropReason
from vnet.capture.comment import MEANING
from vnet.drill.groups import GROUPS
from vnet.fabric.declared import declare, work_out
from vnet.fabric.doctor import FABRIC, HOST
from vnet.fabric.store import Source
from vnet.policy import pipeline
from vnet.policy.compile import Compiled
from vnet.topology import schema
from vnet.topology.inventory import Inventory, expand
from vnet.topology.load import load_text
from vnet.topology.model import Topology

DOCS = Path(__file__).resolve().parents[1] / "docs"
_PART = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def drop_reasons() -> str:
    """The table of all reasons."""
    rows = [f"| {int(reason)} | `{reason.name}` | {MEANING[reason]} |" for reason in DropReason if reason]
    return "\n".join(("| number | reason | meaning |", "|---|---|---|", *rows)) + "\n"


TOPOLOGIES = DOCS.parent / "topologies"


def topologies(folder: str) -> str:
    """The small topologies of a folder: their opening comment, then the file."""
    return "\n".join(map(_topology, sorted((TOPOLOGIES / folder).glob("*.vnet.yaml"))))


def _topology(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = _comment(lines)
    link = f"[{path.name}](../../topologies/{path.parent.name}/{path.name})"
    rest = "\n".join(lines[len(comment) :])
    return f"## {_title(path)}\n\n{' '.join(comment)} ({link})\n\n```yaml\n{rest}\n```\n"


def _comment(lines: Sequence[str]) -> list[str]:
    return [line.removeprefix("# ") for line in takewhile(lambda line: line.startswith("#"), lines)]


def _title(path: Path) -> str:
    return path.name.removesuffix(".vnet.yaml").replace("-", " ").capitalize()


def attacks() -> str:
    """What `vnet drill` tries, group by group."""
    from vnet.drill.corpus import corpus  # imports Scapy
    from vnet.fabric.drill import scene

    file = TOPOLOGIES / "three-tier.vnet.yaml"
    declared = declare(Source(file.name, file.read_text(encoding="utf-8"), {}), {}, datetime.now(UTC))
    lines: list[str] = []
    for group, about in GROUPS.items():
        lines += ["", f"### {group}: {about}", "", "| attack | described in, or done by |", "|---|---|"]
        tried = corpus(scene(declared, declared.inventory.nics[0], None), (group,))
        lines += (f"| {each.what} | {each.source} |" for each in tried)
    return "\n".join(lines[1:]) + "\n"


def metrics() -> str:
    """All metrics with their labels."""
    from vnet.api.metrics import METRICS

    rows = (
        f"| `{each.name}` | {each.kind} | {', '.join(f'`{label}`' for label in each.labels)} | {each.help} |"
        for each in METRICS
    )
    return "\n".join(("| metric | is a | labels | |", "|---|---|---|---|", *rows)) + "\n"


def events() -> str:
    """All kinds of events with their fields."""
    from vnet.fabric.events import MEANING as KINDS

    rows = (f"| `{kind}` | {meaning} | {fields} |" for kind, (meaning, fields) in KINDS.items())
    return "\n".join(("| kind | means | fields |", "|---|---|---|", *rows)) + "\n"


def pictures() -> Iterator[tuple[Path, str]]:
    """The example of the README as a graph, a topology of the manual as graph and heat map."""
    from vnet.picture.heat import heat
    from vnet.picture.heat_layout import heat_layout
    from vnet.picture.heat_svg import svg as heat_svg
    from vnet.picture.layout import layout
    from vnet.picture.scene import Wanted, scene
    from vnet.picture.svg import svg

    example = re.search(
        r"```yaml\n(.*?)```", (DOCS.parent / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert example
    shown = _declared("README.md", example[1])
    yield DOCS / "images" / "example.svg", svg(layout(scene(*shown, Wanted())))
    file = TOPOLOGIES / "three-tier.vnet.yaml"
    shown = _declared(file.name, file.read_text(encoding="utf-8"))
    yield DOCS / "images" / "three-tier.svg", svg(layout(scene(*shown, Wanted())))
    yield DOCS / "images" / "three-tier-matrix.svg", heat_svg(heat_layout(heat(*shown)))
    for file in _shown():
        shown = _declared(file.name, file.read_text(encoding="utf-8"))
        yield _image(file), svg(layout(scene(*shown, Wanted())))


def _declared(name: str, text: str) -> tuple[Topology, Inventory, Compiled]:
    declared = work_out(load_text(text, name, {}), {}, datetime.now(UTC))
    return declared.topology, declared.inventory, declared.compiled


def _shown() -> list[Path]:
    """The topologies of the gallery, the small ones first."""
    return sorted(TOPOLOGIES.glob("*.vnet.yaml"), key=lambda path: (_vms(path), path.name))


def _vms(path: Path) -> int:
    text = path.read_text(encoding="utf-8")
    return len(expand(load_text(text, path.name, {}), {}).vms)


def _image(path: Path) -> Path:
    return DOCS / "images" / "gallery" / f"{path.name.removesuffix('.vnet.yaml')}.svg"


def gallery() -> str:
    """The larger topologies: what each is, its picture, where it lies."""
    return "\n".join(map(_exhibit, _shown()))


def _exhibit(path: Path) -> str:
    comment = _comment(path.read_text(encoding="utf-8").splitlines())
    words = (
        " ".join(comment)
        or "The example of the [README](../../README.md): two VLANs, three tiers, no router."
    )
    name = path.name.removesuffix(".vnet.yaml")
    link, image = f"../../topologies/{path.name}", f"../images/gallery/{name}.svg"
    return f"## {_title(path)}\n\n{words} ([{path.name}]({link}))\n\n![{name}]({image})\n"


def doctor() -> str:
    """The tables of what `vnet doctor` looks at."""
    lines = ["| check | looks at | if not |", "|---|---|---|"]
    lines += (f"| `{each.name}` | {each.looks_at} | {each.level} |" for each in HOST)
    lines += ["", "Of each fabric:", "", "| check | looks at | if not |", "|---|---|---|"]
    lines += (f"| `{each.name}` | {each.looks_at} | {each.level} |" for each in FABRIC)
    return "\n".join(lines) + "\n"


def suggested() -> str:
    """The worked example of docs/manual/suggest.md: its file, what is suggested for it, what a plan says."""
    from vnet.cli.suggest_command import in_words
    from vnet.fabric.declared import declare
    from vnet.fabric.replay import changes_of_verdict
    from vnet.fabric.seen_lines import read
    from vnet.fabric.store import Source
    from vnet.fabric.suggested import Question, report

    file, flows = DOCS / "manual" / "shop.vnet.yaml", DOCS / "manual" / "shop.flows.jsonl"
    now = datetime(2026, 11, 28, 15, 0, tzinfo=UTC)
    source = Source(file.name, file.read_text(encoding="utf-8"))
    seen = read(flows.read_text(encoding="utf-8").splitlines(), flows.name, now)
    meaning = {reason.name: text for reason, text in MEANING.items()}
    found = report(Question(source, seen, now, meaning=meaning))
    early = replace(source, text=source.text.replace("enforcement: audit", "enforcement: enforce"))
    stopped = changes_of_verdict(seen, declare(source, {}, now), declare(early, {}, now))
    told = [*found.diff.splitlines(), *in_words(found, len(seen), written=False)]
    return "\n".join(
        (
            *("```yaml", source.text.rstrip("\n"), "```", ""),
            *("```", "$ vnet policy suggest", *told, "```", ""),
            *("Enforced too early, `vnet plan` would say:", ""),
            *("```", "recorded flows that would be decided otherwise"),
            *(f"  - {change}" for change in stopped),
            "```",
        )
    )


PARTS: Mapping[str, Callable[[], str]] = {
    "attacks": attacks,
    "doctor": doctor,
    "drop-reasons": drop_reasons,
    "events": events,
    "features": lambda: topologies("features"),
    "cookbook": lambda: topologies("cookbook"),
    "gallery": gallery,
    "metrics": metrics,
    "pipeline": pipeline.markdown,
    "suggest": suggested,
}


def pages() -> Iterator[tuple[Path, str]]:
    """Each page with what it should hold."""
    yield DOCS.parent / schema.PUBLISHED, schema.text()
    yield DOCS / "images" / "packet.svg", picture.svg()
    yield from pictures()
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        yield page, _PART.sub(lambda part: part[1] + PARTS[part[2]]().rstrip("\n") + "\n" + part[3], text)


def main(arguments: list[str]) -> int:
    """Writes or checks; says what changes."""
    stale = [
        (page, text)
        for page, text in pages()
        if not page.exists() or page.read_text(encoding="utf-8") != text
    ]
    for page, text in stale:
        sys.stderr.write(f"{page.relative_to(DOCS.parent)}\n")
        if "--check" not in arguments:
            page.parent.mkdir(exist_ok=True)
            page.write_text(text, encoding="utf-8")
    if stale and "--check" in arguments:
        sys.stderr.write("out of date; make docs writes them anew\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
