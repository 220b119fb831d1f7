"""Results as JSON, as tables for the terminal, and as docs/conformance.md."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.exams.conformance.cases import CATEGORIES, Case
from tests.exams.conformance.lab import FULL_LOAD, Verdict
from vnet.openflow import errors

RESULTS = Path(__file__).parent / "results"
NAMES = {"ovs": "Open vSwitch", "vnet": "vnet"}
REASON_LENGTH = 300
ERROR = re.compile(r"OFPErrorMsg\[type=0x([0-9a-f]+), code=0x([0-9a-f]+)\]")


@dataclass(frozen=True, slots=True)
class Result:
    """One case with its verdict, as it is kept."""

    key: str
    title: str
    description: str
    passed: bool
    reason: str

    @property
    def category(self) -> str:
        """The part of the exam that it belongs to."""
        return self.key.partition("/")[0]

    @property
    def file(self) -> str:
        """The file that it stands in."""
        return self.key.partition("#")[0]


def results(cases: Iterable[Case], verdicts: Iterable[Verdict]) -> tuple[Result, ...]:
    """Cases and verdicts put together."""
    return tuple(
        Result(case.key, case.title, case.description, verdict.passed, _reason(verdict))
        for case, verdict in zip(cases, verdicts, strict=True)
    )


def _reason(verdict: Verdict) -> str:
    if verdict.passed or verdict.load >= FULL_LOAD:
        return verdict.reason
    return f"{verdict.reason} (the machine could send only {verdict.load:.0%} of the load)"


def save(path: Path, switch: str, found: Sequence[Result]) -> None:
    """Write results as JSON."""
    path.write_text(as_json(switch, found))


def as_json(switch: str, found: Sequence[Result]) -> str:
    """Results with their sums, one case a line, so that a difference can be read."""
    lines = ",\n".join(f"  {json.dumps(_kept(result))}" for result in found)
    passed = sum(result.passed for result in found)
    head = f'"switch": {json.dumps(switch)}, "passed": {passed}, "failed": {len(found) - passed}'
    return f'{{{head}, "cases": [\n{lines}\n]}}\n'


def _kept(result: Result) -> Mapping[str, object]:
    return {**asdict(result), "reason": " ".join(result.reason.split())[:REASON_LENGTH]}


def load(path: Path) -> tuple[Result, ...]:
    """Read what `save` wrote."""
    return tuple(Result(**case) for case in json.loads(path.read_text())["cases"])


def summary(found: Sequence[Result]) -> str:
    """The line that says it all."""
    passed = sum(result.passed for result in found)
    return f"{passed} passed, {len(found) - passed} failed"


def table(found: Sequence[Result]) -> str:
    """Per category, for a terminal."""
    rows = [(category, *_count(found, category)) for category in CATEGORIES]
    return "\n".join(f"{category:8} {passed:4} of {total:4}" for category, passed, total in rows if total)


def _count(found: Sequence[Result], category: str) -> tuple[int, int]:
    of_it = [result.passed for result in found if result.category == category]
    return sum(of_it), len(of_it)


# -- the document ---------------------------------------------------------------------------------

HEAD = """\
# Conformance to OpenFlow 1.3

<!-- Made by `python -m tests.exams.conformance --document` out of tests/exams/conformance/results/. -->

os-ken, the maintained form of Ryu, ships with a tester for OpenFlow switches and {total} cases for OpenFlow
1.3. `make conformance` runs them all, with that tester, against Open vSwitch (userspace datapath) and against
vnet, over three links in a network namespace. A case passes if the flows, groups and meters read back as they
were installed and the packet comes out by the right port with the right bytes; a refusal is a failure.

207 cases need provider backbone bridging (IEEE 802.1ah), which neither switch has, and 232 more need MPLS. No
switch passes the 16 cases that set an SCTP port: os-ken takes the checksum of their packets over the text
`bytearray(b'…')` instead of over the bytes. `--repair-sctp` gives those packets correct checksums.
"""


def document(by_switch: Mapping[str, Sequence[Result]]) -> str:
    """docs/conformance.md."""
    any_results = next(iter(by_switch.values()))
    parts = [HEAD.format(total=len(any_results)), _comparison(by_switch)]
    if "vnet" in by_switch:
        parts.append(_failures(by_switch["vnet"], by_switch.get("ovs", ())))
    return "\n".join(parts)


def _comparison(by_switch: Mapping[str, Sequence[Result]]) -> str:
    names = [NAMES[switch] for switch in by_switch]
    head = f"| | cases | {' | '.join(names)} |\n|---|---:|{'---:|' * len(names)}\n"
    rows = []
    for category in CATEGORIES:
        counts = [_count(found, category) for found in by_switch.values()]
        rows.append(f"| {category} | {max(total for _, total in counts)} | {_cells(counts)} |")
    totals = [(sum(result.passed for result in found), len(found)) for found in by_switch.values()]
    rows.append(f"| all | {max(total for _, total in totals)} | {_cells(totals)} |")
    return head + "\n".join(rows) + "\n"


def _cells(counts: Iterable[tuple[int, int]]) -> str:
    return " | ".join(str(passed) if total else "not run" for passed, total in counts)


def _failures(mine: Sequence[Result], peer: Sequence[Result]) -> str:
    peer_passed = {result.key for result in peer if result.passed}
    groups = Counter((result.file, _short(result.reason)) for result in mine if not result.passed)
    if not groups:
        return "## What vnet fails\n\nNothing.\n"
    lines = [
        "## What vnet fails\n",
        "| cases of | how many | Open vSwitch passes | reason |",
        "|---|---:|---:|---|",
    ]
    for (file, reason), count in sorted(groups.items()):
        members = [r for r in mine if not r.passed and (r.file, _short(r.reason)) == (file, reason)]
        also = sum(result.key in peer_passed for result in members)
        lines.append(f"| {file} | {count} | {also} | {_escaped(reason)} |")
    return "\n".join(lines) + "\n"


def _short(reason: str) -> str:
    text = ERROR.sub(_error_name, " ".join(reason.split()))
    return text if len(text) <= 140 else f"{text[:139]}…"


def _error_name(found: re.Match[str]) -> str:
    """`OFPErrorMsg[type=0x02, code=0x00]` in words: BAD_ACTION BAD_TYPE."""
    kind, code = int(found[1], 16), int(found[2], 16)
    try:
        name = errors.ErrorType(kind).name
        return f"{name} {getattr(errors, name.title().replace('_', ''))(code).name}"
    except (AttributeError, ValueError):
        return f"error {kind}/{code}"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
