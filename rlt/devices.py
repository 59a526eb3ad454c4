"""Which GPUs this machine has and torch can use: the only module that asks nvidia-smi and torch.

CUDA_VISIBLE_DEVICES names GPUs, perhaps of another machine (a dry run plans for those); where it is not set,
nvidia-smi does. An nvidia-smi that fails is an error with its own words, never a machine without GPUs, and
GPUs that torch cannot use are an error before anything computes on the CPU in their place.

`python -m rlt.devices` says whether torch can use the GPUs, and ends with 0 only if it can or there are none.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from rlt.errors import ConfigError, first_line
from rlt.parser import Parser

VARIABLE = "CUDA_VISIBLE_DEVICES"
NVIDIA_SMI_TIMEOUT = 30.0
"""Seconds; without a persistent driver it needs a second or two for each GPU."""
TORCH_TIMEOUT = 600.0
"""Seconds to import torch, which may lie on a slow shared file system, and to ask it."""
MIG = "MIG-"
"""How the name of an instance begins: of a part of a GPU."""
_DEVICE_FILES = Path("/dev")
_NAME = re.compile(r"[0-9]+|GPU-[\w-]+|MIG-[\w/-]+")
_NO_DEVICES = 6
"""nvidia-smi's exit code where the driver answers that there is no GPU."""
_TO_CPU = f"set {VARIABLE}= (to nothing) to run on the CPU"


class NvidiaSmiError(ConfigError):
    """nvidia-smi does not say which GPUs are here; `what` says how it fails."""

    def __init__(self, what: str) -> None:
        """Add what can be done about it."""
        super().__init__(f"{what}; name the GPUs with {VARIABLE}=0,1,…, or {_TO_CPU}.")
        self.what = what


def visible_gpus(env: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the GPUs that CUDA would see: from CUDA_VISIBLE_DEVICES, else from nvidia-smi."""
    listed = env.get(VARIABLE)
    if listed is not None:
        return named_gpus(listed)
    return tuple(index for index, *_ in _gpus_of_nvidia_smi("index"))


def named_gpus(listed: str, source: str = VARIABLE) -> tuple[str, ...]:
    """Return the GPUs that a value of CUDA_VISIBLE_DEVICES (or `source`) names, by index, UUID or MIG name.

    As in CUDA, a negative number or an empty name ends the list, and so does Slurm's NoDevFiles, which means
    "none". With a repeated name, or a word that names no GPU, CUDA shows none at all: a ConfigError.
    """
    names: list[str] = []
    for name in map(str.strip, listed.split(",")):
        if not name or re.fullmatch("-[0-9]+", name) or name.lower() == "nodevfiles":
            break
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{source}={listed}: `{name}` names no GPU; write indices (0,1,…), UUIDs (GPU-…) or MIG "
                f"names (MIG-…), or {_TO_CPU}."
            )
        if any(_are_the_same(name, other) for other in names):
            raise ConfigError(
                f"{source}={listed} names GPU {name} twice, and CUDA then shows none at all: name each once."
            )
        names.append(name)
    return tuple(names)


def _are_the_same(name: str, other: str) -> bool:
    """Whether two names are of one GPU; the beginning of a UUID is enough."""
    if name.isdigit() or other.isdigit():
        return name.isdigit() and other.isdigit() and int(name) == int(other)
    return name.startswith(other) or other.startswith(name)


def present_gpus(env: Mapping[str, str]) -> tuple[str, ...]:
    """Return those of the visible GPUs that are in this machine, whatever CUDA_VISIBLE_DEVICES says."""
    visible = visible_gpus(env)
    if not visible:
        return ()
    known = _gpus_of_nvidia_smi("index,uuid")
    instances = _instances() if known and any(name.startswith(MIG) for name in visible) else []
    return tuple(
        name for name in visible if name in instances or any(_is_named(name, *gpu[:2]) for gpu in known)
    )


def _is_named(name: str, index: str, uuid: str = "") -> bool:
    return name == index or (name.startswith("GPU-") and uuid.startswith(name))


def _instances() -> list[str]:
    """Return the names of the MIG instances of this machine."""
    return re.findall(r"UUID: (MIG-[^)\s]+)", _ask_nvidia_smi("-L"))


def _gpus_of_nvidia_smi(fields: str) -> list[list[str]]:
    """Return the fields of each GPU, of which `index` is the first."""
    rows = query_nvidia_smi(fields)
    for row in rows:
        if not row[0].isdigit():  # "Unable to determine the device handle for GPU 0000:41:00.0", say
            raise NvidiaSmiError(f"nvidia-smi answers “{', '.join(row)}”")
    return rows


def query_nvidia_smi(fields: str) -> list[list[str]]:
    """Return the fields of each GPU of this machine; nothing where there is none.

    Raises NvidiaSmiError where nvidia-smi fails, and where GPUs have device files but no nvidia-smi.
    """
    answer = _ask_nvidia_smi(f"--query-gpu={fields}", "--format=csv,noheader,nounits")
    return [[field.strip() for field in line.split(",")] for line in answer.splitlines() if line.strip()]


def _ask_nvidia_smi(*words: str) -> str:
    """Return what nvidia-smi prints; nothing where there is neither it nor a GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        files = sorted(_DEVICE_FILES.glob("nvidia[0-9]*"))
        if files:
            raise NvidiaSmiError(
                f"this machine has {files[0]}, but no nvidia-smi on the PATH to count its GPUs"
            )
        return ""
    try:
        process = subprocess.Popen(
            [program, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise NvidiaSmiError(f"{program} cannot be run: {error.strerror or error}") from error
    try:
        answer, complaint = process.communicate(timeout=NVIDIA_SMI_TIMEOUT)
    except subprocess.TimeoutExpired:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        # Not subprocess.run, which waits for the end of what it has killed: a process that hangs in the
        # driver of a broken GPU does not end.
        raise NvidiaSmiError(f"nvidia-smi did not answer within {NVIDIA_SMI_TIMEOUT:g} s") from None
    first = next((line.strip() for line in (answer + complaint).splitlines() if line.strip()), "")
    if process.returncode == _NO_DEVICES or re.match("No devices (were )?found", first):
        return ""
    if process.returncode != 0:
        output = f"prints “{first}”" if first else "prints nothing"
        raise NvidiaSmiError(f"nvidia-smi fails with exit code {process.returncode} and {output}")
    return answer


def on_gpu() -> bool:
    """Return whether this process computes on GPUs.

    Raises ConfigError where torch sees fewer than CUDA_VISIBLE_DEVICES names, or none of a machine that has
    some: the alternative would be a run on the CPU that only seems to be slow.
    """
    return usable_gpus() > 0


def usable_gpus() -> int:
    """Return the number of GPUs that torch can use, with CUDA_VISIBLE_DEVICES as it is; raises as on_gpu."""
    import torch

    # is_available asks CUDA itself. device_count alone would ask the driver, and count GPUs that a CUDA build
    # too new for the driver cannot use.
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if seen and VARIABLE not in os.environ:
        return seen  # as it is for ROCm, and where only nvidia-smi is broken
    names = visible_gpus(os.environ)
    if seen < len(names):
        raise ConfigError(_unseen(names, seen))
    return seen


def _unseen(names: Sequence[str], seen: int) -> str:
    """Return why torch cannot use the GPUs of these names: its build, the driver, its own words."""
    import torch

    build = torch.version.cuda or torch.version.hip
    built = f"for {'CUDA' if torch.version.cuda else 'ROCm'} {build}" if build else "without CUDA"
    reasons = [f"torch {torch.__version__} is built {built}", _driver()]
    if build and not seen:
        try:
            torch.cuda.init()
        except (RuntimeError, AssertionError) as error:
            reasons.append(f"torch says “{first_line(error)}”")
    if seen:
        remedy = "name only GPUs that this machine has"
    elif build:
        remedy = "install a newer driver, or a torch that is built for this one"
    else:
        remedy = "install one for GPUs with scripts/setup.sh --cuda"
    which = f"GPU {names[0]}" if len(names) == 1 else f"{seen or 'any'} of the GPUs {','.join(names)}"
    able = "can use only" if seen else "cannot use"
    return f"torch {able} {which}: {'; '.join(reasons)}; {remedy}, or {_TO_CPU}."


def _driver() -> str:
    try:
        found = query_nvidia_smi("driver_version")
    except NvidiaSmiError as error:
        return error.what
    return f"the NVIDIA driver is {found[0][0]}" if found else "no NVIDIA driver shows a GPU here"


def refuse_unusable(gpus: Sequence[str]) -> None:
    """Raise ConfigError unless torch can use all of these GPUs.

    It is asked in a process of its own: a launcher imports no torch and opens no GPU. CUDA shows a process
    one MIG instance at most, so each of those is asked for alone.
    """
    together = [[name] for name in gpus] if any(name.startswith(MIG) for name in gpus) else [list(gpus)]
    for names in filter(None, together):
        env = {**os.environ, **gpu_env(names)}
        try:
            look = subprocess.run(
                [sys.executable, "-m", "rlt.devices"],
                env=env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TORCH_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ConfigError(
                f"torch did not say within {TORCH_TIMEOUT:g} s whether it can use GPU {','.join(names)}; "
                "`python -m rlt.devices` asks it again."
            ) from None
        if look.returncode != 0:
            reason = look.stderr.strip() or f"`python -m rlt.devices` ended with exit code {look.returncode}"
            raise ConfigError(reason.splitlines()[-1].removeprefix("error: "))


def usable_in_rehearsal() -> tuple[tuple[str, ...], str | None]:
    """Return the visible GPUs of this machine if torch can use them, else none of them and why."""
    try:
        present = present_gpus(os.environ)
        refuse_unusable(present)
    except ConfigError as error:
        return (), str(error)
    return present, None


def gpu_env(names: Sequence[str]) -> dict[str, str]:
    """Return the environment in which a process sees the GPUs of these names alone."""
    env = {VARIABLE: ",".join(names)}
    if names and VARIABLE not in os.environ:
        env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # the numbers came from nvidia-smi
    return env


def main(words: Sequence[str]) -> int:
    """Say what torch can use; return the exit code."""
    try:
        Parser(prog="python -m rlt devices", description=__doc__).parse_args(words)
        count = usable_gpus()
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stdout.write(f"torch can use {count} GPU{'s' * (count != 1)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
