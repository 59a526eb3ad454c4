"""A JSONL of answers: one row each with `answer` and `text`, or one per problem with a list of `texts`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rlt.regrade.sample import ANSWERS, QUESTIONS, Sample, first_of, groups_of, plain_reference, texts_of

TEXTS = ("text", "texts", "completion", "completions", "response", "responses", "output", "outputs")


def is_texts(row: Mapping[str, Any]) -> bool:
    """Whether a row holds an answer with its reference."""
    return any(name in row for name in TEXTS) and any(name in row for name in ANSWERS)


def read_texts(row: Mapping[str, Any], task: str, where: str) -> Iterator[Sample]:
    """Yield the samples of a row.

    It may hold `task`, `id` and `question`, and of a single text `num_tokens`, `finish_reason` and `correct`.
    """
    reference = plain_reference(first_of(row, ANSWERS, where))
    question = next((str(row[name]) for name in QUESTIONS if row.get(name)), None)
    outputs = texts_of(first_of(row, TEXTS, where), f"{where}, {'/'.join(TEXTS[:2])}")
    alone, name = len(outputs) == 1, str(row.get("task") or task)
    for text in outputs:
        yield Sample(
            name,
            question,
            reference,
            text,
            str(row.get("problem_id") or row.get("id") or question or where),
            row.get("num_tokens") if alone else None,
            row.get("finish_reason") if alone else None,
            row.get("correct") if alone else None,
            groups=groups_of(row, name),
        )
