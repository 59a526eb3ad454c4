"""Our settings as keyword arguments of TRL's SFTConfig and GRPOConfig, without importing TRL or torch.

Every argument that TRL or transformers would fill with a default of its own choice is either here or
pinned in the recipe's `trainer_args`, which are merged last.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlt.config.schema import Config, GenerationSettings, stage_of

DDP_TIMEOUT = 1800
"""Seconds that processes wait for each other where nothing is set (transformers' default)."""


@dataclass(frozen=True)
class RunContext:
    """What the arguments depend on besides the configuration."""

    num_processes: int
    use_cpu: bool
    deepspeed: bool
    report_to: tuple[str, ...] = ()
    """Trackers that are installed and logged in."""
    attention: str = "sdpa"
    """What model.attn_implementation comes to for the policy."""


def sft_arguments(config: Config, context: RunContext) -> dict[str, Any]:
    """Return the arguments of SFTConfig for rows that already hold `input_ids` and `labels`.

    TRL's preparation is skipped: it would look for text columns, and its truncation would cut the
    explanation that the length policy has already dealt with.
    """
    return {
        **_common(config, context),
        "per_device_eval_batch_size": config.evaluation.per_device_batch_size,
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "max_length": None,
        "packing": False,
        "padding_free": False,
        "completion_only_loss": False,  # the labels say it, token by token
        "assistant_only_loss": False,
        "remove_unused_columns": True,
        **config.trainer_args,
    }


def grpo_arguments(config: Config, context: RunContext) -> dict[str, Any]:
    """Return the arguments of GRPOConfig. One generation serves exactly one optimizer step.

    `use_vllm` and `sync_ref_model` stay off: the trainer attaches its own generation back end and its
    own reference sync, which gathers one parameter at a time.
    """
    trainer, generation = config.trainer, config.generation
    accumulation = gradient_accumulation(config, context.num_processes)
    return {
        **_common(config, context),
        "num_generations": config.num_generations,
        "steps_per_generation": accumulation,
        "num_iterations": 1,
        "max_completion_length": config.max_completion_length,
        "temperature": config.temperature,
        "top_p": generation.top_p,
        "top_k": generation.top_k,
        "min_p": generation.min_p or None,
        "repetition_penalty": generation.repetition_penalty,
        "beta": trainer.beta,
        "loss_type": trainer.loss_type,
        # Without it rewards are compared with none.
        "scale_rewards": trainer.scale_rewards if stage_of(config).reads("trainer.scale_rewards") else "none",
        "sync_ref_model": False,
        "use_vllm": False,
        "disable_dropout": False,
        "mask_truncated_completions": False,  # ours knows which were cut (trainer.mask_truncated)
        # A held-out problem's explanations stay together on one process.
        "num_generations_eval": config.evaluation.num_generations,
        "per_device_eval_batch_size": config.evaluation.num_generations,
        "remove_unused_columns": False,
        "log_completions": False,
        **config.trainer_args,
    }


def patience(generation: GenerationSettings) -> int:
    """Return the seconds within which a run continues or fails, whatever is stuck.

    That is: servers are silent for too long, then a sync takes too long. A generation that continues may last
    longer, and no process waits for it in a collective (generation/heartbeat.py).
    """
    return max(DDP_TIMEOUT, math.ceil(generation.request_timeout + generation.sync_timeout + 600))


def group_limit(config: Config) -> float:
    """Return the time limit, in seconds, of process groups that are made without one: DeepSpeed's.

    While rank 0 sends weights the others wait in one of them. It lies between generation.sync_timeout, so
    that a failed sync ends with its own words, and ddp_timeout, the limit of the group of all processes.
    """
    longest_wait = config.generation.sync_timeout if stage_of(config).is_rl else 0.0
    return (longest_wait + whole_limit(config)) / 2


def whole_limit(config: Config) -> float:
    """Return the time limit, in seconds, of the group of all processes."""
    stage = stage_of(config)
    given = config.trainer_args.get("ddp_timeout") if stage.trains else None
    return given or (patience(config.generation) if stage.is_rl else DDP_TIMEOUT)


def gradient_accumulation(config: Config, num_processes: int) -> int:
    """Return the forward passes that one process accumulates into an optimizer step."""
    quotient, rest = divmod(config.train_batch_size, config.per_device_train_batch_size * num_processes)
    assert rest == 0, "validate() has refused a batch that does not divide"
    return quotient


def _common(config: Config, context: RunContext) -> dict[str, Any]:
    trainer, evaluation = config.trainer, config.evaluation
    return {
        "output_dir": config.output_dir,
        "run_name": Path(config.output_dir).name,
        "project": config.wandb_project,
        "seed": config.seed,
        "ddp_timeout": whole_limit(config),
        "data_seed": config.seed,
        "bf16": config.model.dtype == "bfloat16",
        "use_cpu": context.use_cpu,
        "model_init_kwargs": _model_kwargs(config, context),
        "trust_remote_code": config.model.trust_remote_code,
        "per_device_train_batch_size": config.per_device_train_batch_size,
        "gradient_accumulation_steps": gradient_accumulation(config, context.num_processes),
        "gradient_checkpointing": bool(trainer.gradient_checkpointing),
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": trainer.lr_scheduler_type,
        "warmup_steps": trainer.warmup_steps,
        "max_steps": trainer.max_steps,
        "num_train_epochs": trainer.num_train_epochs,
        "adam_beta1": trainer.adam_beta1,
        "adam_beta2": trainer.adam_beta2,
        "adam_epsilon": trainer.adam_epsilon,
        "weight_decay": trainer.weight_decay,
        "max_grad_norm": trainer.max_grad_norm,
        "logging_strategy": "steps",
        "logging_steps": trainer.logging_steps,
        "logging_nan_inf_filter": False,  # it would log another number in place of one that is none
        "save_strategy": "steps" if trainer.save_steps else "no",
        "save_steps": trainer.save_steps or 500,  # unused where the strategy is "no", but must be positive
        "save_total_limit": trainer.save_total_limit,
        "eval_strategy": "steps" if evaluation.steps else "no",
        "eval_steps": evaluation.steps or None,
        # A resumed run has evaluated its checkpoint's step before it was written.
        "eval_on_start": bool(evaluation.steps) and evaluation.at_start and not config.resume_from,
        "report_to": list(context.report_to) or "none",
        "disable_tqdm": not sys.stderr.isatty(),
    }


def _model_kwargs(config: Config, context: RunContext) -> dict[str, Any]:
    """Return how TRL loads the model.

    DeepSpeed keeps a float32 copy of bfloat16 weights for the optimizer. Without it the weights themselves
    are float32 and the forward pass runs under autocast: a learning rate of 1e-6 would be lost in rounding.
    """
    settings = config.model
    return {
        "dtype": settings.dtype if context.deepspeed else "float32",
        "attn_implementation": context.attention,
        "revision": settings.revision or "main",
    }
