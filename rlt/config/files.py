"""Checks of the paths in a configuration: models, data, prompts, checkpoints, the run directory.

Names that could be the Hub's are left alone: whether those exist is found out when they are loaded.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from rlt.config.schema import Config
from rlt.errors import ConfigError

_DATA_SUFFIXES = (".json", ".jsonl", ".parquet", ".csv")


def check_files(config: Config) -> None:
    """Raise ConfigError for the first path that is not what its setting needs."""
    _check_model(config)
    if config.stage == "teacher_rl" and config.student_model:
        _check_model_folder("student_model", config.student_model)
    _check_data("dataset_id_or_path", config.dataset_id_or_path)
    if config.data.eval_path is not None and config.trainer.eval_steps:
        _check_data("data.eval_path", config.data.eval_path)
    for name in ("teacher_prompt", "student_prompt"):
        prompt = getattr(config.layout, name)
        if prompt.startswith("file:") and not Path(prompt.removeprefix("file:")).is_file():
            raise ConfigError(f"`layout.{name}={prompt}` names a file that does not exist.")
    _check_output(config)
    _check_resume(config)


def context_length(model: str) -> int | None:
    """Return max_position_embeddings of a model in a local folder, or None where it cannot be known."""
    path = Path(model) / "config.json"
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON, so {model} is not a usable model: {error}.") from None
    return values.get("max_position_embeddings", values.get("text_config", {}).get("max_position_embeddings"))


def looks_local(name: str) -> bool:
    """Return whether a name means a path on this machine and cannot be a Hub name (`owner/name`)."""
    path = Path(name)
    return (
        name.startswith((".", "~", "/"))
        or name.count("/") > 1
        or path.suffix in _DATA_SUFFIXES
        or ("/" in name and path.parent.is_dir())
    )


def _check_model(config: Config) -> None:
    model = config.model_name_or_path
    default = f"{config.results_dir}/pre_rl_model"
    if config.stage == "teacher_rl" and model == default and not (Path(model) / "config.json").is_file():
        raise ConfigError(
            f"`model_name_or_path={model}` does not hold a model yet: teacher_rl starts from what the "
            f"warm-up writes, so run `./launch.sh cfgs/run_cfg/teacher_sft.yaml "
            f"results_dir={config.results_dir}` first, or give another model_name_or_path."
        )
    _check_model_folder("model_name_or_path", model)


def _check_model_folder(setting: str, model: str) -> None:
    path = Path(model)
    if path.is_dir() and not (path / "config.json").is_file():
        raise ConfigError(f"`{setting}={model}` is a folder without config.json: give a model's folder.")
    if not path.exists() and looks_local(model):
        raise ConfigError(
            f"`{setting}={model}` does not exist: give a model's folder or a Hub name (owner/name)."
        )


def _check_data(setting: str, name: str) -> None:
    if not Path(name).exists() and looks_local(name):
        raise ConfigError(
            f"`{setting}={name}` does not exist: give a json, jsonl, parquet or csv file, a dataset folder, "
            "or a Hub name (owner/name)."
        )


def _check_output(config: Config) -> None:
    path = Path(config.output_dir)
    existing = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if not existing.is_dir():
        raise ConfigError(f"`output_dir={config.output_dir}` cannot be a folder: {existing} is a file.")
    if not os.access(existing, os.W_OK):
        raise ConfigError(f"`output_dir={config.output_dir}` cannot be written: no permission in {existing}.")


def _check_resume(config: Config) -> None:
    if config.resume_from is None:
        return
    if config.resume_from == "latest":
        if not any(Path(config.output_dir).glob("checkpoint-*")):
            raise ConfigError(
                f"`resume_from=latest` finds no checkpoint-N in {config.output_dir}: leave it out to start "
                "afresh."
            )
    elif not Path(config.resume_from).is_dir():
        raise ConfigError(
            f"`resume_from={config.resume_from}` is not a folder: give a checkpoint-N folder, or latest for "
            "the newest in output_dir."
        )
