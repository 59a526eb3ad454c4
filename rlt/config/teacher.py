"""The teacher of on-policy distillation: `teacher_model`, or the student's own weights."""

from __future__ import annotations

from rlt.config.schema import Config


def has_own_weights(config: Config) -> bool:
    """Whether the teacher is another model in memory than the one that is trained."""
    return config.opd.teacher != "self"


def teacher_name(config: Config) -> str | None:
    """Return the model that the teacher's weights come from; None for the student as it is at each step."""
    if not has_own_weights(config):
        return None
    return config.teacher_model if config.opd.teacher == "model" else config.model_name_or_path


def teacher_revision(config: Config) -> str | None:
    """Return its branch, tag or commit on the Hub: the student's where the weights are the student's."""
    return None if config.opd.teacher == "model" else config.model.revision
