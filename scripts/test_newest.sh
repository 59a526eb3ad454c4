#!/usr/bin/env bash
# Do the newest released libraries break us? To be run by hand, now and then. See -h.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/test_newest.sh [PYTEST ARGUMENT …]

Makes a virtual environment in a temporary folder, installs the newest release of every library that
pyproject.toml names (without vLLM, and without our versions, but for linters), prints those that differ from
ours, runs the tests of `scripts/test.sh fast` there, and removes the environment. Nothing of .venv changes.
Needs the network and some GB. PYTHON=/path/to/python3 picks the Python. LIMITS="torch<2.15 …" holds
single libraries back.
TEXT
}
case "${1:-}" in -h | --help) usage && exit 0 ;; esac

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
python="${PYTHON:-.venv/bin/python}"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"

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
echo "== installing"
"$folder/venv/bin/python" -m pip install -q --disable-pip-version-check -r "$folder/names.txt" -c "$limits"

export PYTHONPATH="$PWD" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" HF_HUB_OFFLINE=1
export PATH="$folder/venv/bin:$PATH"
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
python -m pytest -p no:cacheprovider -m "not long and not slow and not vllm and not gpu and not network" "$@"
