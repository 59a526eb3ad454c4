"""Who pays in a run: whether students read what is written, and which model student_model is."""

from __future__ import annotations

from rlt.config.schema import LIKELIHOOD, OWN_STUDENTS, Config, stage_of


def own_student(config: Config) -> str | None:
    """Return which model of the training itself is student_model: policy, reference, or None for another."""
    return config.student_model if config.student_model in OWN_STUDENTS else None


def pays_likelihood(config: Config) -> bool:
    """Return whether students read what is written: for a teacher, or (student_rl) in place of a grader."""
    correctness = config.correctness
    in_student_rl = stage_of(config).reads("correctness") and (
        correctness.grader == LIKELIHOOD or correctness.likelihood_weight > 0
    )
    return stage_of(config).scores or in_student_rl


def moves(config: Config) -> bool:
    """Return whether student_model changes in training, so that rewards of two steps differ by it."""
    own = own_student(config)
    return own == "policy" or (own == "reference" and config.trainer.ref_sync_steps > 0)


def reads_student_model(config: Config) -> bool:
    """Return whether student_model is a model of its own that this run reads, its tokenizer at least."""
    if stage_of(config).reads("correctness") and not pays_likelihood(config):
        return False
    return stage_of(config).reads("student_model") and own_student(config) is None
