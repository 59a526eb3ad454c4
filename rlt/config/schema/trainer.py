"""The optimisation, and warnings while it runs."""

from __future__ import annotations

from dataclasses import dataclass

from rlt.config.schema.setting import setting


@dataclass
class TrainerSettings:
    """The optimisation, common to the stages."""

    max_steps: int = setting(-1, "optimizer steps; -1 counts num_train_epochs instead", ge=-1)
    num_train_epochs: float = setting(1.0, "passes over the data when max_steps is -1", gt=0)
    lr_scheduler_type: str = setting("constant", "learning-rate schedule, by transformers' name")
    warmup_steps: float = setting(0.0, "warm-up: a number of steps, or below 1 a fraction of them", ge=0)
    adam_beta1: float = setting(0.9, "AdamW beta 1", ge=0, lt=1)
    adam_beta2: float = setting(0.999, "AdamW beta 2", ge=0, lt=1)
    adam_epsilon: float = setting(1e-8, "AdamW epsilon", gt=0)
    weight_decay: float = setting(0.0, "AdamW decoupled weight decay", ge=0)
    max_grad_norm: float = setting(1.0, "gradient-norm clip; 0 is off", ge=0)
    gradient_checkpointing: bool | str = setting(
        True,
        "recompute activations (non-reentrant) to save memory; auto: only in micro-batches of more than "
        "trainer.recompute_above tokens",
        choices=("true", "false", "auto"),
    )
    recompute_above: int | None = setting(
        None,
        "trainer.gradient_checkpointing=auto: tokens, padding included, up to which a micro-batch keeps its "
        "activations; null: as many as fit, which launch.sh calculates for GPUs that it knows",
        ge=0,
    )
    grad_accum_dtype: str = setting(
        "model",
        "what DeepSpeed adds up the gradients of micro-batches in: the model's dtype (256 of them in "
        "bfloat16 are 1.5 to 2 % off), or float32, which takes memory; without DeepSpeed it is float32",
        choices=("model", "float32"),
    )
    beta: float = setting(0.04, "RL: weight of the KL term against the reference in the loss", ge=0)
    ref_sync_steps: int = setting(
        32, "RL: steps between mixes of the policy into the reference; 0 is off", ge=0
    )
    ref_mixup: float = setting(0.9, "RL: share of the policy in that mix", gt=0, le=1)
    loss_type: str = setting("grpo", "RL: loss reduction, by TRL's name")
    mask_truncated: bool = setting(False, "RL: no loss on completions that were cut by their length")
    scale_rewards: str = setting(
        "group", "RL: what advantages are divided by", choices=("group", "batch", "none")
    )
    logging_steps: int = setting(1, "write metrics every so many steps", gt=0)
    save_steps: int = setting(25, "checkpoint every so many steps; 0 keeps only the final model", ge=0)
    max_hours: float | None = setting(
        None,
        "hours, from the launcher's start, after which a run saves a checkpoint and leaves with exit code "
        "75; no step is begun that would not fit",
        gt=0,
    )
    hang_timeout: float = setting(
        4 * 3600.0,
        "seconds in one phase of a step (python -m rlt.status shows it) after which launch.sh ends a "
        "training that hangs; 0: never",
        ge=0,
    )
    save_on_sigterm: bool = setting(
        False,
        "a first SIGTERM to the launcher asks for a checkpoint after the step, as SIGUSR1 does, and ends the "
        "run then",
    )
    save_total_limit: int | None = setting(None, "checkpoints kept; null keeps all", gt=0)


@dataclass
class MonitorSettings:
    """When RL warns, with advice. The numbers are always logged, as monitor/NAME."""

    max_solution_copied: float | None = setting(
        0.5,
        "warn above this mean share of a solution's 8-word sequences found in its explanation (0.2 in "
        "honest reasoning traces); solutions of fewer words do not count; null: never",
        ge=0,
        le=1,
    )
    max_solution_first: float | None = setting(
        0.2,
        "warn when more than this share of explanations state a solution of fewer than 8 words in their "
        "first tenth; single characters, and solutions that the question holds, do not count; null: never",
        ge=0,
        le=1,
    )
    max_length_ratio: float | None = setting(
        2.0, "warn when explanations are this many times as long as in the first steps; null: never", gt=1
    )
    min_length_ratio: float | None = setting(
        0.5, "warn when explanations have shrunk to this share of the first steps; null: never", gt=0, lt=1
    )
    baseline_steps: int = setting(5, "first steps, whose mean length is the baseline", gt=0)
    max_missing_tag: float | None = setting(
        0.2, "warn when more than this share lacks the closing explanation tag; null: never", ge=0, le=1
    )
    max_malformed: float | None = setting(
        0.2,
        "student_rl: warn when more than this share is no thought with an answer, ended by the student; "
        "null: never",
        ge=0,
        le=1,
    )
    max_truncated: float | None = setting(
        0.2, "warn when more than this share is cut by max_completion_length; null: never", ge=0, le=1
    )
    max_zero_variance: float | None = setting(
        0.25, "warn when in more than this share of groups all rewards are equal; null: never", ge=0, le=1
    )
    max_kl_share: float | None = setting(
        0.98,
        "warn when r_kl makes up more than this share of V(r_ss) + V(r_kl), the variances within groups; "
        "null: never",
        gt=0.5,
        le=1,
    )
    min_kl_share: float | None = setting(
        None,
        "warn when r_kl makes up less than this share of it, e.g. 0.02; null: never (a teacher that starts "
        "close to the student begins near 0)",
        ge=0,
        lt=0.5,
    )
