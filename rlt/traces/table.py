"""Rows of traces as files hold them: columns of the source, teacher, score, place, choice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rlt.formats.layout import StudentLayout, StudentMessages, student_messages
from rlt.formats.tags import TagStyle
from rlt.records import Problem, Trace
from rlt.traces.rank import Place

COLUMNS = (
    *("problem_id", "sample_index", "question", "solution", "explanation"),
    *("num_tokens", "finish_reason", "teacher", "sampling", "well_formed"),
    *("score", "breakdown", "selected", "messages"),
)
"""Every trace has these; those of a source come after them."""
_SOURCE_FIELDS = ("finish_reason", "teacher", "sampling")
"""About the collection of the traces: null where the source does not know."""
_NESTED = ("breakdown", "messages")
"""Columns of this project that are stored as they are."""


def trace_row(
    trace: Trace, num_tokens: int, scored: Mapping[str, Any], place: Place, layout: StudentLayout
) -> dict[str, Any]:
    """Return the row of a scored trace. Columns of the source stay, except under a name that is ours."""
    extra = trace.problem.extra
    return {
        **dict.fromkeys(COLUMNS[:5]),
        **_of_source(trace),
        "num_tokens": num_tokens,
        **{name: extra.get(name) for name in _SOURCE_FIELDS},
        "score": scored["score"],
        "breakdown": scored["breakdown"],
        "why": scored["why"],
        "rank": place.rank,
        "selected": place.selected,
        "is_fallback": trace.is_fallback,
        "messages": None if trace.explanation is None else layout.messages(trace.problem, trace.explanation),
    }


def chosen_row(trace: Trace, selected: bool, tags: TagStyle, system_prompt: str | None) -> dict[str, Any]:
    """Return the row of a trace as its source has it, with the choice.

    Where the source has no `messages` they are made; `system_prompt` as in `StudentLayout`.
    """
    row = {**dict.fromkeys(COLUMNS), **_of_source(trace), "selected": selected}
    if row["messages"] is None and trace.explanation is not None:
        row["messages"] = student_messages(trace.problem, trace.explanation, tags, system_prompt)
    return row


def collected_row(
    problem: Problem, made: Mapping[str, Any], origin: Mapping[str, Any], layout: StudentMessages
) -> dict[str, Any]:
    """Return the row of a collected sample: `made` is its line of the journal, `origin` teacher and sampling.

    Nothing has scored it or chosen among its like yet.
    """
    return {
        **dict.fromkeys(COLUMNS),
        **_of_source(Trace(problem, made["sample_index"], made["explanation"])),
        "num_tokens": made["num_tokens"],
        "finish_reason": made["finish_reason"],
        **origin,
        "well_formed": made["why"] is None,
        "why": made["why"],
        **dict.fromkeys(("score", "breakdown", "selected")),
        "messages": layout.messages(problem, made["explanation"]),
    }


def as_columns(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows so that every column has one type: what the source mixes or nests becomes JSON text."""
    kinds: dict[str, set[type]] = {}
    for row in rows:
        for key, value in row.items():
            if value is not None:
                kinds.setdefault(key, set()).add(type(value))
    nested = {key for key, found in kinds.items() if key not in _NESTED and not _is_plain(found)}
    return [
        {
            key: json.dumps(value, ensure_ascii=False, default=str)
            if key in nested and value is not None
            else value
            for key, value in row.items()
        }
        for row in rows
    ]


def _of_source(trace: Trace) -> dict[str, Any]:
    problem = trace.problem
    optional = ("reasoning_trace", "answer", "system")
    return {
        **problem.extra,
        "problem_id": problem.id,
        "sample_index": trace.sample_index,
        "question": problem.question,
        "solution": problem.solution,
        "explanation": trace.explanation,
        **{name: value for name in optional if (value := getattr(problem, name)) is not None},
    }


def _is_plain(kinds: set[type]) -> bool:
    return kinds <= {int, float} or (len(kinds) == 1 and kinds <= {str, bool})
