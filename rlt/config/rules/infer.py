"""The rules of `infer`, which asks a model one question in this process and writes no run directory."""

from __future__ import annotations

from rlt.config.files import check_model
from rlt.config.rules.data import check_prompts
from rlt.config.schema import Config
from rlt.errors import ConfigError


def check_infer(config: Config) -> None:
    """Raise ConfigError for the first broken rule."""
    assert config.model_name_or_path is not None, "validate() has asked for a model"
    check_model("model_name_or_path", config.model_name_or_path)
    check_prompts(config)
    if config.infer.solution is None and config.layout.student_prompt == "from_dataset":
        raise ConfigError(
            "`layout.student_prompt=from_dataset` finds no dataset in infer: give file:PATH, or the text "
            "that the student was trained with."
        )
