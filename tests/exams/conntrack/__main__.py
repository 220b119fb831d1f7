"""Runs the exam; fails when a result is not the one that expected_failures.toml tells.

python -m tests.exams.conntrack [--switch ovs|vnet|both] [--only PATTERN] [-o FILE] [--record] [-v]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
import time
from pathlib import Path

from tests.exams.conntrack import expected
from tests.exams.conntrack.exam import Result, chosen, sit
from tests.exams.conntrack.switches import KINDS, Lab


def _examine(kind: str, titles: list[str], verbose: bool) -> list[Result]:
    known, results = expected.failures().get(kind, {}), []
    began = time.monotonic()
    with Lab(kind) as lab:
        for title in titles:
            results.append(result := sit(lab, title))
            surprising = result.passed == (title in known)
            mark = ("ok  " if result.passed else "FAIL") + (" !" if surprising else "  ")
            print(f"{mark} {kind} {result.seconds:5.1f} s  {title}", file=sys.stderr)
            if not result.passed and (surprising or verbose):
                print(f"       {result.why if verbose else _brief(result.why)}", file=sys.stderr)
    passed = sum(result.passed for result in results)
    print(f"{kind}: {passed} passed, {len(results) - passed} failed in {time.monotonic() - began:.0f} s")
    return results


def _brief(why: str) -> str:
    """The OpenFlow error of a refused flow, or else the statement that failed."""
    refused = re.search(r"Error (OFP\w+) for: OFPT_FLOW_MOD[^\n]*?ADD ([^\n]*)", why)
    if refused:
        return f"{refused[1]} for {refused[2]}"
    last = why.strip().splitlines()[-1]
    if "ovs-ofctl" in why and "Error OFP" in why:
        return "an OpenFlow error: " + re.findall(r"Error (OFP\w+)", why)[0]
    stated = [line.strip() for line in why.splitlines() if re.match(r"\s+assert\b", line)]
    return stated[-1] if stated and last == "AssertionError" else last.removeprefix("AssertionError: ")


def _surprises(kind: str, results: list[Result]) -> list[str]:
    known = expected.failures().get(kind, {})
    return [result.title for result in results if result.passed == (result.title in known)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.exams.conntrack", description=__doc__)
    parser.add_argument("--switch", choices=[*KINDS, "both"], default="both")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="titles that contain this")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the results as JSON")
    parser.add_argument("--record", action="store_true", help="take the results for the expected ones")
    parser.add_argument("-v", "--verbose", action="store_true", help="whole tracebacks")
    given = parser.parse_args()
    if given.record and given.only != "*":
        parser.error("--record needs all titles")
    kinds = list(KINDS) if given.switch == "both" else [given.switch]
    results = {kind: _examine(kind, chosen(given.only), given.verbose) for kind in kinds}
    if given.output:
        document = {kind: [dataclasses.asdict(r) for r in rs] for kind, rs in results.items()}
        given.output.write_text(json.dumps(document, indent=1) + "\n")
    if given.record:
        for kind, rs in results.items():
            expected.record(kind, {r.title: _brief(r.why) for r in rs if not r.passed})
    surprises = {kind: _surprises(kind, rs) for kind, rs in results.items()}
    for kind, titles in surprises.items():
        for title in titles:
            print(f"{kind}: not as expected: {title}")
    return 1 if any(surprises.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
