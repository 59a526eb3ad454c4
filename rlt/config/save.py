"""The configuration of a run as a YAML file: resolved, complete, readable by people and by `load_config`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from rlt.config.old_words import with_new_names
from rlt.config.overrides import literal
from rlt.config.schema import Config, stage_of
from rlt.config.stage import Stage
from rlt.config.stages import NOTHING, STAGES
from rlt.config.tree import find
from rlt.config.unknown import unknown_key
from rlt.errors import ConfigError


def to_yaml(config: Config, section: str | None = None) -> str:
    """Return what the stage reads of the configuration, or one section or value by dotted name, as YAML."""
    values = _literal(dataclasses.asdict(config))
    if section is None:
        return OmegaConf.to_yaml(OmegaConf.create(_read_of(values, stage_of(config))))
    if find(section) is None:
        raise unknown_key(section, "after --package", sections=True)
    value = OmegaConf.select(OmegaConf.create(values), section)
    return OmegaConf.to_yaml(value) if OmegaConf.is_config(value) else f"{value}\n"


def _read_of(values: Mapping[str, Any], stage: Stage, prefix: str = "") -> dict[str, Any]:
    """Return nested settings without those that a stage does not read, so that none seems to have counted."""
    found = {}
    for key, value in values.items():
        row = find(f"{prefix}{key}")
        if stage.reads(f"{prefix}{key}"):
            is_section = row is not None and row.section is not None
            found[key] = _read_of(value, stage, f"{prefix}{key}.") if is_section else value
    return found


def _literal(value: Any) -> Any:
    """Return a value whose texts read back as they are, whatever `${NAME}` they hold."""
    if isinstance(value, dict):
        return {key: _literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_literal(item) for item in value]
    return literal(value) if isinstance(value, str) else value


def save_config(config: Config, path: str | Path) -> None:
    """Write the configuration as YAML, all at once."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(to_yaml(config), encoding="utf-8")
    temporary.replace(path)


_BEFORE = {"reward.solution_span": "content"}
"""What versions did that had no such setting, where its default is something else."""


def _loaded(path: str | Path) -> DictConfig | ListConfig:
    """Return a saved configuration under today's names."""
    saved = OmegaConf.load(path)
    content = OmegaConf.to_container(saved, resolve=False)
    if not isinstance(content, dict):
        return saved
    renamed = with_new_names(content, STAGES.get(str(content.get("stage"))))
    return saved if renamed == content else OmegaConf.create(renamed)


def _lacks(saved: DictConfig | ListConfig, name: str) -> bool:
    """Whether a saved configuration has the section of a setting, and not the setting."""
    section, _, key = name.rpartition(".")
    found = OmegaConf.select(saved, section)
    return isinstance(found, DictConfig) and key not in found


def load_config(path: str | Path) -> Config:
    """Return the configuration that `save_config` wrote; unknown keys and wrong types are a ConfigError.

    Settings that are absent there have their defaults: those that the stage does not read, and those that a
    file of an earlier version lacks. Others that it had kept of stages that do not read them do no harm.
    """
    try:
        saved = _loaded(path)
        before = {name: value for name, value in _BEFORE.items() if _lacks(saved, name)}
        tree = OmegaConf.merge(OmegaConf.structured(Config), NOTHING, saved)
        for name, value in before.items():
            OmegaConf.update(tree, name, value)
        return cast(Config, OmegaConf.to_object(tree))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist, so there is no saved configuration to read.") from None
    except (OmegaConfBaseException, YAMLError) as error:
        first = str(error).splitlines()[0]
        raise ConfigError(f"{path} is not a configuration of this version: {first}.") from None
