#!/usr/bin/env bash
# Install what is missing, check style, format and types, run the tests.
#
#     bash tools/test.sh [--stack openmmlab | onedl] [pytest's arguments]
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

show_help "$0" "$@"
choose_stack "$@"
bash "$ROOT/tools/install.sh" --stack "$stack"
python=$(environment "$stack")/bin/python
cd "$ROOT"
step "Style (ruff)" "$python" -m ruff check .
step "Format (ruff)" "$python" -m ruff format --check .
step "Types (mypy)" "$python" -m mypy nl_plugins
printf '== Tests (pytest)\n'
# One worker a core, each with one thread. pytest's closing line names the
# result and the time.
workers=$(nproc)
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "$python" -m pytest -n "$((workers < 4 ? workers : 4))" \
    --dist loadgroup "${arguments[@]}"
