#!/usr/bin/env bash
# Train on the GPUs (or CPU) of this machine; starts vLLM servers where the stage needs them. See -h.
# The folder you type in stays the current one: relative paths are yours, run files are found either way.
set -euo pipefail
here="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
python="$here/.venv/bin/python"
[[ -x "$python" ]] || python="$(command -v python3)" || { echo "no Python here: run $here/scripts/setup.sh first." >&2; exit 1; }
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m rlt.launch.main launch.sh "$@"
