"""What is read in a row of a benchmark: the question as it is asked, and the right answer.

A record (`BenchmarkSettings`) says which columns hold what: one of catalog.py, or a user's own.
Nothing here opens a file; rlt/evaluation/items.py loads.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlt.config.schema import MOST_OPTIONS, BenchmarkSettings
from rlt.errors import DataError
from rlt.tasks.boxes import last_boxes
from rlt.tasks.countdown import parse_expression
from rlt.tasks.extraction import after_final_mark

LETTERS = "ABCDEFGHIJ"
_ON_ONE_LINE = 4
"""Options that are on one line, as SkyThought shows those of GPQA; more have a line each."""


@dataclass(frozen=True)
class Question:
    """One question of a benchmark."""

    text: str
    """What is asked, options included; the prompt is made around it."""
    reference: str
    """The right answer, as the grader reads it."""
    source: tuple[str, str]
    """The question and its right answer before anything was shuffled: they make the id."""
    order: tuple[int, ...] | None = None
    """Of shuffled options: which option of the source is in each place."""
    groups: Mapping[str, str] = field(default_factory=dict)
    """Column -> value, of those by which the accuracy is reported as well."""


Order = Callable[[str, int], tuple[int, ...]]
"""Gives the order of a question's options; takes the question and how many there are."""
SourceRow = Mapping[str, Any]
"""A row of somebody's dataset: any columns, with what the format of its file knows."""
Read = Callable[[SourceRow, Order], Question | None]
"""Returns the question of a row, None where the row is not of the benchmark; DataError for a bad one."""


def reader(record: BenchmarkSettings) -> Read:
    """Return what reads the rows of a benchmark."""

    def read(row: SourceRow, order: Order) -> Question | None:
        if any(text not in str(row[column]) for column, text in record.only.items() if column in row):
            return None
        groups = {name: _plain(row[name]) for name in record.groups if row.get(name) not in (None, "")}
        if record.options:
            return _with_options(record, row, order, groups)
        question, answer = text_in(row, record.question), _answer(record, row)
        return Question(question, answer, (question, _source(row, record.answer, answer)), groups=groups)

    return read


def _with_options(
    record: BenchmarkSettings, row: SourceRow, order: Order, groups: Mapping[str, str]
) -> Question:
    one_each = len(record.options) > 1
    num = len(record.options)
    if not one_each:
        listed = row.get(record.options[0])
        num = len(listed) if isinstance(listed, list | tuple) else 0
    # The order is drawn before anything can be wrong: a bad row must not move the rows after it.
    places = order(str(row.get(record.question)), num) if record.shuffle else tuple(range(num))
    question = text_in(row, record.question)
    if one_each:
        options = [text_in(row, column) for column in record.options]
    else:
        options = [_plain(option) for option in row.get(record.options[0]) or ()]
    if not 2 <= num <= MOST_OPTIONS[record.grader]:
        most = MOST_OPTIONS[record.grader]
        raise DataError(f"`{record.options[0]}` must list 2 to {most} options, got {num}")
    right = _right_option(record, row, num)
    shown = options_text(question, [options[i] for i in places])
    letter = LETTERS[places.index(right)]
    source = (question, options[right])
    return Question(shown, letter, source, places if record.shuffle else None, groups)


def _right_option(record: BenchmarkSettings, row: SourceRow, num: int) -> int:
    """Return the place of the right option, in the order of the source."""
    if record.answer in record.options:
        return record.options.index(record.answer)
    given = text_in(row, record.answer).strip()
    place = LETTERS.find(given.upper()) if len(given) == 1 and given.isalpha() else -1
    if place < 0 and given.isdigit():
        place = int(given)
    if not 0 <= place < num:
        raise DataError(f"`{record.answer}` must be the letter of an option or its place from 0 on")
    return place


def _answer(record: BenchmarkSettings, row: SourceRow) -> str:
    """Return the right answer as the grader reads it."""
    value = row.get(record.answer)
    if isinstance(value, list | tuple):
        texts = [_plain(part).strip().strip("$") for part in value]
        answer = ", ".join(text for text in texts if text)
        if not answer:
            raise DataError(f"`{record.answer}` is missing or empty")
    else:
        answer = text_in(row, *_answer_columns(record)).strip()
    if (number := after_final_mark(answer)) is not None:
        answer = number.replace(",", "")
    elif "\\boxed" in answer:
        answer = last_boxes(answer) or answer
    if record.most_digits:
        if not re.fullmatch(rf"\d{{1,{record.most_digits}}}", answer):
            raise DataError(
                f"`{record.answer}` must be a whole number of at most {record.most_digits} digits"
            )
        answer = str(int(answer))
    if record.grader == "countdown":
        expression = parse_expression(answer)
        if expression is None or expression.value is None:
            raise DataError(
                f"`{record.answer}` must be an expression such as (1 + 2) / 3, which gives numbers and target"
            )
    return answer


def _source(row: SourceRow, column: str, answer: str) -> str:
    """Return what makes the id: the answer as the source writes it, where that is short."""
    value = row.get(column)
    is_marked = isinstance(value, str) and ("####" in value or "\\boxed" in value)
    return answer if is_marked or not isinstance(value, str | int) else _plain(value).strip()


def _answer_columns(record: BenchmarkSettings) -> tuple[str, ...]:
    """Return the columns of an answer, of which the first counts; Countdown's rows may be for training."""
    return (record.answer, "solution") if record.grader == "countdown" else (record.answer,)


def text_in(row: SourceRow, *columns: str) -> str:
    """Return the text of the first column that has one, or its number as text.

    Raises DataError where all are empty; the message holds nothing of the row.
    """
    for column in columns:
        value = row.get(column)
        text = _plain(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
        if text.strip():
            return text
    raise DataError(f"`{'` and `'.join(columns)}` {'are' if columns[1:] else 'is'} missing or empty")


def _plain(value: Any) -> str:
    """Return a value as text; a whole number that a file stores as a float has no `.0`."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def order_by_stream(seed: int) -> Order:
    """Return orders that one random stream deals out, row after row, as SkyThought shuffles."""
    rng = random.Random(seed)

    def order(_: str, num: int) -> tuple[int, ...]:
        places = list(range(num))
        rng.shuffle(places)
        return tuple(places)

    return order


def order_by_row(seed: int) -> Order:
    """Return orders that depend on seed and question alone: a row that is skipped moves no other."""

    def order(question: str, num: int) -> tuple[int, ...]:
        places = list(range(num))
        random.Random(f"{seed} {question}").shuffle(places)
        return tuple(places)

    return order


ORDERS: dict[str, Callable[[int], Order]] = {"stream": order_by_stream, "row": order_by_row}
"""`evaluate.option_order` -> the orders of a seed."""


def options_text(question: str, options: Sequence[str]) -> str:
    """Return a question with its options below it, lettered from A on."""
    lettered = [f"{letter}) {text}" for letter, text in zip(LETTERS, options, strict=False)]
    return f"{question}\n{(', ' if len(options) <= _ON_ONE_LINE else chr(10)).join(lettered)}"
