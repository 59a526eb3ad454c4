"""The schema as a flat table: one row per setting or section, by dotted name.

Everything that talks about settings (error sentences, `--help`, bounds, YAML checks) reads this table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from rlt.config.schema import Config

_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list[str]: "a list of texts",
    list[int]: "a list of whole numbers",
    list[float]: "a list of numbers",
    dict: "a mapping",
    NoneType: "null",
}


@dataclass(frozen=True)
class Row:
    """One setting or section."""

    name: str
    """Dotted name from the root, e.g. `model.lora.rank`."""
    type: Any
    default: Any
    """The default; the string `???` where the setting must be given."""
    doc: str
    bounds: dict[str, float]
    choices: tuple[str, ...]
    section: type | None
    """The dataclass behind the name when it is a section."""

    @property
    def is_open(self) -> bool:
        """Any key is allowed below this name (a plain dict)."""
        return get_origin(self.type) is dict

    @property
    def is_text(self) -> bool:
        """The value is a string, or null, whatever it looks like."""
        return str in _kinds(self.type) and bool not in _kinds(self.type)

    @property
    def type_name(self) -> str:
        """How the type reads in help and errors."""
        return "a section" if self.section is not None else type_words(self.type)

    @property
    def is_optional(self) -> bool:
        """The value may be null."""
        return NoneType in _kinds(self.type)


def type_words(kind: Any) -> str:
    """Return how a type reads in help and errors."""
    return " or ".join(_words(t) for t in _kinds(kind))


def _words(kind: Any) -> str:
    if record := record_of(kind):
        return f"a list of {{{', '.join(f'{f.name}: …' for f in dataclasses.fields(record))}}}"
    return _WORDS[dict if get_origin(kind) is dict else kind]


def record_of(kind: Any) -> type | None:
    """Return the dataclass that a list holds, or None for any other type."""
    item = get_args(kind)[0] if get_origin(kind) is list else None
    return item if isinstance(item, type) and dataclasses.is_dataclass(item) else None


def fits(value: Any, kind: Any) -> bool:
    """Return whether a value read from YAML is of a type; a whole number is a number, too."""
    if len(kinds := _kinds(kind)) > 1:
        return any(fits(value, k) for k in kinds)
    if record := record_of(kind):
        hints = get_type_hints(record)
        return isinstance(value, list) and all(
            isinstance(item, dict) and all(k in hints and fits(v, hints[k]) for k, v in item.items())
            for item in value
        )
    if get_origin(kind) is list:
        return isinstance(value, list) and all(fits(item, get_args(kind)[0]) for item in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict)
    if kind in (int, float):
        return isinstance(value, int | kind) and not isinstance(value, bool)
    return isinstance(value, kind)


def _kinds(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (UnionType, Union) else (kind,)


@cache
def rows(root: type = Config, prefix: str = "") -> dict[str, Row]:
    """Return every setting and section below a dataclass, by dotted name, in schema order."""
    return {row.name: row for row in _walk(root, prefix)}


def _walk(root: type, prefix: str) -> Iterator[Row]:
    hints = get_type_hints(root)
    for f in dataclasses.fields(root):
        kind = hints[f.name]
        section = kind if dataclasses.is_dataclass(kind) else None
        has_factory = f.default_factory is not dataclasses.MISSING
        default = f.default_factory() if has_factory else f.default  # type: ignore[misc]
        bounds = {k: v for k, v in f.metadata.items() if k in ("ge", "gt", "le", "lt")}
        name = f"{prefix}{f.name}"
        yield Row(name, kind, default, f.metadata["doc"], bounds, f.metadata["choices"], section)  # type: ignore[arg-type]
        if section is not None:
            yield from _walk(section, f"{name}.")  # type: ignore[arg-type]


def find(name: str) -> Row | None:
    """Return the row of a name, the open dict above it for names like `trainer_args.x`, or None."""
    table = rows()
    if name in table:
        return table[name]
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        row = table.get(".".join(parts[:length]))
        if row is not None:
            return row if row.is_open else None
    return None


def get(config: Config, name: str) -> Any:
    """Return a setting's value by its dotted name."""
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value
