"""What the monitors of on-policy distillation warn of, with advice."""

from __future__ import annotations

from rlt.config.schema import MonitorSettings
from rlt.trainers.monitor_limits import Limit


def opd_limits(settings: MonitorSettings) -> list[Limit]:
    """Return the limits of on-policy distillation."""
    return [
        Limit(
            "solution_copied",
            "max",
            settings.max_solution_copied,
            "thoughts repeat the wording of a solution that the student has not read, so it learns texts by "
            "heart instead of a way to them: train for fewer steps or on more problems",
        ),
        Limit(
            "solution_first",
            "max",
            settings.max_solution_first,
            "thoughts begin with the answer, as the teacher's do who knows it: take a teacher that was "
            "trained to lead to it (teacher_rl), or opd.divergence=reverse_kl",
        ),
        Limit(
            "length_ratio",
            "max",
            settings.max_length_ratio,
            "thoughts grow beyond those of the start: look at samples/ whether they repeat themselves, and "
            "lower learning_rate",
        ),
        Limit(
            "length_ratio",
            "min",
            settings.min_length_ratio,
            "thoughts shrink towards the teacher's, who need not search for the solution: compare accuracies "
            "(evaluation.benchmarks) before you continue",
        ),
        Limit(
            "malformed",
            "max",
            settings.max_malformed,
            "completions lack the student's tags or do not end by themselves, and without a thought there is "
            "no loss: raise max_completion_length if they are cut, else fine-tune the student on traces "
            "first (student_sft), under the same layout.student_prompt and layout.tags; if it began well, "
            "opd.answer_coeff=1 keeps what is around the thought in the loss",
        ),
        Limit(
            "truncated",
            "max",
            settings.max_truncated,
            "completions are cut by their length: raise max_completion_length, or keep them out of the loss "
            "with trainer.mask_truncated=true",
        ),
    ]
