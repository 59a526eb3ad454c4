"""GPQA-Diamond: 198 questions with four options. Its texts are not to be published: nothing is stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlt.config.schema import SLOT
from rlt.tasks.benchmarks.task import Order, Question, Source, Task, options_text, text_in

COLUMNS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


def read(row: Mapping[str, Any], order: Order) -> Question:
    """Return the question of a row with its options in a new order; the reference is a letter."""
    question = str(row.get("Question"))
    places = order(question)  # before anything can be wrong: a bad row must not move the rows after it
    question = text_in(row, "Question")
    options = [text_in(row, column) for column in COLUMNS]
    shown = options_text(question, [options[i] for i in places])
    return Question(shown, "ABCD"[places.index(0)], (question, options[0]), places)


TASK = Task(
    name="gpqa_diamond",
    source=Source("Idavidrein/gpqa", "train", "gpqa_diamond"),
    prompt=r"Put only the letter of the right option, A, B, C or D, inside \boxed{}. " + SLOT,
    grading="choice",
    read=read,
    num_problems=198,
    num_samples=8,
    is_private=True,
)
