"""What a user typed that has no effect: refused in one sentence that says where it was typed.

Either the stage does not read it (stages.py), or another setting makes it void (conditions.py). Typed is what
a command line or a run file says, the run files that it builds on included. Group files (cfgs/*_cfg but
run_cfg) are shared by stages, so what they set for others is no mistake.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from rlt.config.conditions import CONDITIONS, OnlyWith, is_off
from rlt.config.old_words import moved_in, tell
from rlt.config.overrides import CONFIG_DIR, CommandLine, groups, value_of
from rlt.config.stage import Stage
from rlt.config.stages import NOTHING, STAGES
from rlt.config.tree import find, rows
from rlt.config.yaml_files import run_files
from rlt.errors import ConfigError

_ON_COMMAND_LINE = "on the command line"
_MANY = 4
"""Stages that a sentence lists."""
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")


def take_moved(tree: DictConfig, line: CommandLine) -> None:
    """Give settings of a composed tree what was typed under names that other stages alone read now."""
    typed = typed_settings(line)
    for old, new in moved_in(STAGES[tree.stage]).items():
        if old in typed and new not in typed:
            tell(old, typed[old], new)
            OmegaConf.update(tree, new, OmegaConf.select(tree, old))
            OmegaConf.update(tree, old, rows()[old].default)


def _typed_in(stage: Stage, line: CommandLine) -> dict[str, str]:
    """Return every typed setting by the name that the stage reads it under, with where it was typed."""
    moved = moved_in(stage)
    return {moved.get(name, name): where for name, where in typed_settings(line).items()}


def refuse_unread(tree: DictConfig, line: CommandLine) -> None:
    """Raise ConfigError for typed settings that the stage of a composed tree does not read.

    What another setting refers to by `${NAME}` counts, and so does a word for nothing (stages.NOTHING).
    """
    stage = STAGES[tree.stage]
    referred = _references(tree, stage, line)
    unread = {
        name: where
        for name, where in _typed_in(stage, line).items()
        if not stage.reads(name) and name not in referred and not _says_nothing(tree, name)
    }
    if unread:
        raise ConfigError(unread_sentence(tree.stage, unread))


def refuse_void(tree: DictConfig, line: CommandLine) -> None:
    """Raise ConfigError for the first typed setting that another one makes void."""
    for void in void_settings(tree, line):
        raise ConfigError(void_sentence(tree, void))


@dataclass(frozen=True)
class Void:
    """A typed setting that another one makes void."""

    name: str
    condition: OnlyWith
    where: str
    """Where it was typed."""


def void_settings(tree: DictConfig, line: CommandLine) -> Iterator[Void]:
    """Yield every typed setting that another one makes void.

    Excluded are settings that another one refers to by `${NAME}`; what a shipped run file says; and a value
    that was overridden in effect: model.lora.rank=0 on a command line switches off what a run file says of
    LoRA.
    """
    stage = STAGES[tree.stage]
    typed = _typed_in(stage, line)
    places = [_ON_COMMAND_LINE, *(f"in {path}" for path, _ in run_files(line.run_file, line.config_dirs))]
    shipped = {place for place in places if _is_shipped(place)}
    referred = _references(tree, stage, line)
    for name, where in typed.items():
        if where in shipped or name in referred or not stage.reads(name) or _says_off(tree, name, where):
            continue
        for condition in CONDITIONS:
            others = condition.read_by(tree.stage, stage) if condition.concerns(name) else ()
            values = [_value(tree, other) for other in others]
            if not others or condition.counts(_value(tree, name), *values):
                continue
            if all(places.index(where) <= places.index(typed.get(other, places[-1])) for other in others):
                yield Void(name, condition, where)


def _says_off(tree: DictConfig, name: str, where: str) -> bool:
    """Whether a value promises nothing: it is none, or in a file what it would be without being there."""
    value, row = _value(tree, name), rows().get(name)
    return is_off(value) or (where != _ON_COMMAND_LINE and row is not None and value == row.default)


def void_sentence(tree: DictConfig, void: Void) -> str:
    """Return the sentence for it, with each way to make it count."""
    condition = void.condition
    others = condition.read_by(tree.stage, STAGES[tree.stage])
    now = " and ".join(f"{other}={_shown(_value(tree, other))}" for other in others)
    ways = [way for other, way in zip(condition.others, condition.instead, strict=True) if other in others]
    return f"`{void.name}` {void.where} has no effect with {now}: remove it, or take {' or '.join(ways)}."


def _value(tree: DictConfig, name: str) -> Any:
    value = OmegaConf.select(tree, name)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _shown(value: Any) -> str:
    """Return a value as it is typed."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_shown, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def typed_settings(line: CommandLine) -> dict[str, str]:
    """Return every typed setting by dotted name with where it was typed, the place that wins."""
    found = dict.fromkeys(_on_command_line(line), _ON_COMMAND_LINE)
    for path, content in run_files(line.run_file, line.config_dirs):
        for name in flat(content):
            found.setdefault(name, f"in {path}")
    return found


def chosen_settings(line: CommandLine) -> dict[str, str]:
    """Return the typed settings that are the user's own choice: what a shipped run file says is a preset."""
    return {name: where for name, where in typed_settings(line).items() if not _is_shipped(where)}


def _is_shipped(place: str) -> bool:
    return place.startswith(f"in {CONFIG_DIR}/")


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
