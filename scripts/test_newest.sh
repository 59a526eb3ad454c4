#!/usr/bin/env bash
# Do the newest released libraries break us? To be run by hand, now and then. See -h.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/test_newest.sh [PYTEST ARGUMENT …]

Copies the project into a temporary folder, makes a virtual environment there with the newest release of every
library that pyproject.toml names (without vLLM, and without our versions, but for linters), prints those that
differ from ours, runs the tests of `scripts/test.sh fast` there, and removes it all. Nothing of .venv changes.
Needs the network and some GB. PYTHON=/path/to/python3 picks the Python. LIMITS="torch<2.15 …" holds
single libraries back.

2026-11-30: torch 2.14.1, transformers 5.24.0 and huggingface_hub 2.4.0 were newer; 4,120 tests passed and 14
failed, of which 11 pass since. The rest say what to change before pyproject.toml can allow that transformers:
two arguments of the trainers that rlt/config/trl_fields.py does not know, and a later range of `kernels`.
TEXT
}
case "${1:-}" in -h | --help) usage && exit 0 ;; esac

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
python="${PYTHON:-.venv/bin/python}"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
# The launchers run the .venv that lies beside them, so the tests need a project folder with the new one.
mkdir "$folder/rlt"
tar -c --exclude=./.git --exclude=./.venv --exclude=./results --exclude=./wandb . | tar -x -C "$folder/rlt"
"$python" -m venv "$folder/rlt/.venv"

"$python" - "$folder" <<'PYTHON'
import re, sys, tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
extras = project["optional-dependencies"]
wanted = [*project["dependencies"], *extras["deepspeed"], *extras["lora"], *extras["dev"]]
names = [name if name.startswith(("ruff", "pyright")) else re.split(r"[<>=!~]", name)[0] for name in wanted]
Path(sys.argv[1], "names.txt").write_text("\n".join(names), encoding="utf-8")
PYTHON
limits="$folder/limits.txt"
tr " " "\n" <<<"${LIMITS:-}" >"$limits"
cd -- "$folder/rlt"
echo "== installing"
.venv/bin/python -m pip install -q --disable-pip-version-check -r "$folder/names.txt" -c "$limits"

export PYTHONPATH="$PWD" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" HF_HUB_OFFLINE=1
export PATH="$PWD/.venv/bin:$PATH"
echo "== other versions than ours"
python - <<'PYTHON'
import tomllib
from pathlib import Path

from rlt.launch.versions import untested_versions

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
for line in untested_versions([*project["dependencies"], *project["optional-dependencies"]["deepspeed"]]):
    print(line.split(": run")[0])
PYTHON
echo "== pytest"
python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder -m "not long and not slow and not vllm and not gpu and not network" "$@"
