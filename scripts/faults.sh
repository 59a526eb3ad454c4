#!/usr/bin/env bash
# The fault test-bed: everything that may go wrong, on purpose. See -h.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/faults.sh [PYTEST ARGUMENT …]

Sets up .venv, then runs every scenario of tests/faults with real launchers, trainings and vLLM servers on
tiny models: bad input, kills, hangs, suspensions, full disks, small limits, variables that others left
behind, other people's servers. Prints a table of what went wrong, what must come of it and whether it did,
writes it to results/faults.md as well, and counts the steps and rows that were lost. The better part of
an hour on 2 CPU cores; `-m "not long"` is the part that scripts/test.sh runs, `-k disk` one file's.
TEXT
}

case "${1:-}" in -h | --help) usage && exit 0 ;; esac
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
export PATH="$PWD/.venv/bin:$PATH"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" HF_HUB_OFFLINE=1
mkdir -p results
exec python -m pytest tests/faults -n 2 --dist loadfile --faults-table results/faults.md "$@"
