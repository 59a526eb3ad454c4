"""What a launch looks at before anything starts: vLLM, compilers, disk, the forecast."""

from __future__ import annotations

import importlib.util
import os

from rlt.config.schema import Config, stage_of
from rlt.device_plan import Plan
from rlt.devices import MIG
from rlt.errors import ConfigError
from rlt.forecast.disk import check_disk, disk_needs
from rlt.forecast.forecast import Forecast, count_steps, make_forecast, size_of_policy
from rlt.launch.compilers import check_compilers
from rlt.models.size import NoForecast


def look_at_vllm(*, refuse: bool) -> str | None:
    """Return a line where servers are planned and vLLM is not installed, else None.

    Raises ConfigError for it; a dry run, which may be for another machine, only says so.
    """
    if importlib.util.find_spec("vllm") is not None:
        return None
    sentence = (
        "generation.backend=vllm needs vLLM, which is not installed: run scripts/setup.sh, or generate in "
        "the trainer with generation.backend=transformers."
    )
    if refuse:
        raise ConfigError(sentence)
    return f"servers: {sentence}"


def look_at_compilers(config: Config, plan: Plan, *, refuse: bool) -> str | None:
    """Return a line on a compiler that is missing, None where all are there.

    Raises ConfigError for it; a dry run, which may be for another machine, only says so.
    """
    try:
        check_compilers(config, plan, os.environ)
    except ConfigError as error:
        if refuse:
            raise
        return f"compilers: {error}"
    return None


def look_at_disk(config: Config, plan: Plan, num_rows: int | None, *, refuse: bool) -> str | None:
    """Return a line on what a training will write, None where that is not known.

    Raises ConfigError where it does not fit; a dry run, which may be for another machine, only says so.
    """
    if not stage_of(config).trains or config.model_name_or_path is None:
        return None
    try:
        needs = disk_needs(config, plan.strategy, size_of_policy(config), count_steps(config, num_rows))
        return check_disk(config, needs)
    except NoForecast:
        return None
    except ConfigError as error:
        if refuse:
            raise
        return f"disk: {error}"


def forecast(config: Config, plan: Plan, num_rows: int | None) -> Forecast | str | None:
    """Return what the run will need, or why that is not known; None for stages that don't train."""
    if not stage_of(config).trains:
        return None
    if plan.on_cpu:
        return (
            "no forecast: it is made for GPUs, and none are used; CUDA_VISIBLE_DEVICES=0,1,2,3 before the "
            "command plans for four that are elsewhere, of the kind hardware.gpu"
        )
    if config.hardware.gpu == "auto" and plan.training_gpus[0].startswith(MIG):
        return "no forecast: a MIG instance is a part of a GPU; hardware.gpu=KIND plans for a whole one"
    try:
        return make_forecast(config, plan, num_rows)
    except NoForecast as reason:
        return f"no forecast of memory and time: {reason}"
