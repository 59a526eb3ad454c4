"""The rules of student_rl: what it pays for, and what holds for explanations alone."""

from __future__ import annotations

from rlt.config.schema import Config
from rlt.config.tree import get, rows
from rlt.errors import ConfigError

_OF_EXPLANATIONS = (
    *("student_model", "answer_log_prob_coeff", "kl_penalty_reward_coeff", "layout.teacher_prompt"),
    *(f"monitors.{name}" for name in ("max_solution_copied", "max_solution_first", "max_missing_tag")),
    *(f"monitors.{name}" for name in ("max_kl_share", "min_kl_share")),
)
"""Settings, besides those of `reward`, that a run without a teacher does not read."""


def check_correctness(config: Config) -> None:
    """Raise ConfigError for the first broken rule."""
    _refuse_settings_of_explanations(config)
    correctness = config.correctness
    if correctness.format_weight >= correctness.weight:
        raise ConfigError(
            f"`correctness.format_weight={correctness.format_weight:g}` must be less than correctness.weight="
            f"{correctness.weight:g}, because else a right answer is worth no more than its form: lower it."
        )
    if config.generation.stop_at_tag:
        raise ConfigError(
            "`generation.stop_at_tag=true` does not hold for student_rl, because a student has to learn to "
            "end its turn by itself: leave it at false."
        )


def _refuse_settings_of_explanations(config: Config) -> None:
    table = rows()
    of_reward = [name for name, row in table.items() if name.startswith("reward.") and row.section is None]
    for name in (*_OF_EXPLANATIONS, *of_reward):
        if get(config, name) != table[name].default:
            raise ConfigError(
                f"`{name}` has no effect, because student_rl is paid by a grader, as `correctness` says, and "
                "by no frozen student: leave it out."
            )
