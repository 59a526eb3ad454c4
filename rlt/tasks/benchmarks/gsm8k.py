"""GSM8K: 1,319 grade-school problems whose answers are numbers after `####`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlt.tasks.benchmarks.task import BOXED, Order, Question, Source, Task, text_in


def read(row: Mapping[str, Any], order: Order) -> Question:  # noqa: ARG001 - no options
    """Return the question of a row; the reference is the number without commas."""
    question, answer = text_in(row, "question"), text_in(row, "answer")
    number = answer.rpartition("####")[2].strip().replace(",", "")
    return Question(question, number, (question, number))


TASK = Task(
    name="gsm8k",
    source=Source("openai/gsm8k", "test", "main"),
    prompt=BOXED,
    grading="math",
    read=read,
    num_problems=1319,
    num_samples=1,
)
