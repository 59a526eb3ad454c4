#!/usr/bin/env bash
# Set up, then run everything from warm-up to students on tiny models made on the spot, and show what came of it. Ends
# with 0 only if RL made the explanations better, and the student that learns from them.
# Options: --output DIR (results/quickstart)  --seed N (0)  --problems N (64)  --backend auto|vllm|transformers
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
./scripts/setup.sh
exec .venv/bin/python -m rlt.quickstart "$@"
