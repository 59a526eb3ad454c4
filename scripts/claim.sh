#!/usr/bin/env bash
# Repeat the quickstart over several seeds in the background, and write a table of them. See -h.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/claim.sh [NUMBER_OF_SEEDS (5)] [FOLDER (results/claim)]

Sets up .venv, then runs the quickstart for several seeds in the background and writes a table of them.
Seeds that already have a result are not repeated, so the same command continues after an interruption.
TEXT
}

if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then usage && exit 0; fi # before set-up, which installs packages
if [[ ! "${1:-5}" =~ ^[1-9][0-9]*$ || $# -gt 2 ]]; then
    usage >&2
    echo "claim: the number of seeds must be a whole number from 1 on, got: ${1:-5}" >&2
    exit 2
fi
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
seeds="${1:-5}"
output="${2:-results/claim}"
./scripts/setup.sh
mkdir -p "$output"
nohup .venv/bin/python -m rlt.quickstart.claim --seeds "$seeds" --output "$output" \
    >>"$output/claim.log" 2>&1 </dev/null &
cat <<TEXT
$seeds seeds run in the background, about ten minutes each (process $!).
follow:  tail -f $output/claim.log
result:  $output/claim.md and $output/claim.json
stop:    kill $!
TEXT
