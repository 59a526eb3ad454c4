"""One source row -> `Problem`, in three shapes: columns, sharegpt, messages.

An id is always the hash of question and solution (records.problem_id). Columns of the source such as
`id` or `problem_id` are kept in `extra` and not used: they repeat where a dataset has several traces
of one question. Questions and system prompts stay byte for byte; solutions and traces lose outer
white space, which the layout puts back. Reading files and counting bad rows is done elsewhere.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlt.config.schema import OPTIONAL_FIELDS, REQUIRED_FIELDS
from rlt.data.turns import read_turns
from rlt.data.values import number_text, written_text
from rlt.errors import ConfigError, DataError
from rlt.formats.tags import TagStyle
from rlt.records import Problem, problem_id

USUAL_NAMES = {
    "question": ("problem", "Question", "query", "instruction", "prompt", "input"),
    "solution": ("answer", "Correct Answer", "response", "output", "final_answer"),
    "conversations": ("conversation", "dialog", "dialogue"),
}


@dataclass(frozen=True)
class RowFormat:
    """Which shape the rows have, and which of their columns feeds each of our fields."""

    name: str
    columns: Mapping[str, str]
    """Our field -> their column. Optional fields without a column in the source are skipped."""
    extra_columns: tuple[str, ...]
    """The rest of their columns; every problem gets all of them, with None where a row has no value."""
    tag_match: str = "once"
    """How tags in turns are read (setting data.tag_match)."""


def choose_format(
    name: str, column_map: Mapping[str, str], seen: Sequence[str], source: str, tag_match: str = "once"
) -> RowFormat:
    """Return the format called `name`, or for `auto` the one whose required columns are there."""
    _require_mapped(column_map, seen, source)
    if name == "auto":
        name = _detect(column_map, seen, source)
    fields = REQUIRED_FIELDS[name] + OPTIONAL_FIELDS[name]
    if unused := [f for f in column_map if f not in fields]:
        raise ConfigError(
            f"data.columns names {unused[0]!r}, which rows of data.format={name} don't have; "
            f"its fields are {', '.join(fields)}"
        )
    if missing := [f for f in REQUIRED_FIELDS[name] if column_map.get(f, f) not in seen]:
        raise DataError(
            f"{source} has no column {missing[0]!r}, which data.format={name} needs; it has "
            f"{_listed(seen)}; {_remedy(missing, seen, column_map)}"
        )
    columns = {f: column_map.get(f, f) for f in fields if column_map.get(f, f) in seen}
    used = set(columns.values())
    return RowFormat(name, columns, tuple(column for column in seen if column not in used), tag_match)


def to_problem(row: Mapping[str, Any], fmt: RowFormat, tags: TagStyle) -> Problem:
    """Return the problem of a row; DataError gives the reason why it is none, without its number."""
    if fmt.name == "columns":
        question = _required_text(row, "question", fmt)
        solution = _required_text(row, "solution", fmt).strip()
        trace = _trace(row, fmt)
        system = None
    else:
        field = REQUIRED_FIELDS[fmt.name][0]
        turns = read_turns(row.get(fmt.columns[field]), _label(field, fmt), tags, fmt.tag_match)
        system, question, trace, solution = (
            turns.system,
            turns.question,
            turns.thought or None,
            turns.solution,
        )
    return Problem(
        id=problem_id(question, solution),
        question=question,
        solution=solution,
        reasoning_trace=trace,
        answer=_answer(row, fmt),
        system=_same_system(_optional_text(row, "system", fmt), system),
        extra={column: row.get(column) for column in fmt.extra_columns},
    )


def _require_mapped(column_map: Mapping[str, str], seen: Sequence[str], source: str) -> None:
    for field, column in column_map.items():
        if column not in seen:
            near = difflib.get_close_matches(column, seen, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {_listed(seen)}"
            raise DataError(f"data.columns maps {field} to {column!r}, which {source} does not have; {hint}")


def _detect(column_map: Mapping[str, str], seen: Sequence[str], source: str) -> str:
    fitting = [
        name for name, fields in REQUIRED_FIELDS.items() if all(column_map.get(f, f) in seen for f in fields)
    ]
    asked = [name for name in fitting if set(column_map) & set(REQUIRED_FIELDS[name])]
    if len(asked or fitting) == 1:
        return (asked or fitting)[0]
    if fitting:
        raise DataError(
            f"{source} fits {' and '.join(fitting)} (it has {_listed(seen)}); set data.format to one of them"
        )
    raise DataError(
        f"{source} has {_listed(seen)}, but question and solution, conversations, or messages are needed; "
        f"{_remedy(REQUIRED_FIELDS['columns'], seen, column_map)}"
    )


def _remedy(needed: Sequence[str], seen: Sequence[str], column_map: Mapping[str, str]) -> str:
    """Return what to type: columns named already, and guesses for the others, by usual or similar names."""
    columns = dict(column_map)
    for field in needed:
        if field not in columns and field not in seen:
            usual = [name for name in USUAL_NAMES.get(field, ()) if name in seen]
            near = difflib.get_close_matches(field, seen, n=1, cutoff=0.75)
            columns[field] = next(iter((*usual, *near)), "THEIR_COLUMN")
    pairs = ", ".join(f"{field}: {column}" for field, column in columns.items())
    return f"name the columns with 'data.columns={{{pairs}}}'"


def _listed(columns: Sequence[str]) -> str:
    shown = ", ".join(columns[:12]) or "none"
    more = f" and {len(columns) - 12} more" if len(columns) > 12 else ""
    return f"the columns {shown}{more}"


def _label(field: str, fmt: RowFormat) -> str:
    column = fmt.columns[field]
    return f"`{field}`" if column == field else f"`{field}` (column {column!r})"


def _required_text(row: Mapping[str, Any], field: str, fmt: RowFormat) -> str:
    if row.get(fmt.columns[field]) is None:
        raise DataError(f"{_label(field, fmt)} is missing")
    value = row[fmt.columns[field]]
    number = number_text(value) if field == "solution" else None
    text = written_text(value, _label(field, fmt)) if number is None else number
    if not text.strip():
        raise DataError(f"{_label(field, fmt)} is empty")
    return text


def _optional_text(row: Mapping[str, Any], field: str, fmt: RowFormat) -> str | None:
    """Return the text as it is, or None where the column, the value or any visible character is missing."""
    value = row.get(fmt.columns[field]) if field in fmt.columns else None
    if value is None:
        return None
    text = written_text(value, _label(field, fmt))
    return text if text.strip() else None


def _trace(row: Mapping[str, Any], fmt: RowFormat) -> str | None:
    column = fmt.columns.get("reasoning_trace")
    value = row.get(column) if column else None
    if isinstance(value, list) and len(value) == 1:
        row = {**row, str(column): value[0]}  # some datasets keep a row's one trace in a list
    trace = _optional_text(row, "reasoning_trace", fmt)
    return trace.strip() if trace is not None else None


def _answer(row: Mapping[str, Any], fmt: RowFormat) -> str | None:
    """Return the bare answer as text; it may be a number in the source, as in AIME exports."""
    number = number_text(row.get(fmt.columns["answer"])) if "answer" in fmt.columns else None
    if number is not None:
        return number
    text = _optional_text(row, "answer", fmt)
    return text.strip() if text is not None else None


def _same_system(from_column: str | None, from_turn: str | None) -> str | None:
    if from_column is not None and from_turn is not None and from_column != from_turn:
        raise DataError("the system column and the system turn differ")
    return from_turn if from_column is None else from_column
