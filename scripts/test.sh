#!/usr/bin/env bash
# Set up, lint, check types, run the tests. See -h.
set -uo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/test.sh [fast | all | network] [PYTEST ARGUMENT …]

Sets up .venv, then runs ruff, pyright, shellcheck and pytest; every one of them runs, and the exit
code is 0 only if all passed. `fast` leaves out tests that are slow or start a vLLM server; `all` takes
those in that run for minutes each, which are left out otherwise. Tests that need a GPU or vLLM are left
out where there is none. Tests that fetch models or data are always left out, so that nothing is downloaded
unasked: `network` runs them, and them alone (100 MB and half an hour).
TEXT
}

case "${1:-}" in -h | --help) usage && exit 0 ;; esac
extent=usual
if [[ "${1:-}" == fast || "${1:-}" == all || "${1:-}" == network ]]; then
    extent="$1"
    shift
fi

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." || exit 1
bash scripts/setup.sh || exit 1
export PATH="$PWD/.venv/bin:$PATH"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # several processes share the cores in many tests

failed=()
check() { # check NAME COMMAND…
    local name="$1"
    shift
    echo "== $name: $*"
    "$@" || failed+=("$name")
}

check ruff ruff check rlt tests scripts train.py
check format ruff format --check rlt tests scripts train.py
check pyright pyright
check shellcheck shellcheck ./*.sh scripts/*.sh scripts/slurm/*.sbatch .ci/run

selection="" # pytest's -m
leave_out() { selection="${selection:+$selection and }not $1"; }
has_vllm() { python -c "import importlib.util as u, sys; sys.exit(u.find_spec('vllm') is None)"; }
has_hub() { python -c 'import socket; socket.create_connection(("huggingface.co", 443), timeout=3)' 2>/dev/null; }
if [[ "$extent" == network ]]; then
    selection=network
else
    leave_out network
    echo "== tests that fetch something are left out: scripts/test.sh network runs them"
fi
if [[ "$extent" != all && "$extent" != network ]]; then leave_out long; fi
if [[ "$extent" == fast ]]; then leave_out slow; fi
if [[ "$extent" == fast ]] || ! has_vllm; then leave_out vllm; fi
gpus="$(python -m rlt.devices 2>&1)" || failed+=(gpus)
echo "== gpus: $gpus"
if [[ "$gpus" != "torch can use "[1-9]* ]]; then leave_out gpu; fi
if [[ -n "${HF_HUB_OFFLINE:-}" ]] || ! has_hub; then
    export HF_HUB_OFFLINE=1 # nothing waits for a Hub that is not there
fi
# A test file stays in one process, which shares its models and servers; four processes fit into 24 GiB.
# The files that take longest start first (tests/conftest.py).
check pytest python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder --durations 25 ${selection:+-m "$selection"} "$@"

if ((${#failed[@]})); then
    echo "== failed: ${failed[*]}"
    exit 1
fi
echo "== all passed"
