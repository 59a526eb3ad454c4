"""The rules of benchmarks while training: evaluation.benchmarks."""

from __future__ import annotations

from rlt.config.files import context_length
from rlt.config.rules.evaluate import check_tasks
from rlt.config.schema import LOCAL_TASK, Config, stage_of
from rlt.errors import ConfigError


def check_during_training(config: Config) -> None:
    """Raise ConfigError for the first broken rule; nothing is asked for while they are off."""
    during = config.evaluation.benchmarks
    if not during.steps:
        return
    check_tasks(config.evaluate, "evaluation.benchmarks.tasks", during.tasks)
    if LOCAL_TASK in during.tasks and config.evaluation.path is None:
        raise ConfigError(
            f"`evaluation.benchmarks.tasks` names {LOCAL_TASK}, which are those of evaluation.path: give "
            "held-out problems there."
        )
    if during.temperature == 0 and during.num_samples > 1:
        raise ConfigError(
            "`evaluation.benchmarks.num_samples` must be 1 with evaluation.benchmarks.temperature=0, "
            f"because greedy answers are all the same, got {during.num_samples}: raise the temperature."
        )
    assert config.model_name_or_path is not None, "validate() has asked for a model"
    check_answers_fit(config, context_length(config.model_name_or_path), longest_prompt=1)


def check_answers_fit(config: Config, context: int | None, longest_prompt: int) -> None:
    """Raise ConfigError when prompt and answer may be longer than the model's context, None if not known.

    In student_rl they have the same limits as its prompts and completions.
    """
    limit = config.evaluation.benchmarks.max_tokens
    excess = longest_prompt + limit - (context or 0)
    if not stage_of(config).is_rl and context is not None and excess > 0:
        raise ConfigError(
            f"`evaluation.benchmarks.max_tokens={limit}` must leave room for a prompt of {longest_prompt} "
            f"tokens in the context of {config.model_name_or_path}, whose max_position_embeddings is "
            f"{context}: lower it by {excess}."
        )
