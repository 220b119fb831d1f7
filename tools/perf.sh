#!/usr/bin/env bash
# Measures the rows of tests/perf: tools/perf.sh [--rows 1,2] [--tree CHECKOUT] [--kernel 6.1|6.12]
# The bench is the one beside this script, from wherever it is called.
set -euo pipefail
cd "$(dirname "$0")/.."
exec .venv/bin/python -m tests.perf "$@"
