"""AIME 2024: 30 problems whose answers are whole numbers from 000 to 999."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rlt.errors import DataError
from rlt.tasks.benchmarks.task import BOXED, Order, Question, Source, Task, text_in


def read(row: Mapping[str, Any], order: Order) -> Question | None:  # noqa: ARG001 - no options
    """Return the question of a row of 2024; the dataset holds other years, told by `url`."""
    if "url" in row and "2024" not in str(row["url"]):
        return None
    question, answer = text_in(row, "problem"), text_in(row, "answer").strip()
    if not re.fullmatch(r"\d{1,3}", answer):
        raise DataError("`answer` must be a whole number from 000 to 999")
    return Question(question, str(int(answer)), (question, answer))


TASK = Task(
    name="aime24",
    source=Source("AI-MO/aimo-validation-aime", "train"),
    prompt=BOXED,
    grading="math",
    read=read,
    num_problems=30,
    num_samples=32,
)
