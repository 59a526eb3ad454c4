"""The training command: train.py, which accelerate starts where there are several processes or DeepSpeed."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rlt.config.allocator import allocator_env
from rlt.config.schema import Config, stage_of
from rlt.device_plan import Plan
from rlt.devices import gpu_env
from rlt.launch.machines import Machines
from rlt.launch.server import cpu_threads
from rlt.rundir.run_record import GPUS_VARIABLE

PROJECT = Path(__file__).resolve().parents[2]


def training_command(config: Config, plan: Plan, overrides: Sequence[str], machines: Machines) -> list[str]:
    """Return the command that trains: `overrides` are what the user typed, then what the launcher adds.

    The processes meet at the machines' port.
    Files are named absolutely, so that relative paths in the overrides keep the user's folder.
    """
    train = [str(PROJECT / "train.py"), *overrides]
    if plan.strategy == "single":
        return [sys.executable, *train]
    command = [sys.executable, "-m", "rlt.launch.accelerated"]
    command += ["--config_file", str(PROJECT / "cfgs" / "accelerate" / f"{plan.strategy}.yaml")]
    command += ["--num_processes", str(plan.num_processes)]
    command += ["--main_process_port", str(machines.port)]
    if machines.count > 1:
        command += ["--num_machines", str(machines.count), "--machine_rank", str(machines.rank)]
        command += ["--main_process_ip", machines.ip, "--same_network"]
        if plan.strategy != "ddp":
            command += ["--deepspeed_multinode_launcher", "standard"]  # torchrun's own rendezvous, no ssh
    is_half = stage_of(config).reads("model.dtype") and config.model.dtype == "bfloat16"
    command += ["--mixed_precision", "bf16" if is_half else "no"]
    return [*command, *train]


def training_env(plan: Plan) -> dict[str, str]:
    """Return what the training's environment holds besides ours."""
    env = {
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",  # a process that the system ends for a fault says where it was
        "OMP_NUM_THREADS": str(cpu_threads(plan.processes_here)),
        **gpu_env(plan.training_gpus),
        GPUS_VARIABLE: str(plan.num_gpus),
    }
    if plan.training_gpus:
        return env | allocator_env(os.environ)
    if plan.strategy in ("single", "ddp"):
        env["ACCELERATE_USE_CPU"] = "true"
    else:
        # With ACCELERATE_USE_CPU accelerate would quietly train without DeepSpeed.
        env["DS_ACCELERATOR"] = "cpu"
    return env
