"""Countdown: make an expression of given numbers that has a given value. `make_countdown` writes problems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlt.config.schema import SLOT
from rlt.errors import DataError
from rlt.tasks.benchmarks.task import Order, Question, Task, text_in
from rlt.tasks.countdown import parse_expression


def read(row: Mapping[str, Any], order: Order) -> Question:  # noqa: ARG001 - no options
    """Return the question of a row, which says by itself how to answer; the reference is an expression."""
    question, answer = text_in(row, "question"), text_in(row, "answer", "solution").strip()
    expression = parse_expression(answer)
    if expression is None or expression.value is None:
        raise DataError("`answer` must be an expression such as (1 + 2) / 3, which gives numbers and target")
    return Question(question, answer, (question, answer))


TASK = Task(
    name="countdown",
    source=None,
    prompt=SLOT,
    grading="countdown",
    read=read,
    num_problems=None,
    num_samples=None,
)
