"""What a run will need before anything is loaded: memory by part, time by phase, GPU-hours, and remedies.

Calculated from the configuration, the models' dimensions and a small model of the hardware; not measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from rlt.config.beside import settings_beside
from rlt.config.schema import Config, stage_of
from rlt.config.students import frozen_students
from rlt.config.teacher import teacher_name, teacher_revision
from rlt.device_plan import Plan
from rlt.forecast.hardware import gpu_kind
from rlt.forecast.model_size import read_size
from rlt.forecast.server_memory import ServerMemory, server_memory
from rlt.forecast.step_time import Lengths, StepTimes, assumed_lengths, longest_lengths, step_times
from rlt.forecast.training_memory import Models, TrainingMemory, tokens_that_fit, training_memory
from rlt.models.size import ModelSize, NoForecast
from rlt.surroundings.gpus import GPU

_ROWS = {"bespokelabs/Bespoke-Stratos-17k": 16710}
"""Rows of a dataset that may not be on this machine (arXiv 2509.22637)."""


@dataclass(frozen=True)
class Needs:
    """The memory of a run on one kind of GPU."""

    gpu: GPU
    training: TrainingMemory
    server: ServerMemory | None
    """None where the run starts no servers."""

    @property
    def training_fits(self) -> bool:
        """Whether the training GPUs are large enough."""
        return self.training.fits(self.gpu)

    @property
    def server_fits(self) -> bool:
        """Whether a server can hold at least one sequence of the full length; vLLM starts with no less."""
        return self.server is None or self.server.sequences >= 1

    @property
    def fit(self) -> bool:
        """Whether everything does."""
        return self.training_fits and self.server_fits


@dataclass(frozen=True)
class Forecast:
    """All that is known of a run beforehand."""

    config: Config
    plan: Plan
    models: Models
    needs: Needs
    times: StepTimes | None
    """None on a GPU whose speed is not known."""
    num_steps: int | None
    """None where the number of rows is not known."""

    def gpu_hours(self, lengths: Lengths) -> float | None:
        """Return the GPU-hours of all steps, idle GPUs included."""
        if self.times is None or self.num_steps is None:
            return None
        return self.num_steps * sum(self.times.seconds(lengths).values()) * self.plan.num_gpus / 3600

    @property
    def assumed(self) -> Lengths:
        """The lengths that times are computed for."""
        return assumed_lengths(self.config)

    @property
    def at_most(self) -> Lengths:
        """All rows at their limits."""
        return longest_lengths(self.config)


def make_forecast(config: Config, plan: Plan, num_rows: int | None) -> Forecast:
    """Return the forecast of a training run on GPUs, of whose data `num_rows` rows are on this machine.

    Raises NoForecast for models whose dimensions are not known, and for arguments that it does not follow.
    """
    _refuse_unfollowed(config.trainer_args)
    models, gpu = read_models(config), gpu_kind(config.hardware)
    if config.trainer.gradient_checkpointing == "auto" and config.trainer.recompute_above is None:
        config = deepcopy(config)
        config.trainer.recompute_above = tokens_that_fit(
            config, plan.strategy, plan.num_processes, models, gpu
        )
    needs = needs_of(config, plan, models, gpu)
    times = step_times(config, plan, models, gpu, needs.server)
    return Forecast(config, plan, models, needs, times, count_steps(config, num_rows))


def read_models(config: Config) -> Models:
    """Return the sizes of the policy and of the frozen models that score beside it."""
    policy, beside = size_of_policy(config), settings_beside(config)
    if beside is None or beside.placement == "server":
        return Models(policy)
    if teacher := teacher_name(config) if stage_of(config).is_judged else None:
        revision, trust = teacher_revision(config), config.model.trust_remote_code
        return Models(policy, (read_size(teacher, revision=revision, trust=trust),))
    students = frozen_students(config)
    trust = config.model.trust_remote_code
    return Models(policy, tuple(read_size(student.model, trust=trust) for student in students))


def size_of_policy(config: Config) -> ModelSize:
    """Return the size of the model that a configuration trains; raises NoForecast."""
    assert config.model_name_or_path is not None, "validate() has asked for a model"
    model = config.model
    return read_size(config.model_name_or_path, revision=model.revision, trust=model.trust_remote_code)


def needs_of(config: Config, plan: Plan, models: Models, gpu: GPU) -> Needs:
    """Return the memory that a configuration takes under a plan."""
    return Needs(
        gpu,
        training_memory(config, plan.strategy, plan.num_processes, models),
        server_memory(config, gpu, models.policy) if plan.servers else None,
    )


_CHANGES_MEMORY = ("use_liger_kernel", "activation_offloading", "torch_compile", "cast_lm_head_to_fp32")
"""Arguments of TRL that the calculation does not follow."""


def _refuse_unfollowed(arguments: Mapping[str, Any]) -> None:
    for name in _CHANGES_MEMORY:
        if arguments.get(name):
            raise NoForecast(f"trainer_args.{name} changes what is kept in memory")
    optimizer = str(arguments.get("optim", _ADAMW))
    if not optimizer.startswith(_ADAMW):
        raise NoForecast(
            f"trainer_args.optim={optimizer} keeps another state than AdamW's two float32 moments"
        )


_ADAMW = "adamw_torch"


def count_steps(config: Config, num_rows: int | None) -> int | None:
    """Return the optimizer steps of a run, None where the number of its rows is not known."""
    if config.trainer.max_steps > 0:
        return config.trainer.max_steps
    rows = _ROWS.get(config.dataset_id_or_path) if num_rows is None else num_rows
    if rows is None:
        return None
    if config.data.subset.n is not None:
        rows = min(rows, config.data.subset.n)
    group = config.num_generations if stage_of(config).is_rl else 1
    return math.ceil(config.trainer.num_train_epochs * rows / (config.train_batch_size / group))
