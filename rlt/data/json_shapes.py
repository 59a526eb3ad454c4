"""Rows of one JSON document, in the shapes that people and pandas write: a list of rows, one row, rows under
a key, or columns.

Which shape it is shows in the document alone. What fits none is taken for one row, whose columns a later
message lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlt.config.schema import REQUIRED_FIELDS
from rlt.errors import DataError

_WRAPPERS = ("data", "rows", "examples", "instances", "items", "records", "problems", "questions", "train")
"""Keys that hold the rows where others hold facts about them."""
_OF_A_ROW = {field for fields in REQUIRED_FIELDS.values() for field in fields}


def rows_of(content: Any, source: object) -> list[Any]:
    """Return the rows of a document, of whatever type each is."""
    if isinstance(content, list):
        return content
    if not isinstance(content, dict):
        raise DataError(f"{source} must hold a JSON list of rows, got {type(content).__name__}")
    split = _split_columns(content)
    rows = split if split is not None else _wrapped(content, source)
    if rows is None:
        rows = _from_columns(content, source)
    return [content] if rows is None else rows


def _split_columns(content: Mapping[str, Any]) -> list[Any] | None:
    """Return the rows of pandas' orient=split: column names, and a list of cells a row."""
    names: Any = content.get("columns")
    cells: Any = content.get("data")
    if not _is_list_of(str, names) or not _is_list_of(list, cells):
        return None
    if any(len(row) != len(names) for row in cells):
        return None
    return [dict(zip(names, row, strict=True)) for row in cells]


def _wrapped(content: Mapping[str, Any], source: object) -> list[Any] | None:
    """Return the list of rows that is under a key of the document."""
    lists = {k: v for k, v in content.items() if _is_list_of(dict, v) and not _is_conversation(v)}
    facts = [value for key, value in content.items() if key not in lists]
    is_wrapper = lists.keys() <= set(_WRAPPERS) and not content.keys() & _OF_A_ROW
    is_wrapper &= not any(isinstance(value, list) for value in facts)
    if len(lists) == len(content) > 1:
        raise DataError(
            f"{source} holds several lists of rows ({', '.join(lists)}): write each to a file of its own"
        )
    if len(lists) == 1 and (is_wrapper or not facts):
        return next(iter(lists.values()))
    return None


def _from_columns(content: Mapping[str, Any], source: object) -> list[Any] | None:
    """Return the rows of a document that holds columns, as lists or (pandas) by row names.

    One list may be a value of a single row, as `messages` is; several of one length are columns.
    """
    columns = list(content.values())
    if columns and all(isinstance(column, dict) and column for column in columns):
        names = [list(column) for column in columns]
        if any(name != names[0] for name in names):
            return None
        if all(key.isdecimal() for key in content):  # orient=index: each value is a row
            return columns
        return [{key: content[key][name] for key in content} for name in names[0]]
    if not columns or not all(isinstance(column, list) for column in columns):
        return None
    if any(_is_conversation(column) for column in columns) or (len(columns) == 1 and not columns[0]):
        return None
    lengths = {key: len(column) for key, column in content.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{key} {length}" for key, length in lengths.items())
        raise DataError(f"{source} holds columns of different lengths: {listed}")
    return [dict(zip(content, cells, strict=True)) for cells in zip(*columns, strict=True)]


def _is_list_of(kind: type, value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, kind) for item in value)


def _is_conversation(value: Any) -> bool:
    """Whether a list holds the turns of one conversation."""
    return _is_list_of(dict, value) and all({"role", "from"} & turn.keys() for turn in value)
