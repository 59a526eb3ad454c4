#!/usr/bin/env bash
# Train on the GPUs (or CPU) of this machine; starts vLLM servers where the stage needs them. See -h.
# The folder you type in stays the current one: relative paths are yours, run files are found either way.
set -euo pipefail
{ : <&0; } 2>/dev/null || exec </dev/null      # closed streams would be taken by the next pipe or file
{ : >&1; } 2>/dev/null || exec >/dev/null
{ : >&2; } 2>/dev/null || exec 2>/dev/null
source="${BASH_SOURCE[0]}"
while [[ -L "$source" ]]; do                   # a link to this script, or to a link
    folder="$(CDPATH='' cd -P -- "$(dirname -- "$source")" && pwd)"
    source="$(readlink -- "$source")"
    [[ "$source" == /* ]] || source="$folder/$source"
done
here="$(CDPATH='' cd -P -- "$(dirname -- "$source")" && pwd)"
python="$here/.venv/bin/python"
[[ -x "$python" ]] || python="$(command -v python3)" || { echo "no Python here: run $here/scripts/setup.sh first." >&2; exit 1; }
# Modules come from this checkout, and not from the current folder, which an empty entry would mean.
rest=":${PYTHONPATH:-}:"
while [[ "$rest" == *::* ]]; do rest="${rest//::/:}"; done
rest="${rest#:}"
export PYTHONPATH="$here${rest:+:${rest%:}}" PYTHONSAFEPATH=1
exec "$python" -m rlt.launch.main launch.sh "$@"
