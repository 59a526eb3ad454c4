"""Correctness: the student reads the explanation and answers by itself, k times.

    value = right answers / k

The student reads question and explanation up to the opening solution tag, as it does for the likelihood.
Its answer is what follows, up to the closing solution tag or the end of its turn; an answer that was cut by
its length is wrong. What is right is the problem's `answer`, or else its solution.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlt.formats.encode import TokenBytes
from rlt.records import Completion, Explanation, Problem
from rlt.rewards.components.component import Explained

Sample = Callable[[list[list[int]], list[int]], list[list[Completion]]]
"""Takes prompts and one seed for each; returns k completions for each prompt."""


@dataclass(frozen=True)
class AnswerReader:
    """Reads the student's answer in a completion that starts inside of the solution block.

    Without a `close_tag` the answer is bare, and ends with the turn.
    """

    token_bytes: TokenBytes
    close_tag: str | None
    stop_token_ids: frozenset[int]

    def __call__(self, completion: Completion) -> str | None:
        """Return the answer without outer white space, or None where it was cut by its length."""
        pieces = [self.token_bytes(i) for i in completion.token_ids if i not in self.stop_token_ids]
        text, tag = b"".join(pieces).decode(errors="replace"), ""
        if self.close_tag:
            text, tag, _ = text.partition(self.close_tag)
        return text.strip() if tag or completion.finish_reason == "stop" else None


class CorrectAnswers:
    """The share of a student's answers that are right.

    `prompt` gives the ids after which the student answers, `sample` draws answers, `grade` takes an answer
    and a reference. A sample depends on run seed, problem and explanation only: not on rows beside it.
    """

    name = "answers"

    def __init__(
        self,
        prompt: Callable[[Problem, Explanation], list[int]],
        sample: Sample,
        read: AnswerReader,
        grade: Callable[[str, str], bool],
        *,
        seed: int,
    ) -> None:
        self._prompt = prompt
        self._sample = sample
        self._read = read
        self._grade = grade
        self._seed = seed

    def values(self, rows: Sequence[Explained]) -> list[float]:
        """Return the share of right answers of each row, from 0 to 1."""
        prompts = [self._prompt(row.problem, row.explanation) for row in rows]
        groups = self._sample(prompts, [self._row_seed(row) for row in rows])
        return [self._share(row.problem, group) for row, group in zip(rows, groups, strict=True)]

    def _share(self, problem: Problem, completions: Sequence[Completion]) -> float:
        answers = [self._read(completion) for completion in completions]
        return sum(a is not None and self._grade(a, problem.reference) for a in answers) / len(answers)

    def _row_seed(self, row: Explained) -> int:
        what = f"{self._seed} {row.problem.id} {row.explanation.token_ids}"
        return int.from_bytes(hashlib.sha256(what.encode()).digest()[:8], "big") >> 2
