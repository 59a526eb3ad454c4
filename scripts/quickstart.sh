#!/usr/bin/env bash
# Set up, then run everything from warm-up to students on tiny models made on the spot. See -h.
set -euo pipefail

for word in "$@"; do # before set-up, which installs packages
    if [[ "$word" == -h || "$word" == --help ]]; then
        cat <<'TEXT'
usage: scripts/quickstart.sh [--output DIR] [--seed N] [--problems N] [--backend auto|vllm|transformers]
                             [KEY=VALUE …]

Sets up .venv, then runs the whole method in a toy world on this machine: warm-up, RL, traces, students,
answers. Exits with 0 only if RL made the explanations better, and the student that learns from them.

--output DIR     folder of the runs (results/quickstart)
--seed N         seed of the world, the models and the samples (0)
--problems N     held-out problems (64)
--backend NAME   vllm starts a server for RL, transformers generates in the trainer; auto takes vllm if
                 it is installed
KEY=VALUE        further settings of both teacher stages, or pipeline.…
TEXT
        exit 0
    fi
done
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
./scripts/setup.sh
exec .venv/bin/python -m rlt.quickstart "$@"
