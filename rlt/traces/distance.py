"""How far the student is from a trace: what score_traces stores of it, and how select_traces reads it. Pure.

For the T tokens of an explanation (chunks of text, for a student with another tokenizer):

    log_ratio   = 1/T sum_j log p_T(t_j) - log p_S(t_j)    where a teacher has scored it, too
    student_nll = 1/T sum_j -log p_S(t_j)                  always

in nats a token. DASD (arXiv 2601.09088) trains on what the teacher finds likely and the student does not: a
large log_ratio. The reward of the method goes the other way: it asks for explanations near to the student.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rlt.records import Trace

if TYPE_CHECKING:  # a selection loads no torch
    from rlt.rewards.formula import RewardInputs

MEASURES = {
    "log_ratio": "log p of the teacher less log p of the student",
    "student_nll": "-log p of the student",
}
"""The columns of `breakdown`, the better one first, and what they are in words."""


def distances(item: RewardInputs) -> dict[str, float]:
    """Return the measures of one explanation as a student reads it; nothing of one without tokens."""
    student_T, teacher_T = item.student_logprobs_T.double(), item.teacher_logprobs_T
    if not len(student_T):
        return {}
    found = {"student_nll": (-student_T).mean().item()}
    if teacher_T is not None:
        found["log_ratio"] = (teacher_T.double() - student_T).mean().item()
    return {name: value for name, value in found.items() if isfinite(value)}


def measure_of(traces: Sequence[Trace]) -> str | None:
    """Return the measure that all traces with any have, the better one where they have both; None if none.

    Values of two measures must not be compared.
    """
    found = [known for trace in traces if (known := _stored(trace))]
    return next((name for name in MEASURES if found and all(name in known for known in found)), None)


def distance_of(trace: Trace, measure: str | None) -> float | None:
    """Return how far the student is from a trace, None where the source does not say."""
    return None if measure is None else _stored(trace).get(measure)


def summarize_distances(
    traces: Sequence[Trace], is_selected: Sequence[bool], measure: str | None
) -> dict[str, Any] | None:
    """Return the measure and its count, mean, lowest and highest value of what was read and selected."""
    known = [
        (value, chosen)
        for trace, chosen in zip(traces, is_selected, strict=True)
        if (value := distance_of(trace, measure)) is not None
    ]
    if not known:
        return None
    of = {"read": [value for value, _ in known], "selected": [value for value, chosen in known if chosen]}
    return {"measure": measure, **{name: _spread(values) for name, values in of.items()}}


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    if not values:
        return {"traces": 0, "mean": None, "lowest": None, "highest": None}
    return {"traces": len(values), "mean": fmean(values), "lowest": min(values), "highest": max(values)}


def _stored(trace: Trace) -> dict[str, float]:
    """Return the measures in a trace's `breakdown`, which is text in a CSV file."""
    stored: Any = trace.problem.extra.get("breakdown")
    if isinstance(stored, str):
        try:
            stored = json.loads(stored)
        except ValueError:
            return {}
    if not isinstance(stored, Mapping):
        return {}
    return {
        name: float(value)
        for name in MEASURES
        if isinstance(value := stored.get(name), int | float) and isfinite(value)
    }
