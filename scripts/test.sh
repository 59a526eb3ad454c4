#!/usr/bin/env bash
# Set up, lint, check types, run the tests. See -h.
set -uo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/test.sh [quick | fast | all | network] [PYTEST ARGUMENT …]

Sets up .venv, then runs ruff, pyright, shellcheck and pytest. All of them run, and the exit code is 0 only
if all passed. Tests that need a GPU or vLLM are skipped where there is none. Tests that fetch models or data
are skipped too, so that nothing is downloaded unasked.

  quick     ruff, and the tests that need no torch and no other program: all cases of those that import what is not
            committed yet, else one case of each (50 CPU seconds); with a folder or a file, all of its cases
  fast      all checks; of the tests that are not slow and start no vLLM server the first and the last case; with a
            folder or a file, all of its cases
  no word   also slow tests and vLLM servers, as in CI
  all       also the tests that run for minutes each
  network   only the tests that fetch something: 100 MB and half an hour
TEXT
}

case "${1:-}" in -h | --help) usage && exit 0 ;; esac
extent=usual
case "${1:-}" in quick | fast | all | network) extent="$1" && shift ;; esac

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." || exit 1
if [[ "$extent" != quick || ! -x .venv/bin/pytest ]]; then bash scripts/setup.sh || exit 1; fi
export PATH="$PWD/.venv/bin:$PATH"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # several processes share the cores in many tests

failed=()
check() { # check NAME COMMAND…
    local name="$1"
    shift
    echo "== $name: $*"
    "$@" || failed+=("$name")
}

finish() {
    if ((${#failed[@]})); then
        echo "== failed: ${failed[*]}"
        exit 1
    fi
    echo "== all passed"
    exit 0
}

check ruff ruff check rlt tests scripts train.py
check format ruff format --check rlt tests scripts train.py
if [[ "$extent" == quick ]]; then
    if (($# == 0)); then set -- --changed --cases 1; fi # all cases of what is named
    check pytest python -m pytest --quick -n logical --maxprocesses 4 --dist loadfile "$@"
    finish
fi
check pyright pyright
check shellcheck shellcheck ./*.sh scripts/*.sh scripts/slurm/*.sbatch .ci/run

selection="" # pytest's -m
skip() { selection="${selection:+$selection and }not $1"; }
has_vllm() { python -c "import importlib.util as u, sys; sys.exit(u.find_spec('vllm') is None)"; }
has_hub() { python -c 'import socket; socket.create_connection(("huggingface.co", 443), timeout=3)' 2>/dev/null; }
if [[ "$extent" == network ]]; then
    selection=network
else
    skip network
    echo "== tests that fetch something are skipped: scripts/test.sh network runs them"
fi
if [[ "$extent" != all && "$extent" != network ]]; then skip long; fi
if [[ "$extent" == fast ]]; then
    skip slow
    if (($# == 0)); then set -- --cases 2; fi
fi
if [[ "$extent" == fast ]] || ! has_vllm; then skip vllm; fi
gpus="$(python -m rlt.devices 2>&1)" || failed+=(gpus)
echo "== gpus: $gpus"
if [[ "$gpus" != "torch can use "[1-9]* ]]; then skip gpu; fi
if [[ -n "${HF_HUB_OFFLINE:-}" ]] || ! has_hub; then
    export HF_HUB_OFFLINE=1 # nothing waits for a Hub that is not there
fi
# A test file stays in one process, which shares its models and servers; four processes fit into 24 GiB.
# The files that take longest start first (tests/conftest.py).
check pytest python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder --durations 25 ${selection:+-m "$selection"} "$@"

finish
