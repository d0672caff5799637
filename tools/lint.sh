#!/usr/bin/env bash
# lint.sh BIN: style, types and import contracts.
set -euo pipefail
bin=$1
"$bin/ruff" check .
"$bin/mypy"
"$bin/lint-imports" --no-cache
"$bin/python" docs/reference.py --check
