#!/usr/bin/env bash
# Pins the Python packages of packaging/*.in, with the hashes of all their files, in packaging/*.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/lib.sh
readonly LOG=$PWD/build/requirements.log
readonly TOOLS=$PWD/build/pip-tools

run_visibly "pip-tools" "${PYTHON:-/usr/bin/python3}" -m venv "$TOOLS"
run_visibly "pip-tools" "$TOOLS/bin/python" -m pip install --disable-pip-version-check --quiet pip-tools

cd packaging
export CUSTOM_COMPILE_COMMAND="make requirements"
for name in requirements-build requirements requirements-dev requirements-conformance \
    requirements-faucet; do
    run_visibly "$name" "$TOOLS/bin/pip-compile" --quiet --upgrade --generate-hashes --strip-extras \
        --allow-unsafe --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
        --output-file "$name.txt" "$name.in"
done
