"""The rules of the optimisation: `trainer`, `model`, and what goes straight to TRL as `trainer_args`."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any

from rlt.config.schema import RL_STAGES, Config
from rlt.config.tree import fits, rows, type_words
from rlt.config.trl_fields import CHOICES, LOSS_TYPES, SCHEDULERS, fields_of, instead, owned_of
from rlt.errors import ConfigError

_MANY = 12
"""Choices that a sentence lists; of more it names the nearest."""


def check_trainer(config: Config) -> None:
    """Raise ConfigError for the first broken rule of the optimisation."""
    _check_steps(config)
    _check_model(config)
    for name, value in config.trainer_args.items():
        _check_argument(name, value, config.stage)


def _check_steps(config: Config) -> None:
    trainer = config.trainer
    if trainer.max_steps == 0:
        raise ConfigError("`trainer.max_steps` must be at least 1, or -1 to count num_train_epochs, got 0.")
    if trainer.warmup_steps > 1 and trainer.warmup_steps != int(trainer.warmup_steps):
        raise ConfigError(
            f"`trainer.warmup_steps` must be a whole number of steps or a fraction below 1, "
            f"got {trainer.warmup_steps}."
        )
    for name, allowed in (("lr_scheduler_type", SCHEDULERS), ("loss_type", LOSS_TYPES)):
        if getattr(trainer, name) not in allowed:
            raise ConfigError(
                f"`trainer.{name}` must be one of {', '.join(allowed)}, got '{getattr(trainer, name)}'."
            )
    if trainer.eval_steps and config.data.eval_path is None:
        raise ConfigError(
            f"`trainer.eval_steps={trainer.eval_steps}` needs held-out problems: give data.eval_path=PATH, "
            "or trainer.eval_steps=0."
        )


def _check_model(config: Config) -> None:
    lora = config.model.lora
    if lora.rank and find_spec("peft") is None:
        raise ConfigError(
            f"`model.lora.rank={lora.rank}` needs the package peft: pip install 'rlt[lora]', "
            "or train all weights with model.lora.rank=0."
        )
    if lora.rank and lora.dropout and config.stage in RL_STAGES:
        raise ConfigError(
            f"`model.lora.dropout={lora.dropout}` must be 0 in {config.stage}, because the loss would judge "
            "samples by another policy than the one that drew them: take model.lora.dropout=0."
        )


def _check_argument(name: str, value: Any, stage: str) -> None:
    known, owned = fields_of(stage), owned_of(stage)
    if name in owned:
        raise ConfigError(f"`trainer_args.{name}` is decided elsewhere: {instead(name, owned)}.")
    if name not in known:
        trl_class = "GRPOConfig" if stage in RL_STAGES else "SFTConfig"
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
        return f"use `{name}`, a setting of ours."
    near = get_close_matches(name, sorted(known), n=1)
    if not near:
        return "see TRL's documentation."
    if near[0] in owned:
        return f"if you meant `{near[0]}`, {instead(near[0], owned)}."
    return f"did you mean `trainer_args.{near[0]}`?"
