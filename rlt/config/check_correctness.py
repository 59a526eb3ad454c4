"""The rule of `correctness`: what student_rl pays for."""

from __future__ import annotations

from rlt.config.schema import Config
from rlt.errors import ConfigError


def check_correctness(config: Config) -> None:
    """Raise ConfigError where a right answer would be worth no more than its form."""
    correctness = config.correctness
    if correctness.format_weight >= correctness.weight:
        raise ConfigError(
            f"`correctness.format_weight={correctness.format_weight:g}` must be less than correctness.weight="
            f"{correctness.weight:g}, because else a right answer is worth no more than its form: lower it."
        )
