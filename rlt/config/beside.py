"""Frozen models that score beside the trained one: students that pay, or a teacher that judges."""

from __future__ import annotations

from rlt.config.judges import pays_likelihood
from rlt.config.schema import Config, OpdSettings, RewardSettings, stage_of
from rlt.config.teacher import has_own_weights


def settings_beside(config: Config) -> RewardSettings | OpdSettings | None:
    """Return where they are and in which dtype; None for a run without any."""
    if stage_of(config).is_judged:
        return config.opd if has_own_weights(config) else None
    return config.reward if pays_likelihood(config) else None


def section_beside(config: Config) -> str:
    """Return the section of these settings."""
    return "opd" if stage_of(config).is_judged else "reward"


def role_beside(config: Config) -> str:
    """Return what such a model is called."""
    return "teacher" if stage_of(config).is_judged else "student"
