"""MATH-500: 500 problems of the MATH test set; the right answers are LaTeX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlt.tasks.benchmarks.task import BOXED, Order, Question, Source, Task, text_in


def read(row: Mapping[str, Any], order: Order) -> Question:  # noqa: ARG001 - no options
    """Return the question of a row; the reference is its `answer`, a LaTeX expression without dollars."""
    question, answer = text_in(row, "problem"), text_in(row, "answer").strip()
    return Question(question, answer, (question, answer))


TASK = Task(
    name="math500",
    source=Source("qq8933/MATH500", "test"),
    prompt=BOXED,
    grading="math",
    read=read,
    num_problems=500,
    num_samples=2,
)
