"""Rows of scored traces: what the source said, the score, and the place among a problem's explanations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rlt.formats.layout import StudentLayout
from rlt.records import Trace
from rlt.traces.rank import Place

_SOURCE_FIELDS = ("finish_reason", "teacher", "sampling")
"""Of whoever collected the traces: null where the source does not know."""
_NESTED = ("breakdown", "messages")
"""Columns of ours that are stored as they are."""


def trace_row(
    trace: Trace, num_tokens: int, scored: Mapping[str, Any], place: Place, layout: StudentLayout
) -> dict[str, Any]:
    """Return the row of a trace. Columns of the source stay, except under a name that is ours."""
    problem, extra = trace.problem, trace.problem.extra
    return {
        **dict.fromkeys(("problem_id", "sample_index", "question", "solution", "explanation")),
        **extra,
        "problem_id": problem.id,
        "sample_index": trace.sample_index,
        "question": problem.question,
        "solution": problem.solution,
        "explanation": trace.explanation,
        "num_tokens": num_tokens,
        **{name: extra.get(name) for name in _SOURCE_FIELDS},
        **{
            name: value
            for name in ("reasoning_trace", "answer", "system")
            if (value := getattr(problem, name)) is not None
        },
        "score": scored["score"],
        "breakdown": scored["breakdown"],
        "why": scored["why"],
        "rank": place.rank,
        "selected": place.selected,
        "is_fallback": trace.is_fallback,
        "messages": None if trace.explanation is None else layout.messages(problem, trace.explanation),
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


def _is_plain(kinds: set[type]) -> bool:
    return kinds <= {int, float} or (len(kinds) == 1 and kinds <= {str, bool})
