#!/usr/bin/env bash
# Run the paper's claims in miniature over several seeds, and write tables of them. See -h.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/claims.sh [NUMBER_OF_SEEDS (5)] [FOLDER (results/claims)] [PART …]

Sets up .venv, then runs the claims of docs/claims.md in the background, two seeds at a time with one thread
each. Parts: models rivals ablations ranks cold_start transfer larger three_ways (default: all, in this
order).
What is finished is not repeated, so the same command continues after an interruption.
TEXT
}

if [[ "${1:-}" == -h || "${1:-}" == --help ]]; then usage && exit 0; fi # before set-up, which installs packages
if [[ ! "${1:-5}" =~ ^[1-9][0-9]*$ ]]; then
    usage >&2
    echo "claims: the number of seeds must be a whole number from 1 on, got: ${1:-5}" >&2
    exit 2
fi
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
seeds="${1:-5}"
output="${2:-results/claims}"
parts=("${@:3}")
((${#parts[@]})) || parts=(models rivals ablations ranks cold_start transfer larger three_ways)
./scripts/setup.sh
mkdir -p "$output"
export OMP_NUM_THREADS=1
# shellcheck disable=SC2016 # the inner shell expands them
setsid nohup bash -c '
    output="$1" last="$2" parts=("${@:3}")
    run=(.venv/bin/python -m rlt.quickstart.claims --output "$output" --parts "${parts[@]}" --seeds)
    seq 0 "$last" | xargs -P 2 -I{} sh -c "\"\$@\" {} >>\"\$0/seed_{}.log\" 2>&1" "$output" "${run[@]}"
    "${run[@]}"
' claims "$output" "$((seeds - 1))" "${parts[@]}" >>"$output/claims.log" 2>&1 </dev/null &
cat <<TEXT
$seeds seeds run in the background, two at a time (process $!).
follow:  tail -f $output/seed_0.log
result:  $output/claims.md and $output/claims.json
stop:    kill -- -$!
TEXT
