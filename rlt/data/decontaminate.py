"""Which rows of training data share text with the questions of benchmarks.

The method is the n-gram overlap of GPT-3 (Brown et al. 2020, arXiv 2005.14165, appendix C), which most tools
use since: lower case, no punctuation, and a row counts as contaminated if it shares a sequence of 13 words
with a question. A question of 8 to 12 words has to be in the row as a whole; a shorter one has to be the
row's question. Two additions keep mathematics from drowning in false alarms: sequences of mostly numbers do
not count, nor do those that are in more than two questions of their benchmark, which are its usual wording
(GPT-3 ignores sequences that are frequent in its training data). A row whose question equals one is always
found.

Questions and solutions of rows are searched, their traces are not. Paraphrases and translations are not
found by any such method.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from rlt.data.rows import USUAL_NAMES
from rlt.data.sources import read_rows
from rlt.data.text_match import comparable, words_of
from rlt.data.turns import ROLES
from rlt.errors import DataError

NUM_WORDS = 13
MIN_WORDS = 8
"""GPT-3 takes 8 to 13 words, depending on how long a benchmark's questions are."""
MAX_QUESTIONS = 2
"""A sequence in more questions of one benchmark does not identify one of them."""
_MIN_LETTERS = 0.5
"""Share of a sequence's words that must begin with a letter: numbers alone are no text."""
_SHOWN = 100
"""Characters of shared words in messages."""
_QUESTION_COLUMNS = ("question", *USUAL_NAMES["question"])
_TURN_COLUMNS = ("messages", "conversations")

_POWERS = np.array([pow(0x9E3779B97F4A7C15, power, 2**64) for power in range(NUM_WORDS)], dtype=np.uint64)


@dataclass(frozen=True)
class Hit:
    """One question that a row shares text with."""

    benchmark: str
    question: int
    """Its place in the benchmark, counted from 1."""
    words: str
    """What is shared; empty where a benchmark's texts must not be passed on."""

    def __str__(self) -> str:
        """Return the question, with the shared words where they may be shown."""
        words = f": {self.words[:_SHOWN]!r}" if self.words else ""
        return f"{self.benchmark}, question {self.question}{words}"


class QuestionIndex:
    """The questions of some benchmarks, to look rows up in.

    A sequence of words is looked up by a hash over numbers that represent the words, all sequences of a text
    at once; what is found so is compared word by word.
    """

    def __init__(self, benchmarks: Mapping[str, Sequence[str]], private: Collection[str] = ()) -> None:
        self._private = private
        self._questions: list[_Question] = []
        self._whole: dict[str, list[_Question]] = defaultdict(list)
        self._numbers: dict[str, int] = {}
        self._holders: dict[int, dict[int, tuple[int, ...]]] = defaultdict(dict)
        """Number of words -> hash of a sequence -> places of questions in `_questions`."""
        random = Random(0)
        for name, texts in benchmarks.items():
            of_benchmark = {}
            for place, text in enumerate(texts, start=1):
                of_benchmark.setdefault(comparable(text), _Question(name, place, text, words_of(text)))
            for word in sorted(
                {word for q in of_benchmark.values() for word in q.words} - self._numbers.keys()
            ):
                self._numbers[word] = random.getrandbits(64)
            for whole, question in of_benchmark.items():
                self._whole[whole].append(question)
            self._add_sequences(list(of_benchmark.values()))

    def hits(self, question: str, solution: str) -> list[Hit]:
        """Return the questions that a row shares text with, no more than one of each benchmark."""
        found = {q.benchmark: self._hit(q, q.text) for q in self._whole.get(comparable(question), ())}
        for text in (question, solution):
            words = words_of(text)
            values = self._values(words)
            for length, holders in self._holders.items():
                hashes = _hashes(values, length)
                if holders.keys().isdisjoint(hashes):
                    continue
                for start, number in enumerate(hashes):
                    for place in holders.get(number, ()):
                        shared, holder = words[start : start + length], self._questions[place]
                        if holder.benchmark not in found and holder.holds(shared):
                            found[holder.benchmark] = self._hit(holder, " ".join(shared))
        return list(found.values())

    def _hit(self, question: _Question, words: str) -> Hit:
        hidden = question.benchmark in self._private
        return Hit(question.benchmark, question.place, "" if hidden else words)

    def _add_sequences(self, questions: Sequence[_Question]) -> None:
        """Take up the sequences of one benchmark's questions, but those that many of them hold."""
        holders: dict[int, dict[int, tuple[int, ...]]] = defaultdict(dict)
        for question in questions:
            self._questions.append(question)
            length = min(NUM_WORDS, len(question.words))
            if length >= MIN_WORDS:
                is_text = _windows(np.array([word[0].isalpha() for word in question.words]), length)
                enough = is_text.mean(axis=1) >= _MIN_LETTERS
                hashes = _hashes(self._values(question.words), length)
                place, known = len(self._questions) - 1, holders[length]
                for number in {number for number, take in zip(hashes, enough, strict=True) if take}:
                    known[number] = (*known.get(number, ()), place)
        for length, known in holders.items():
            for number, places in known.items():
                if len(places) <= MAX_QUESTIONS:
                    self._holders[length][number] = (*self._holders[length].get(number, ()), *places)

    def _values(self, words: Sequence[str]) -> NDArray[np.uint64]:
        """Return the number of each word, 0 where no benchmark holds it."""
        return np.array([self._numbers.get(word, 0) for word in words], dtype=np.uint64)


@dataclass(frozen=True)
class _Question:
    benchmark: str
    place: int
    text: str
    words: Sequence[str]

    def holds(self, sequence: Sequence[str]) -> bool:
        """Whether some words are in the question, in this order and side by side."""
        return f" {' '.join(sequence)} " in f" {' '.join(self.words)} "


def _windows(values: NDArray[Any], length: int) -> NDArray[Any]:
    """Return all runs of `length` values, shape (number of runs, length)."""
    return sliding_window_view(values, length) if len(values) >= length else values[:0].reshape(0, length)


def _hashes(values: NDArray[np.uint64], length: int) -> list[int]:
    """Return a hash of each run of `length` values: a polynomial modulo 2**64, where arrays wrap around."""
    return (_windows(values, length) * _POWERS[:length]).sum(axis=1, dtype=np.uint64).tolist()


def first_of_each(texts: Sequence[str]) -> dict[int, int]:
    """Return, for each text that repeats an earlier one, its place and that of the first; from 0 on."""
    first: dict[str, int] = {}
    repeated = {}
    for place, text in enumerate(texts):
        earlier = first.setdefault(comparable(text), place)
        if earlier != place:
            repeated[place] = earlier
    return repeated


def questions_of(path: str) -> list[str]:
    """Return the questions of a file or folder, whichever usual column they are in."""
    table = read_rows(path)
    column = next((name for name in _QUESTION_COLUMNS if name in table.columns), None)
    turns = next((name for name in _TURN_COLUMNS if name in table.columns), None)
    if column is None and turns is None:
        raise DataError(
            f"{path} has the columns {', '.join(table.columns[:12]) or 'none'}, but data.decontaminate needs "
            f"one of {', '.join((*_QUESTION_COLUMNS, *_TURN_COLUMNS))}"
        )
    for row in table.rows:
        if row.fault is not None:
            raise DataError(f"{path}, {table.unit} {row.number}: {row.fault}")
    values = [row.values.get(column) if column else _asked(row.values.get(turns or "")) for row in table.rows]
    questions = [value for value in values if isinstance(value, str) and value.strip()]
    if not questions:
        raise DataError(f"{Path(path)} holds no question to look for (data.decontaminate)")
    return questions


def _asked(turns: Any) -> Any:
    """Return what the user says first in a conversation."""
    for turn in turns if isinstance(turns, list) else ():
        if isinstance(turn, dict) and ROLES.get(str(turn.get("role") or turn.get("from"))) == "user":
            return turn.get("content") or turn.get("value")
    return None
