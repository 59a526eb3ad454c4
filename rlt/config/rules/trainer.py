"""The rules of the optimisation: `trainer`, `model`, and what goes straight to TRL as `trainer_args`."""

from __future__ import annotations

import math
from difflib import get_close_matches
from importlib.util import find_spec
from math import lcm
from typing import Any

from rlt.config.schema import Config, stage_of
from rlt.config.stages import STAGES
from rlt.config.tree import fits, rows, type_words
from rlt.config.trl_fields import CHOICES, LOSS_TYPES, SCHEDULERS, fields_of, instead, owned_of
from rlt.errors import ConfigError

_APART = 120
"""Seconds between the time limit of a weight sync and that of the group of all processes."""
_CORRECTION = "vllm_importance_sampling_correction"
_OTHER_ROWS = ("accelerator_config", "ignore_data_skip")
"""Arguments that change which rows a step takes."""
_MANY = 12
"""Choices that a sentence lists; of more it names the nearest."""


def check_trainer(config: Config) -> None:
    """Raise ConfigError for the first broken rule of the optimisation."""
    _check_steps(config)
    _check_model(config)
    for name, value in config.trainer_args.items():
        _check_argument(name, value, config.stage)
    _check_time_limits(config)
    _check_staleness(config)


def _check_steps(config: Config) -> None:
    trainer = config.trainer
    if trainer.max_steps == 0:
        raise ConfigError("`trainer.max_steps` must be at least 1, or -1 to count num_train_epochs, got 0.")
    if trainer.warmup_steps > 1 and trainer.warmup_steps != int(trainer.warmup_steps):
        raise ConfigError(
            f"`trainer.warmup_steps` must be a whole number of steps or a fraction below 1, "
            f"got {trainer.warmup_steps}."
        )
    stage = stage_of(config)
    for name, allowed in (("lr_scheduler_type", SCHEDULERS), ("loss_type", LOSS_TYPES)):
        if stage.reads(f"trainer.{name}") and getattr(trainer, name) not in allowed:
            raise ConfigError(
                f"`trainer.{name}` must be one of {', '.join(allowed)}, got '{getattr(trainer, name)}'."
            )
    evaluation = config.evaluation
    if evaluation.steps and evaluation.path is None:
        raise ConfigError(
            f"`evaluation.steps={evaluation.steps}` needs held-out problems: give evaluation.path=PATH, "
            "or evaluation.steps=0."
        )


def _check_time_limits(config: Config) -> None:
    """Raise where processes would wait for a weight sync less long than it may take."""
    given = config.trainer_args.get("ddp_timeout")
    if given is None or not stage_of(config).is_rl:
        return
    sync = config.generation.sync_timeout
    least = math.ceil(sync) + _APART
    if given < least:
        raise ConfigError(
            f"`trainer_args.ddp_timeout={given}` must be at least {least}, {_APART} s more than "
            f"generation.sync_timeout={sync:g}: the processes that wait for a weight sync would be ended "
            "before it can fail with its own words. Leave it out, or lower generation.sync_timeout."
        )


def _check_staleness(config: Config) -> None:
    """Raise where completions of older weights would be taken for the policy's own."""
    stage, generation = stage_of(config), config.generation
    if not stage.reads("generation.max_staleness") or generation.backend != "vllm":
        return
    staleness = generation.max_staleness
    if staleness and not config.trainer_args.get(_CORRECTION, True):  # TRL's default
        raise ConfigError(
            f"`generation.max_staleness={staleness}` needs trainer_args.{_CORRECTION}=true: without it the "
            "update takes completions of older weights for the policy's own. Switch it on, or take "
            "generation.max_staleness=0."
        )
    if staleness and stage.scores and config.reward.teacher_logprobs == "engine":
        raise ConfigError(
            f"`generation.max_staleness={staleness}` needs reward.teacher_logprobs=policy: the engine's "
            "log-probabilities are those of older weights. Take it, or generation.max_staleness=0."
        )
    for name in _OTHER_ROWS:
        if staleness and config.trainer_args.get(name):
            raise ConfigError(
                f"`trainer_args.{name}` must not be set with generation.max_staleness={staleness}: a step "
                "could take other problems than servers were asked for beforehand. Leave it out, or take "
                "generation.max_staleness=0."
            )


def _check_model(config: Config) -> None:
    lora = config.model.lora
    if lora.rank and find_spec("peft") is None:
        raise ConfigError(
            f"`model.lora.rank={lora.rank}` needs the package peft: pip install 'rlt[lora]', "
            "or train all weights with model.lora.rank=0."
        )
    if lora.rank and lora.dropout and stage_of(config).is_rl:
        raise ConfigError(
            f"`model.lora.dropout={lora.dropout}` must be 0 in {config.stage}, because the loss would judge "
            "samples by another policy than the one that drew them: take model.lora.dropout=0."
        )


def _check_argument(name: str, value: Any, stage: str) -> None:
    known, owned = fields_of(stage), owned_of(stage)
    if name in owned:
        raise ConfigError(f"`trainer_args.{name}` is decided elsewhere: {instead(name, owned)}.")
    if name not in known:
        trl_class = "GRPOConfig" if STAGES[stage].is_rl else "SFTConfig"
        raise ConfigError(
            f"`trainer_args.{name}` is not an argument of TRL's {trl_class}: {_remedy(name, stage)}"
        )
    choices = CHOICES.get(name)
    if choices and value not in (*choices, *([None] if fits(None, known[name]) else [])):
        shown = choices if len(choices) <= _MANY else (*get_close_matches(str(value), choices, n=_MANY), "…")
        raise ConfigError(f"`trainer_args.{name}` must be one of {', '.join(shown)}, got {value!r}.")
    if not fits(value, known[name]):
        raise ConfigError(f"`trainer_args.{name}` must be {type_words(known[name])}, got {value!r}.")


def _remedy(name: str, stage: str) -> str:
    known, owned = fields_of(stage), owned_of(stage)
    if name in rows():
        return f"use `{name}`, a setting of this project."
    near = get_close_matches(name, sorted(known), n=1)
    if not near:
        return "see TRL's documentation."
    if near[0] in owned:
        return f"if you meant `{near[0]}`, {instead(near[0], owned)}."
    return f"did you mean `trainer_args.{near[0]}`?"


def check_batch(config: Config, num_processes: int) -> None:
    batch, unit = config.train_batch_size, config.per_device_train_batch_size * num_processes
    group = config.num_generations if stage_of(config).is_rl else 1
    good = lcm(unit, group)
    lower, upper = batch // good * good, (batch // good + 1) * good
    remedy = f"take {' or '.join(str(n) for n in (lower, upper) if n)}"
    if batch % unit:
        raise ConfigError(
            f"`train_batch_size={batch}` must be a multiple of per_device_train_batch_size x training "
            f"processes = {config.per_device_train_batch_size} x {num_processes}, so that accumulation makes "
            f"up the rest: {remedy}."
        )
    if batch % group:
        raise ConfigError(
            f"`train_batch_size={batch}` counts completions and must be a multiple of "
            f"num_generations={group}, so that every group is whole: {remedy}."
        )
