"""Writing files of a run directory so that a reader never sees half of one.

A file is written beside its place under a temporary name and renamed. An older run's file is set aside
under a number, never overwritten.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[Path], object]) -> Path:
    """Return `path`, written by `write` under a temporary name in the same folder and then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_text(path: Path, text: str) -> Path:
    """Return `path`, holding `text` as UTF-8; a lone surrogate is written as a question mark."""
    data = text.encode("utf-8", errors="replace")
    return write_atomically(path, lambda temporary: temporary.write_bytes(data))


def set_aside(path: Path) -> Path | None:
    """Return the new place of an existing file or folder: the first free of `NAME.1`, `NAME.2`, …"""
    if not path.exists():
        return None
    number = 1
    while (place := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    path.rename(place)
    return place


def to_json(value: Any) -> tuple[Any, bool]:
    """Return the value as JSON can hold it, and whether it is a number that JSON cannot hold.

    NaN and infinity become None: no reader may take them for a number.
    """
    if hasattr(value, "item") and getattr(value, "size", None) != 0 and not isinstance(value, str):
        try:
            value = value.item()  # a zero-dimensional tensor or a numpy scalar
        except (RuntimeError, ValueError):  # more than one element
            return str(value), False
    if isinstance(value, float):
        return (value, False) if math.isfinite(value) else (None, True)
    if value is None or isinstance(value, bool | int | str):
        return value, False
    return str(value), False


def json_tree(value: Any) -> Any:
    """Return nested dicts and lists with every leaf as JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(key): json_tree(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_tree(item) for item in value]
    return to_json(value)[0]


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Return `path`, holding one line of JSON per row; a lone surrogate is written as a question mark."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", errors="replace") as file:
            for row in rows:
                file.write(json.dumps(json_tree(row), ensure_ascii=False, allow_nan=False) + "\n")

    return write_atomically(path, write)


def write_json(path: Path, value: Any) -> Path:
    """Return `path`, holding the value as indented JSON."""
    return write_text(
        path, json.dumps(json_tree(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    )
