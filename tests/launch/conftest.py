"""Tiny models that vLLM serves, and configurations for servers of them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.launch_models import write_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a model that vLLM serves on a CPU."""
    return write_model(tmp_path_factory.mktemp("tiny_model"), head_size=32)


@pytest.fixture
def vllm_config(tmp_path: Path) -> Callable[..., object]:
    """Return a function that gives a configuration for servers, by default of a model that does not exist."""
    from rlt.config.schema import Config

    def build(model: Path | None = None, **generation: object) -> Config:
        files = {"model_name_or_path": str(model or "no-model"), "output_dir": str(tmp_path / "run")}
        config = Config(stage="teacher_rl", **files)
        config.max_prompt_length = config.max_completion_length = 64
        config.generation.dtype = "float32"
        for key, value in generation.items():
            setattr(config.generation, key, value)
        return config

    return build
