"""The rules of single settings: bounds, choices and finite numbers, read from the schema's metadata."""

from __future__ import annotations

import math
from typing import Any

from rlt.config.schema import Config, stage_of
from rlt.config.tree import Row, get, rows
from rlt.errors import ConfigError

_RULES = {
    "ge": (lambda value, bound: value >= bound, "at least"),
    "gt": (lambda value, bound: value > bound, "greater than"),
    "le": (lambda value, bound: value <= bound, "at most"),
    "lt": (lambda value, bound: value < bound, "less than"),
}

_MAY_BE_EMPTY = ("layout.teacher_prompt", "layout.student_prompt")
"""Texts that mean something when they are empty: no system prompt."""


def check_bounds(config: Config) -> None:
    """Raise ConfigError for the first setting of the stage whose value breaks its own rule."""
    stage = stage_of(config)
    for row in rows().values():
        value = get(config, row.name)
        counts = stage.reads(row.name)
        if row.section is None and value is not None and counts:
            _check_number(row, value)
            if value == "" and row.name not in _MAY_BE_EMPTY:
                remedy = "give null for none" if row.is_optional else "give a value"
                raise ConfigError(f"`{row.name}` is empty: {remedy} ({row.doc}).")
            word = str(value).lower() if isinstance(value, bool) else value
            if row.choices and word not in row.choices:
                raise ConfigError(
                    f"`{row.name}` must be one of {', '.join(row.choices)}, got {value!r} ({row.doc})."
                )


def _check_number(row: Row, value: Any) -> None:
    for number in value if isinstance(value, list) else [value]:
        if isinstance(number, float) and not math.isfinite(number):
            raise ConfigError(f"`{row.name}` must be finite, got {value} ({row.doc}).")
    for name, bound in row.bounds.items():
        holds, words = _RULES[name]
        if not holds(value, bound):
            raise ConfigError(
                f"`{row.name}` must be {words} {bound:.12g}, got {value} "
                f"({row.doc}; the default is {row.default})."
            )
