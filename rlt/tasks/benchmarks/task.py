"""What makes a benchmark: where its rows come from, what is asked, what is right.

A task reads one row at a time and opens no file; rlt/evaluation/items.py loads.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlt.config.schema import SLOT
from rlt.errors import DataError

NUM_OPTIONS = 4
BOXED = r"Put your final answer inside \boxed{}. " + SLOT
"""Asks as SkyThought does, in our own words: what is wanted first, then the question."""


@dataclass(frozen=True)
class Source:
    """A dataset on the Hub. Which commit was read stands in the manifest."""

    name: str
    split: str
    config_name: str | None = None


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
    """With options: which of the source's stands in each place; 0 is the right one."""


Order = Callable[[str], tuple[int, ...]]
"""Gives the order of a question's options; takes the question."""
Read = Callable[[Mapping[str, Any], Order], Question | None]
"""Returns the question of a row, None where the row is not of the benchmark; DataError for a bad one."""


@dataclass(frozen=True)
class Task:
    """A benchmark."""

    name: str
    source: Source | None
    """None where the problems are made here: their file has to be named."""
    prompt: str
    """What the user's turn says, with SLOT for the question."""
    grading: str
    """The kind of answer: math, choice or countdown."""
    read: Read
    num_problems: int | None
    """How many there are, to notice a file that lacks some; None where it is not fixed."""
    num_samples: int | None
    """Samples of each problem in the `robust` protocol; None leaves it to the number of problems."""
    is_private: bool = False
    """Its texts must not be passed on: nothing that we write holds a question."""


def text_in(row: Mapping[str, Any], *columns: str) -> str:
    """Return the text, or the number as text, of the first of these columns that is there.

    Raises DataError where it is empty; the message holds nothing of the row.
    """
    for column in columns:
        value = row.get(column)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if isinstance(value, str) and value.strip():
            return value
    raise DataError(f"`{' or '.join(columns)}` is missing or empty")


def order_by_stream(seed: int) -> Order:
    """Return orders that one random stream deals out, row after row, as SkyThought shuffles."""
    rng = random.Random(seed)

    def order(_: str) -> tuple[int, ...]:
        places = list(range(NUM_OPTIONS))
        rng.shuffle(places)
        return tuple(places)

    return order


def order_by_row(seed: int) -> Order:
    """Return orders that depend on seed and question alone: a row that is left out moves no other."""

    def order(question: str) -> tuple[int, ...]:
        places = list(range(NUM_OPTIONS))
        random.Random(f"{seed} {question}").shuffle(places)
        return tuple(places)

    return order


ORDERS: dict[str, Callable[[int], Order]] = {"stream": order_by_stream, "row": order_by_row}
"""`evaluate.option_order` -> the orders of a seed."""


def options_text(question: str, options: Sequence[str]) -> str:
    """Return a question with its options, lettered from A on, on one line below it."""
    lettered = ", ".join(f"{letter}) {text}" for letter, text in zip("ABCD", options, strict=True))
    return f"{question}\n{lettered}"
