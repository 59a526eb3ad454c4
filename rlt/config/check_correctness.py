"""The rule of `correctness`: what student_rl pays for."""

from __future__ import annotations

from rlt.config.judges import pays_likelihood
from rlt.config.schema import LIKELIHOOD, Config
from rlt.config.students import check_students
from rlt.errors import ConfigError


def check_correctness(config: Config) -> None:
    """Raise ConfigError where a right answer is worth no more than its form, or nobody reads thoughts."""
    correctness = config.correctness
    if pays_likelihood(config):
        _check_likelihood(config)
    if correctness.grader == LIKELIHOOD:
        return
    if correctness.format_weight >= correctness.weight:
        raise ConfigError(
            f"`correctness.format_weight={correctness.format_weight:g}` must be less than correctness.weight="
            f"{correctness.weight:g}, because else a right answer is worth no more than its form: lower it."
        )


def _check_likelihood(config: Config) -> None:
    grader = config.correctness.grader
    what = f"grader={grader}" if grader == LIKELIHOOD else "likelihood_weight"
    if not config.student_model:
        raise ConfigError(
            f"`student_model` is empty, and correctness.{what} asks who reads the student's thoughts: give "
            "policy (the trained model itself), reference, or the folder or Hub name of a frozen copy."
        )
    placement = config.reward.placement
    if placement not in ("replicated", "cpu_offload"):
        raise ConfigError(
            f"`reward.placement={placement}` is not for student_rl, whose frozen copy reads the very ids of "
            "each thought in its own process: take replicated or cpu_offload, or student_model=policy."
        )
    check_students(config)
