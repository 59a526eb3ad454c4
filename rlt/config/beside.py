"""Frozen models that score beside the trained one: students that pay a teacher, or a teacher that judges."""

from __future__ import annotations

from rlt.config.schema import Config, OpdSettings, RewardSettings, stage_of
from rlt.config.teacher import has_own_weights


def settings_beside(config: Config) -> RewardSettings | OpdSettings | None:
    """Return where they are and in which dtype; None for a stage without any."""
    stage = stage_of(config)
    if stage.scores:
        return config.reward
    return config.opd if stage.is_judged and has_own_weights(config) else None


def section_beside(config: Config) -> str:
    """Return the section of these settings."""
    return "reward" if stage_of(config).scores else "opd"


def role_beside(config: Config) -> str:
    """Return what such a model is called."""
    return "student" if stage_of(config).scores else "teacher"
