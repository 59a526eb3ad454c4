"""A source -> traces: explanations of problems, one or several a row.

A row brings its explanations as a list (`explanations`, or `completions` as samplers call it), as a text
(`explanation`), or as the trace that any problem row may have (`reasoning_trace`, the thought of a chat).
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlt.config.schema import REQUIRED_FIELDS, TRACE_FIELDS, DataSettings
from rlt.data.files import SourceRow
from rlt.data.kept import KeptRows
from rlt.data.load import take_subset, warn_of_missing_words
from rlt.data.rows import choose_format, to_problem
from rlt.data.sources import SourceTable, read_rows
from rlt.data.values import text_of, written_text
from rlt.errors import DataError
from rlt.formats.parse import parse_assistant_turn
from rlt.formats.tags import TAG_STYLES, TagStyle
from rlt.records import Problem, Trace

logger = logging.getLogger(__name__)

_USUAL_COLUMNS = {
    "explanation": ("explanation",),
    "explanations": ("explanations", "completions"),
    "sample_index": ("sample_index",),
}


@dataclass(frozen=True)
class ExplainedRow:
    """A problem with the explanations of one row."""

    problem: Problem
    texts: tuple[str | None, ...]
    """None where a place of the list is empty."""
    is_list: bool
    sample_index: int | None = None
    """Of a row with one explanation, where the source has it."""


def load_traces(data: DataSettings, source: str, tags: TagStyle) -> KeptRows[ExplainedRow]:
    """Return the rows of `source` with their explanations; a row without any is a bad one."""
    table = read_rows(source, split=data.split, config_name=data.config_name, revision=data.revision)
    columns = _trace_columns(data.columns, table)
    others = {field: column for field, column in data.columns.items() if field not in TRACE_FIELDS}
    seen = [column for column in table.columns if column not in columns.values()]
    is_plain = all(others.get(field, field) in seen for field in REQUIRED_FIELDS["columns"])
    name = "columns" if data.format == "auto" and columns and is_plain else data.format
    fmt = choose_format(name, others, seen, table.source, data.tag_match) if table.columns else None

    def read_text(value: Any, label: str) -> str | None:
        return _text(value, label, tags, data.tag_match)

    def read(row: SourceRow) -> ExplainedRow:
        if row.fault is not None or fmt is None:
            raise DataError(row.fault or "an empty object")
        return _explained(to_problem(row.values, fmt, tags), row.values, columns, read_text)

    rows = table.kept().lay_out(read, data)
    warn_of_missing_words([row.problem for row in rows.values])
    return take_subset(rows, data.subset)


def number_traces(rows: Sequence[ExplainedRow], fallback_index: int | None = None) -> list[Trace]:
    """Return one trace per explanation in the order of the source, numbered within its problem.

    The place in its list is a trace's `sample_index`, counted on where several rows hold one problem.
    `fallback_index` (negative: from the end) marks the fallback of every list; single rows count as the
    list of their problem, ordered by `sample_index`.
    """
    of_problem: dict[str, int] = defaultdict(int)
    traces: list[Trace] = []
    singles: dict[str, list[int]] = defaultdict(list)  # places in `traces`
    num_lists = num_without = 0
    for row in rows:
        start = of_problem[row.problem.id]
        if not row.is_list:
            singles[row.problem.id].append(len(traces))
            start = start if row.sample_index is None else row.sample_index
        fallback = _place(fallback_index, len(row.texts)) if row.is_list else None
        num_lists += row.is_list
        num_without += row.is_list and fallback is None
        traces += [
            Trace(row.problem, start + i, text, is_fallback=i == fallback) for i, text in enumerate(row.texts)
        ]
        of_problem[row.problem.id] += len(row.texts)
    for places in singles.values():
        places.sort(key=lambda place: traces[place].sample_index)
        fallback = _place(fallback_index, len(places))
        num_without += fallback is None
        if fallback is not None:
            traces[places[fallback]] = replace(traces[places[fallback]], is_fallback=True)
    _require_unique(traces)
    if fallback_index is not None:
        _report_fallbacks(fallback_index, num_without, num_lists + len(singles))
    return traces


def join_traces(sources: Sequence[Sequence[Trace]]) -> list[Trace]:
    """Return the traces of all sources, each under a number of its own within its problem.

    Where a number of a later source is taken, all of its traces of that problem are numbered on from the
    highest so far, whatever the order of its rows.
    """
    joined: list[Trace] = []
    taken: dict[str, set[int]] = defaultdict(set)
    seen: set[tuple[str, str | None]] = set()
    num_repeated = 0
    for traces in sources:
        texts = {(trace.problem.id, trace.explanation) for trace in traces if trace.explanation is not None}
        num_repeated += len(texts & seen)
        seen |= texts
        clashes = {trace.problem.id for trace in traces if trace.sample_index in taken[trace.problem.id]}
        starts = {problem: max(taken[problem]) + 1 for problem in clashes}
        for trace in traces:
            index = starts.get(trace.problem.id, 0) + trace.sample_index
            joined.append(replace(trace, sample_index=index))
            taken[trace.problem.id].add(index)
    if num_repeated:
        logger.warning(
            "%d explanations are word for word in an earlier source, too: under the same seed and "
            "sample_index a teacher writes the same again",
            num_repeated,
        )
    return joined


def _trace_columns(column_map: Mapping[str, str], table: SourceTable) -> dict[str, str]:
    """Return the column of each trace field that the source has."""
    found = {}
    for field in TRACE_FIELDS:
        if (mapped := column_map.get(field)) and mapped not in table.columns:
            raise DataError(f"data.columns maps {field} to {mapped!r}, which {table.source} does not have")
        usual = (name for name in _USUAL_COLUMNS[field] if name in table.columns)
        if column := mapped or next(usual, None):
            found[field] = column
    if "explanation" in found and "explanations" in found:
        named = [field for field in ("explanation", "explanations") if field in column_map]
        if len(named) != 1:
            raise DataError(
                f"{table.source} has the columns {found['explanation']!r} and {found['explanations']!r}: say "
                f"which one counts with data.columns.explanations={found['explanations']} or "
                f"data.columns.explanation={found['explanation']}"
            )
        del found["explanations" if named == ["explanation"] else "explanation"]
    return found


def _explained(
    problem: Problem,
    values: Mapping[str, Any],
    columns: Mapping[str, str],
    read_text: Callable[[Any, str], str | None],
) -> ExplainedRow:
    index = values.get(columns["sample_index"]) if "sample_index" in columns else None
    if isinstance(index, str) and index.isdecimal():  # from a CSV file
        index = int(index)
    if index is not None and (not isinstance(index, int) or isinstance(index, bool) or index < 0):
        raise DataError(f"`sample_index` must be a number from 0 on, got {index!r:.40}")
    if column := columns.get("explanations"):
        listed = values.get(column)
        if not isinstance(listed, list) or not listed:
            raise DataError(f"`{column}` must be a list of texts, got {listed!r:.40}")
        texts = tuple(read_text(item, f"`{column}`, place {i}") for i, item in enumerate(listed))
        return ExplainedRow(problem, texts, is_list=True)
    if column := columns.get("explanation"):
        text = values.get(column)
        if "well_formed" in values:  # from collect_traces: whatever tags are in it, it is the explanation
            text = None if text is None else text_of(text, f"`{column}`")
        else:
            text = read_text(text, f"`{column}`")
        return ExplainedRow(problem, (text,), is_list=False, sample_index=index)
    if problem.reasoning_trace is None:
        raise DataError(
            "there is no explanation: a row needs `explanation`, a list `explanations` or `completions`, or "
            "a `reasoning_trace`; name another column with data.columns.explanation=COLUMN"
        )
    text = problem.reasoning_trace
    return ExplainedRow(replace(problem, reasoning_trace=None), (text,), is_list=False, sample_index=index)


def _text(value: Any, label: str, tags: TagStyle, match: str) -> str | None:
    """Return an explanation; of a whole assistant turn, or of a message that holds one, its thought."""
    if value is None:
        return None
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        value = value[0].get("content")
    text = written_text(value, label)
    if any(text.lstrip().startswith(style.thought.open) for style in (tags, *TAG_STYLES.values())):
        return parse_assistant_turn(text, tags, match)[0]
    return text


def _place(index: int | None, length: int) -> int | None:
    """Return the place in a list that an index means, negative ones from its end; None outside of it."""
    return None if index is None or not -length <= index < length else index % length


def _require_unique(traces: Sequence[Trace]) -> None:
    seen: set[tuple[str, int]] = set()
    for trace in traces:
        key = (trace.problem.id, trace.sample_index)
        if key in seen:
            raise DataError(
                f"two explanations of the question {trace.problem.question[:40]!r} have "
                f"sample_index={trace.sample_index}: number them apart, or rename the column"
            )
        seen.add(key)


def _report_fallbacks(index: int, num_without: int, num_lists: int) -> None:
    if num_without == num_lists:
        raise DataError(
            f"score.fallback_index={index} lies outside of every problem's explanations: take a place that "
            "they have"
        )
    if num_without:
        logger.warning("%d of %d lists have no place score.fallback_index=%d", num_without, num_lists, index)
