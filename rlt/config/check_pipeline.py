"""The rule of a pipeline's own settings; its steps are read and checked, all together, in rlt/pipeline."""

from __future__ import annotations

from rlt.config.schema import Config
from rlt.config.tree import get, rows
from rlt.errors import ConfigError

INHERITED = ("results_dir", "recipe", "seed")
"""Settings of a pipeline that its steps take over, where they differ from their defaults."""
_OWN = ("stage", "output_dir", *INHERITED)
_NOTHING = (None, "none")


def check_pipeline(config: Config) -> None:
    """Raise ConfigError for a setting that no step would get."""
    for row in rows().values():
        if row.section or row.name in _OWN or row.name.startswith("pipeline."):
            continue
        value = get(config, row.name)
        if value != row.default and value not in _NOTHING:
            raise ConfigError(
                f"`{row.name}` has no effect in a pipeline: write pipeline.steps.STEP.{row.name}=… for one "
                f"step, or pipeline.every.{row.name}=… for all that do not set it."
            )
