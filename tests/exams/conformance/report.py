"""Results as JSON, as tables for the terminal, and as docs/conformance.md."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.exams.conformance.cases import CATEGORIES, Case
from tests.exams.conformance.causes import CAUSES, Cause, Need, cause, need
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
were installed and the packet comes out by the right port with the right bytes; a refusal is a failure. Groups
that select and meters are put to half a minute of packets each, up to 20,000 a second, and each output must
get its share within 10 %.

{summaries}
"""


def document(by_switch: Mapping[str, Sequence[Result]]) -> str:
    """docs/conformance.md."""
    any_results = next(iter(by_switch.values()))
    summaries = "\n".join(f"- {NAMES[switch]}: {summary(found)}" for switch, found in by_switch.items())
    head = HEAD.format(total=len(any_results), summaries=summaries)
    return "\n".join((head, _comparison(by_switch), _causes(by_switch), _unexplained(by_switch)))


def _comparison(by_switch: Mapping[str, Sequence[Result]]) -> str:
    """Matches and actions by what they need, too."""
    columns = list(by_switch.values())
    rows = [_row("", "cases", [NAMES[switch] for switch in by_switch]), f"|---|---:|{'---:|' * len(columns)}"]
    for category in CATEGORIES:
        rows.append(_counted(category, [_of(found, category) for found in columns]))
        parts = [(n, [_of(found, category, n) for found in columns]) for n in Need]
        if sum(any(part) for _, part in parts) > 1:
            rows += [_counted(f"… {WITH[n]}", part) for n, part in parts if any(part)]
    return "\n".join((*rows, _counted("all", columns), ""))


WITH = {Need.NOTHING: "without MPLS and PBB", Need.MPLS: "with MPLS", Need.PBB: "with PBB"}


def _of(found: Sequence[Result], category: str, needed: Need | None = None) -> list[Result]:
    return [
        result
        for result in found
        if result.category == category and needed in (None, need(result.description))
    ]


def _counted(name: str, columns: Sequence[Sequence[Result]]) -> str:
    passed = [str(sum(result.passed for result in part)) if part else "not run" for part in columns]
    return _row(name, str(max(map(len, columns))), passed)


def _row(*cells: str | Sequence[str]) -> str:
    flat = [text for cell in cells for text in ([cell] if isinstance(cell, str) else cell)]
    return f"| {' | '.join(flat)} |"


def _causes(by_switch: Mapping[str, Sequence[Result]]) -> str:
    """Known reasons, with how many cases each switch fails for them."""
    failed = {switch: Counter(map(_cause, _failed(found))) for switch, found in by_switch.items()}
    lines = [
        "## What fails, and why\n",
        _row("cause", [f"{NAMES[switch]} fails" for switch in by_switch], "explanation"),
        f"|---|{'---:|' * len(by_switch)}---|",
    ]
    for known in CAUSES:
        counts = [count[known] for count in failed.values()]
        if any(counts):
            lines.append(_row(known.title, [str(count) for count in counts], known.text))
    return "\n".join((*lines, ""))


def _failed(found: Sequence[Result]) -> list[Result]:
    return [result for result in found if not result.passed]


def _cause(result: Result) -> Cause | None:
    return cause(result.file, result.description)


def _unexplained(by_switch: Mapping[str, Sequence[Result]]) -> str:
    lines = []
    for switch, found in by_switch.items():
        rest = Counter((r.file, _short(r.reason)) for r in _failed(found) if _cause(r) is None)
        lines += [
            _row(NAMES[switch], file, str(count), _escaped(why))
            for (file, why), count in sorted(rest.items())
        ]
    if not lines:
        return "Every failure has one of these causes.\n"
    head = "## What else fails\n\n| switch | cases of | how many | reason |\n|---|---|---:|---|"
    return "\n".join((head, *lines, ""))


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
