"""What the source of a trace says about it, in the columns of the traces contract. Pure.

A source may lack any of them; in a CSV file all of them are text.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

from rlt.errors import DataError
from rlt.records import Problem, Trace

SCORE_COLUMNS = ("score", "reward")
"""Of score_traces, and of the samples of teacher_rl."""
_FLAGS = {"true": True, "false": False, "": None}


def score_of(trace: Trace) -> float | None:
    """Return the score that the source gives a trace."""
    for name in SCORE_COLUMNS:
        value: Any = trace.problem.extra.get(name)
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                continue
        if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
            return float(value)
    return None


def is_well_formed(trace: Trace) -> bool:
    """Whether a trace is a whole explanation: as the source says, else with a text that was not cut off."""
    if trace.explanation is None or not trace.explanation.strip():
        return False
    stored = flag(trace.problem, "well_formed")
    return trace.problem.extra.get("finish_reason") != "length" if stored is None else stored


def is_chosen(trace: Trace) -> bool:
    """Whether students are trained on a trace: unless a selection left it out."""
    return flag(trace.problem, "selected") is not False


def is_fallback(trace: Trace) -> bool:
    """Whether a trace was reserved for a problem without another score, here or when it was scored."""
    return trace.is_fallback or flag(trace.problem, "is_fallback") is True


def flag(problem: Problem, name: str) -> bool | None:
    """Return a column of true and false, None where it is empty or absent; DataError for another value."""
    value = problem.extra.get(name)
    if isinstance(value, str):
        value = _FLAGS.get(value.strip().lower(), value)
    if value is None or isinstance(value, bool):
        return value
    raise DataError(f"`{name}` must be true, false or null, got {value!r:.40}")
