"""What a user typed that the stage does not read: refused in one sentence that says where it was typed.

Typed is what a command line or a run file says, the run files that it builds on included. Group files
(cfgs/*_cfg but run_cfg) are shared by stages, so what they set for others is no mistake.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from rlt.config.overrides import CommandLine, groups, value_of
from rlt.config.stages import NOTHING, STAGES, Stage
from rlt.config.tree import find
from rlt.config.yaml_files import run_files
from rlt.errors import ConfigError

_ON_COMMAND_LINE = "on the command line"
_MANY = 4
"""Stages that a sentence lists."""
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")


def refuse_unread(tree: DictConfig, line: CommandLine) -> None:
    """Raise ConfigError for typed settings that the stage of a composed tree does not read.

    What another setting refers to by `${NAME}` counts, and so does a word for nothing (stages.NOTHING).
    """
    stage = STAGES[tree.stage]
    referred = _references(tree, stage, line)
    unread = {
        name: where
        for name, where in typed_settings(line).items()
        if not stage.reads(name) and name not in referred and not _says_nothing(tree, name)
    }
    if unread:
        raise ConfigError(unread_sentence(tree.stage, unread))


def typed_settings(line: CommandLine) -> dict[str, str]:
    """Return every typed setting by dotted name with where it was typed, the place that wins."""
    found = dict.fromkeys(_on_command_line(line), _ON_COMMAND_LINE)
    for path, content in run_files(line.run_file, line.config_dirs):
        for name in flat(content):
            found.setdefault(name, f"in {path}")
    return found


def flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of the settings that nested values set; an open dict is one setting."""
    for key, value in content.items():
        name = f"{prefix}{key}"
        row = find(name)
        if row is not None and row.section is not None and isinstance(value, Mapping):
            yield from flat(value, f"{name}.")
        elif row is not None:
            yield name


def unread_sentence(stage: str, unread: Mapping[str, str]) -> str:
    """Return the sentence for settings without effect; `unread` says where each was typed."""
    places: dict[str, list[str]] = {}
    for name, where in unread.items():
        places.setdefault(where, []).append(f"`{name}`")
    what = " and ".join(f"{_listed(names)} {where}" for where, names in places.items())
    verb, them = ("has", "it") if len(unread) == 1 else ("have", "them")
    name, record = next(iter(unread)), STAGES[stage]
    remedy = record.remedy.format(name=name)
    if remedy == Stage.remedy:
        remedy = f"remove {them}"
    readers = [other for other, known in STAGES.items() if known.reads(name)]
    why = f"read by {_listed(readers)}" if len(readers) <= _MANY else ""
    why = dict(record.notes).get(name, why)
    hint = f" ({why})" if why and len(unread) == 1 else ""
    return f"{what} {verb} no effect in {stage}: {remedy}{hint}."


def _on_command_line(line: CommandLine) -> Iterator[str]:
    known = groups(line.config_dirs)
    for word in line.overrides:
        key = word.lstrip("+~").partition("=")[0]
        row = find(key)
        if row is None or key.split("@")[0] in known:
            continue
        nested = value_of(word) if row.section is not None else None
        yield from flat(nested, f"{key}.") if isinstance(nested, Mapping) else (key,)


def _says_nothing(tree: DictConfig, name: str) -> bool:
    return name in NOTHING and OmegaConf.select(tree, name) == NOTHING[name]


def _references(tree: DictConfig, stage: Stage, line: CommandLine) -> set[str]:
    """Return the settings that others refer to: in values that are read, or in a file's defaults list."""
    raw: Any = OmegaConf.to_container(tree, resolve=False)
    texts = [text for name in flat(raw) if stage.reads(name) for text in _texts(_select(raw, name))]
    for _, content in run_files(line.run_file, line.config_dirs):
        texts += _texts(content.get("defaults", []))
    return {match for text in texts for match in _REFERENCE.findall(text)}


def _select(raw: Any, name: str) -> Any:
    for part in name.split("."):
        raw = raw[part]
    return raw


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
