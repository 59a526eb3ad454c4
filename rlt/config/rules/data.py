"""The rules of what is read: which column feeds which field, and the prompts around the texts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches

from rlt.config.prompts import check_prompt
from rlt.config.rules.benchmarks import check_benchmarks, nearest, task_names
from rlt.config.rules.layout import check_layout
from rlt.config.schema import (
    OPTIONAL_FIELDS,
    PROMPT_KEYWORDS,
    REQUIRED_FIELDS,
    TRACE_FIELDS,
    Config,
    DataSettings,
    stage_of,
)
from rlt.errors import ConfigError


def check_data(config: Config) -> None:
    """Raise ConfigError for the first broken rule of data and prompts; no data is read."""
    stage = stage_of(config)
    _check_columns(config.data, TRACE_FIELDS if stage.reads_traces else ())
    if stage.generates and config.data.on_long_row == "truncate":
        rows = "RL rows" if stage.is_rl else f"rows of {config.stage}"
        raise ConfigError(
            f"`data.on_long_row=truncate` cuts explanations, which {rows} do not have: take drop or error."
        )
    if stage.reads("data.decontaminate"):
        _check_cleaning(config)
    check_prompts(config)


def _check_cleaning(config: Config) -> None:
    """Refuse sets to compare with that cannot be read."""
    data, paths = config.data, config.evaluate.paths
    check_benchmarks(config.evaluate)
    for name in data.decontaminate:
        if data.decontaminate.count(name) > 1:
            raise ConfigError(f"`data.decontaminate` names {name} twice: name it once.")
        if name == "countdown" and name not in paths:
            raise ConfigError(
                "`data.decontaminate` names countdown, whose problems are made here: give their file instead."
            )
        benchmarks = task_names(config.evaluate)
        if name not in benchmarks and not os.path.exists(name):
            hint = nearest(name, benchmarks) or f"take some of {', '.join(benchmarks)}, or files."
            raise ConfigError(
                f"`data.decontaminate` names {name}, which is neither a benchmark nor a file: {hint}"
            )


def check_prompts(config: Config) -> None:
    """Raise ConfigError for a prompt that is not what its setting may hold."""
    stage = stage_of(config)
    if stage.reads("layout.teacher_prompt") and config.layout.teacher_prompt == "from_dataset":
        raise ConfigError(
            "`layout.teacher_prompt=from_dataset` is not possible, because a dataset's system column is the "
            "student's: take default, original:DIR, file:PATH, or the text itself."
        )
    for name in filter(lambda name: stage.reads(f"layout.{name}"), PROMPT_KEYWORDS):
        check_prompt(name, getattr(config.layout, name))
    check_layout(config)


def _check_columns(data: DataSettings, further: tuple[str, ...]) -> None:
    formats = REQUIRED_FIELDS if data.format == "auto" else (data.format,)
    fields = list(dict.fromkeys(f for name in formats for f in REQUIRED_FIELDS[name] + OPTIONAL_FIELDS[name]))
    fields += further
    for field, column in data.columns.items():
        if field not in fields:
            near = get_close_matches(field, fields, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"take one of {', '.join(fields)}."
            raise ConfigError(
                f"`data.columns.{field}` is not a field of rows with data.format={data.format}: {hint}"
            )
        if not column or not column.strip():
            raise ConfigError(f"`data.columns.{field}` must be the name of a column, got {column!r}.")
    _refuse_shared_column(data.columns)


def _refuse_shared_column(columns: Mapping[str, str]) -> None:
    plain = {field: field for field in REQUIRED_FIELDS["columns"]}
    readers: dict[str, str] = {}
    for field, column in (plain | dict(columns) if plain.keys() & columns.keys() else columns).items():
        if column in readers:
            raise ConfigError(
                f"`data.columns` reads both {readers[column]} and {field} from the column '{column}': give "
                "each its own column."
            )
        readers[column] = field
