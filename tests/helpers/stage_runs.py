"""Running a stage in this process or in several, and reading what the run left on disk."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch import Tensor

from rlt.config.compose import compose
from rlt.config.overrides import read
from rlt.config.resolve import resolve
from rlt.config.typed import chosen_settings
from rlt.config.validate import validate
from rlt.data.own_layout import adopt_layouts

ROOT = Path(__file__).parents[2]
CLOCK = {"time", "step_time", "eval_runtime", "train_runtime", "train_samples_per_second"}
CLOCK |= {"perf/tokens_per_second", "perf/mfu"}
CLOCK |= {"train_steps_per_second", "eval_samples_per_second", "eval_steps_per_second"}
SMALL_RL = [
    "run_cfg=teacher_rl",
    "layout.student_prompt=default",
    "model.dtype=float32",
    "reward.dtype=float32",
    "max_prompt_length=200",
    "max_completion_length=16",
    "num_generations=4",
    "train_batch_size=8",
    "per_device_train_batch_size=2",
    "trainer.save_steps=0",
    "generation.backend=transformers",
    "report_to=null",
]


def rl_words(teacher: Path, student: Path, problems: Path, output: Path, *changes: str) -> list[str]:
    """Return what one would type for a small teacher_rl run; later words win."""
    files = {
        "model_name_or_path": teacher,
        "student_model": student,
        "dataset_id_or_path": problems,
        "output_dir": output,
    }
    return later_win(*SMALL_RL, *(f"{key}={value}" for key, value in files.items()), *changes)


SMALL_SFT = [
    "model.dtype=float32",
    "data.max_length=512",
    "train_batch_size=4",
    "per_device_train_batch_size=2",
    "trainer.save_steps=0",
    "report_to=null",
]


def sft_words(run_file: str, model: Path, data: Path, output: Path, *changes: str) -> list[str]:
    """Return what one would type for a small run of a fine-tuning stage; later words win."""
    files = (f"model_name_or_path={model}", f"dataset_id_or_path={data}", f"output_dir={output}")
    counted = any(change.startswith("trainer.max_steps=") for change in changes)  # then epochs count nothing
    epochs = () if counted else ("trainer.num_train_epochs=1",)
    return later_win(f"run_cfg={run_file}", *files, *SMALL_SFT, *epochs, *changes)


def student_words(model: Path, traces: Path, output: Path, *changes: str) -> list[str]:
    """Return what one would type for a small student_sft run; later words win."""
    usual = ("layout.student_prompt=default", "distill.turn_end=end_of_turn", "learning_rate=1e-3")
    return sft_words("student_sft", model, traces, output, *usual, *changes)


def later_win(*words: str) -> list[str]:
    """Return one word for each key, the last one."""
    latest = dict(word.split("=", 1) for word in words)
    return [f"{key}={value}" for key, value in latest.items()]


def run_here(words: Sequence[str], stage: str = "teacher_rl") -> Path:
    """Run a stage in this process; return its directory, with what it logged in `log.txt`."""
    from importlib import import_module

    config = compose(words)
    output = Path(config.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    log = logging.FileHandler(output / "log.txt", mode="w")
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.addHandler(log)  # stages take console handlers off, but leave files
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in `run_processes`; a tiny model gains nothing from more
    AcceleratorState._reset_state(reset_partial_state=True)  # what earlier tests asked of accelerate
    try:
        config = adopt_layouts(resolve(config), chosen_settings(read(words)))
        validate(config, num_processes=1)
        import_module(f"rlt.stages.{stage}").run(config)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        torch.set_num_threads(threads)
        log.close()
        root.handlers, root.level = handlers, level
    return output


def run_processes(
    strategy: str,
    words: Sequence[str],
    *,
    script: Path = ROOT / "train.py",
    timeout: float = 1000,
    precision: str = "no",
    processes: int = 2,
    **env: str,
) -> subprocess.CompletedProcess[str]:
    """Train with CPU processes, as the launchers do; they end with the call, whatever happens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "rlt.launch.accelerated"]
    command += ["--config_file", str(ROOT / "cfgs" / "accelerate" / f"{strategy}.yaml")]
    command += ["--num_processes", str(processes), "--main_process_port", str(port)]
    command += ["--mixed_precision", precision]
    device = {"ACCELERATE_USE_CPU": "true"} if strategy == "ddp" else {"DS_ACCELERATOR": "cpu"}
    return run_command([*command, str(script), *words], timeout=timeout, **device, **env)


def run_command(command: Sequence[str], *, timeout: float, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process group of its own, and end what is left of the group."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("ACCELERATE_", "DS_"))}
    process = subprocess.Popen(
        command,
        env={**ours, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as error:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        raise AssertionError(f"not done within {timeout} s:\n{output[-4000:]}") from error
    return subprocess.CompletedProcess(command, process.returncode, output)


def succeed(done: subprocess.CompletedProcess[str]) -> None:
    """Assert exit code 0, and show the output if it is another."""
    assert done.returncode == 0, done.stdout[-6000:]


def rows(output: Path) -> list[dict]:
    """Return the lines of metrics.jsonl without what a clock measured."""
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in CLOCK and not k.startswith("time/")} for line in lines]


def train_rows(output: Path) -> dict[int, dict]:
    """Return the metrics of each training step."""
    return {row["step"]: row for row in rows(output) if "loss" in row}


def eval_rows(output: Path) -> dict[int, dict]:
    """Return the metrics of each evaluation."""
    return {row["step"]: row for row in rows(output) if "eval_reward" in row}


def weights(folder: Path) -> dict[str, Tensor]:
    """Return the weights of a model folder."""
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    assert found, f"no weights in {folder}"
    return found


def largest_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Return the largest difference of two sets of weights."""
    assert ours.keys() == theirs.keys()
    return max((ours[name] - theirs[name]).abs().max().item() for name in ours)


def count_differences(ours: Path, theirs: Path) -> int:
    """Return how many steps are missing, doubled or other than in another run; other weights count as one."""
    here, there = rows(ours), rows(theirs)
    different = sum(a != b for a, b in zip(here, there, strict=False)) + abs(len(here) - len(there))
    return different + (largest_difference(weights(ours), weights(theirs)) != 0)


def mix(policy: dict[str, Tensor], reference: dict[str, Tensor], share: float = 0.9) -> dict[str, Tensor]:
    """Return share * policy + (1 - share) * reference, computed in float64."""
    mixed = {name: share * policy[name].double() + (1 - share) * reference[name].double() for name in policy}
    return {name: value.to(torch.float32) for name, value in mixed.items()}


def interrupted_copy(run: Path, copy: Path, *, step: int) -> Path:
    """Return a copy of a run directory as it looked when the run was ended after its checkpoint `step`.

    Metrics and samples of later steps stay: a run that is killed has some too.
    """
    import shutil

    later = [p.name for p in run.glob("checkpoint-*") if int(p.name.rpartition("-")[2]) > step]
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns(*later, "*.safetensors.index.json.old"))
    for file in copy.glob("model*"):
        file.unlink()
    return copy
