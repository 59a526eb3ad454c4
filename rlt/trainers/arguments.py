"""Our settings as keyword arguments of TRL's SFTConfig and GRPOConfig, without importing TRL or torch.

Every argument that TRL or transformers would fill with a default of its own choice is either here or
pinned in the recipe's `trainer_args`, which are merged last.
"""

from __future__ import annotations

import math
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rlt.config.schema import Config


def sft_arguments(config: Config, num_processes: int, *, bf16: bool, use_cpu: bool) -> dict[str, Any]:
    """Return the arguments of SFTConfig for rows that already hold `input_ids` and `labels`.

    TRL's preparation is skipped: it would look for text columns, and its truncation would cut the
    explanation that the length policy has already dealt with.
    """
    return {
        **_common(config, num_processes, bf16=bf16, use_cpu=use_cpu),
        "per_device_eval_batch_size": config.trainer.per_device_eval_batch_size,
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "max_length": None,
        "packing": False,
        "padding_free": False,
        "completion_only_loss": False,  # the labels say it, token by token
        "assistant_only_loss": False,
        "remove_unused_columns": True,
        **config.trainer_args,
    }


def grpo_arguments(config: Config, num_processes: int, *, bf16: bool, use_cpu: bool) -> dict[str, Any]:
    """Return the arguments of GRPOConfig. One generation serves exactly one optimizer step.

    `use_vllm` and `sync_ref_model` stay off: the trainer attaches its own generation back end and its
    own reference sync, which gathers one parameter at a time.
    """
    trainer, generation = config.trainer, config.generation
    accumulation = gradient_accumulation(config, num_processes)
    # Rank 0 may wait for a generation and a sync while the other ranks stand in a collective.
    patience = generation.request_timeout + generation.sync_timeout + 600
    return {
        **_common(config, num_processes, bf16=bf16, use_cpu=use_cpu),
        "ddp_timeout": max(1800, math.ceil(patience)),
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
        "scale_rewards": trainer.scale_rewards,
        "sync_ref_model": False,
        "use_vllm": False,
        "disable_dropout": False,
        # A held-out problem's explanations stay together on one process.
        "num_generations_eval": config.evaluation.num_generations,
        "per_device_eval_batch_size": config.evaluation.num_generations,
        "remove_unused_columns": False,
        "log_completions": False,
        **config.trainer_args,
    }


def gradient_accumulation(config: Config, num_processes: int) -> int:
    """Return the forward passes that one process accumulates into an optimizer step."""
    quotient, rest = divmod(config.train_batch_size, config.per_device_train_batch_size * num_processes)
    assert rest == 0, "validate() has refused a batch that does not divide"
    return quotient


def _common(config: Config, num_processes: int, *, bf16: bool, use_cpu: bool) -> dict[str, Any]:
    trainer = config.trainer
    return {
        "output_dir": config.output_dir,
        "run_name": Path(config.output_dir).name,
        "project": config.wandb_project,
        "seed": config.seed,
        "data_seed": config.seed,
        "bf16": bf16,
        "use_cpu": use_cpu,
        "model_init_kwargs": _model_kwargs(config, use_cpu),
        "trust_remote_code": config.model.trust_remote_code,
        "per_device_train_batch_size": config.per_device_train_batch_size,
        "gradient_accumulation_steps": gradient_accumulation(config, num_processes),
        "gradient_checkpointing": trainer.gradient_checkpointing,
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
        "save_strategy": "steps" if trainer.save_steps else "no",
        "save_steps": trainer.save_steps or 500,  # unused where the strategy is "no", but must be positive
        "save_total_limit": trainer.save_total_limit,
        "eval_strategy": "steps" if trainer.eval_steps else "no",
        "eval_steps": trainer.eval_steps or None,
        "eval_on_start": bool(trainer.eval_steps) and config.evaluation.at_start,
        "report_to": [config.report_to] if config.report_to else "none",
        "disable_tqdm": not sys.stderr.isatty(),
    }


def _model_kwargs(config: Config, use_cpu: bool) -> dict[str, Any]:
    attention = config.model.attn_implementation
    if attention == "auto":
        flash = not use_cpu and config.model.dtype == "bfloat16" and find_spec("flash_attn") is not None
        attention = "flash_attention_2" if flash else "sdpa"
    return {
        "dtype": config.model.dtype,
        "attn_implementation": attention,
        "revision": config.model.revision or "main",
    }
