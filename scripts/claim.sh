#!/usr/bin/env bash
# Repeat the quickstart over several seeds in the background, and write a table of them.
# usage: scripts/claim.sh [NUMBER_OF_SEEDS (5)] [FOLDER (results/claim)]
# A seed that has a result is not run again: the same command goes on after an interruption.
set -euo pipefail
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
