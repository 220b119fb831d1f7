"""Runs the bench on this machine, in namespaces of its own, and yields what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.guests.boot import MARK


def run(tree: Path, limit_s: float) -> Iterator[dict[str, Any]]:
    """Each figure as it comes, measured with the staged `tree`."""
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    command = [sys.executable, "-m", "tests.perf.inside", "host"]
    process = subprocess.Popen(command, cwd=tree, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    watch = threading.Timer(limit_s, process.terminate)
    watch.start()
    try:
        for line in process.stdout:
            if line.startswith(MARK):
                yield json.loads(line.removeprefix(MARK))
            else:
                print(line, end="", file=sys.stderr)
    finally:
        watch.cancel()
        process.terminate()
        process.wait()
