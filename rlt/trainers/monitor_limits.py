"""What the monitors of an RL stage warn of, with advice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rlt.config.schema import MonitorSettings


@dataclass(frozen=True)
class Limit:
    """A monitor's value above or below which a line of advice is logged, once."""

    monitor: str
    side: str
    """`max` or `min`."""
    value: float | None
    advice: str

    @property
    def setting(self) -> str:
        """The setting of `monitors` that holds the limit."""
        return f"{self.side}_{self.monitor}"


LimitsOf = Callable[[MonitorSettings], list[Limit]]


def teacher_limits(settings: MonitorSettings) -> list[Limit]:
    """Return the limits of teacher RL."""
    stronger_kl = "raise kl_penalty_reward_coeff"
    return [
        Limit(
            "solution_copied",
            "max",
            settings.max_solution_copied,
            f"explanations repeat the solution's wording, which pays without explaining: {stronger_kl}, and "
            "read samples/ for what is copied",
        ),
        Limit(
            "solution_first",
            "max",
            settings.max_solution_first,
            f"explanations begin with the answer instead of leading to it: {stronger_kl}, or warm the "
            "teacher up longer (teacher_sft)",
        ),
        Limit(
            "length_ratio",
            "max",
            settings.max_length_ratio,
            "explanations grow, and hard tokens drown in the mean: raise the weights of min in "
            "answer_log_prob_coeff and of max in kl_penalty_reward_coeff",
        ),
        Limit(
            "length_ratio",
            "min",
            settings.min_length_ratio,
            "explanations shrink: if only r_kl gains by it and r_ss does not, lower kl_penalty_reward_coeff",
        ),
        Limit(
            "missing_tag",
            "max",
            settings.max_missing_tag,
            "explanations lack the closing tag: raise max_completion_length if they are cut, else warm the "
            "teacher up longer (teacher_sft) or lower temperature",
        ),
        Limit(
            "truncated",
            "max",
            settings.max_truncated,
            "completions are cut by their length: raise max_completion_length, or keep them out of the loss "
            "with trainer.mask_truncated=true",
        ),
        *_limits_of_groups(settings, stronger_kl),
    ]


def _limits_of_groups(settings: MonitorSettings, stronger_kl: str) -> list[Limit]:
    return [
        Limit(
            "zero_variance",
            "max",
            settings.max_zero_variance,
            "whole groups earn the same and teach nothing: raise temperature or num_generations, and look "
            "in samples/ whether completions are all alike",
        ),
        Limit(
            "kl_share",
            "max",
            settings.max_kl_share,
            "r_kl alone decides which explanation of a problem wins, whether or not it helps the student: "
            "lower kl_penalty_reward_coeff",
        ),
        Limit(
            "kl_share",
            "min",
            settings.min_kl_share,
            f"r_kl decides nothing, so nothing keeps the teacher from restating the solution: {stronger_kl}",
        ),
    ]


def student_limits(settings: MonitorSettings) -> list[Limit]:
    """Return the limits of student RL."""
    return [
        Limit(
            "length_ratio",
            "max",
            settings.max_length_ratio,
            "thoughts grow: good while `correct` rises with them, else lower temperature or take "
            "trainer.loss_type=dapo, under which long wrong answers cost as much a token as short ones",
        ),
        Limit(
            "length_ratio",
            "min",
            settings.min_length_ratio,
            "thoughts shrink: read samples/ whether the student guesses; problems that it can guess need no "
            "thought, so take harder ones, or raise trainer.beta",
        ),
        Limit(
            "malformed",
            "max",
            settings.max_malformed,
            "completions lack the student's tags or do not end by themselves: raise max_completion_length if "
            "they are cut, else fine-tune the student on traces first (student_sft), under the same "
            "layout.student_prompt and layout.tags",
        ),
        Limit(
            "truncated",
            "max",
            settings.max_truncated,
            "completions are cut by their length, and earn nothing: raise max_completion_length, or keep "
            "them out of the loss with trainer.mask_truncated=true",
        ),
        Limit(
            "zero_variance",
            "max",
            settings.max_zero_variance,
            "whole groups earn the same and teach nothing: take easier problems if `correct` is near 0 and "
            "harder ones if it is near 1, or raise num_generations",
        ),
    ]
