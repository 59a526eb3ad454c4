"""The rules of `infer`, which asks a model one question in this process and writes no run directory."""

from __future__ import annotations

from rlt.config.check_data import check_prompts
from rlt.config.files import check_model
from rlt.config.schema import Config
from rlt.errors import ConfigError


def check_infer(config: Config) -> None:
    """Raise ConfigError for the first broken rule."""
    assert config.model_name_or_path is not None, "validate() has asked for a model"
    if config.infer.question is None:
        raise ConfigError(
            '`infer.question` is missing: give infer.question="What is 6*7?" (and infer.solution="42" if the '
            "model is a teacher)."
        )
    if config.generation.backend != "transformers":
        raise ConfigError(
            f"`generation.backend={config.generation.backend}` does not hold for infer, which generates in "
            "this process: leave it at transformers."
        )
    if config.trainer_args or config.resume_from is not None:
        setting = "trainer_args" if config.trainer_args else "resume_from"
        raise ConfigError(f"`{setting}` has no effect, because infer trains nothing: leave it out.")
    check_model("model_name_or_path", config.model_name_or_path)
    check_prompts(config)
    if config.infer.solution is None and config.layout.student_prompt == "from_dataset":
        raise ConfigError(
            "`layout.student_prompt=from_dataset` finds no dataset in infer: give file:PATH, or the text "
            "that the student was trained with."
        )
