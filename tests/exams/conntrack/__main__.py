"""`python -m tests.exams.conntrack [--switch ovs|vnet|both] [--only PATTERN] [-o FILE]`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

from tests.exams.conntrack.exam import Result, chosen, opened, sit
from tests.exams.conntrack.switches import KINDS


def _examine(kind: str, titles: list[str], verbose: bool) -> list[Result]:
    results = []
    began = time.monotonic()
    with opened(kind) as lab:
        for title in titles:
            results.append(result := sit(lab, title))
            mark = "ok  " if result.passed else "FAIL"
            print(f"{mark} {kind} {result.seconds:5.1f} s  {title}", file=sys.stderr)
            if not result.passed:
                why = result.why if verbose else result.why.strip().splitlines()[-1][:200]
                print(f"     {why}", file=sys.stderr)
    passed = sum(result.passed for result in results)
    print(f"{kind}: {passed} passed, {len(results) - passed} failed in {time.monotonic() - began:.0f} s")
    return results


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.exams.conntrack", description=__doc__)
    parser.add_argument("--switch", choices=[*KINDS, "both"], default="both")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="titles that contain this")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the results as JSON")
    parser.add_argument("-v", "--verbose", action="store_true", help="whole tracebacks")
    given = parser.parse_args()
    kinds = list(KINDS) if given.switch == "both" else [given.switch]
    results = {kind: _examine(kind, chosen(given.only), given.verbose) for kind in kinds}
    if given.output:
        document = {kind: [dataclasses.asdict(r) for r in rs] for kind, rs in results.items()}
        given.output.write_text(json.dumps(document, indent=1) + "\n")
    return 0 if all(result.passed for rs in results.values() for result in rs) else 1


if __name__ == "__main__":
    sys.exit(main())
