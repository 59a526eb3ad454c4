"""What a bug report needs to say of a machine: versions, hardware, and the variables that change a run.

`python -m rlt env`. Imports none of the libraries that it names, so it also works where one is broken.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence

import psutil

from rlt.devices import query_nvidia_smi
from rlt.errors import RLTError, first_line
from rlt.parser import Parser
from rlt.rundir.run_record import code_version, library_versions
from rlt.text import gib, redact

_PREFIXES = (
    "CUDA_",
    "NCCL_",
    "HF_",
    "TORCH_",
    "VLLM_",
    "OMP_",
    "SLURM_JOB_NUM",
    "RLT_",
    "PYTORCH_",
    "ACCELERATE_",
)


def main(words: Sequence[str]) -> int:
    """Print the report; return the exit code."""
    parser = Parser(prog="python -m rlt env", description=__doc__)
    parser.parse_args(words)
    width = max(map(len, report := facts()))
    sys.stdout.write("".join(f"{name:{width}}  {value}\n" for name, value in report.items()))
    return 0


def facts() -> dict[str, str]:
    """Return what is known, by name; secrets are masked."""
    code = code_version()
    state = {True: ", modified", False: "", None: ", not known whether modified"}[code["dirty"]]
    commit = f"commit {code['commit']}{state}" if code["commit"] else "no checkout"
    memory = psutil.virtual_memory()
    return {
        "rlt": f"{code['package']} ({commit}; sources {code['sha256'][:12]})",
        "system": platform.platform(),
        "processor": f"{platform.machine()}, {os.cpu_count()} cores, {len(os.sched_getaffinity(0))} usable",
        "memory": f"{gib(memory.total)} GiB, {gib(memory.available)} GiB available",
        "GPUs": gpus(),
        **library_versions(),
        **{name: redact(f"{name}={value}").partition("=")[2] for name, value in variables().items()},
    }


def gpus() -> str:
    """Return the GPUs and their driver, or why none is known."""
    try:
        found = query_nvidia_smi("name,memory.total,driver_version")
    except RLTError as error:
        return first_line(error)
    return "; ".join(f"{name}, {memory} MiB, driver {driver}" for name, memory, driver in found) or "none"


def variables() -> dict[str, str]:
    """Return the variables of the environment that change how a run behaves."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(_PREFIXES)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
