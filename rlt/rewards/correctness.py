"""The reward of student RL: is the student's own answer right?

    reward = weight          where it is right
             format_weight   where it is wrong, but thought and answer have the student's form
             0               otherwise

With 1 and 0.1 that is TinyZero's reward for Countdown. What is right is the problem's reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from rlt.formats.reply import Reply
from rlt.records import Completion, Problem, Score
from rlt.tasks.graders import Grader

Everywhere = Callable[[Callable[[], Any]], Any]
"""Runs a call, and lets its failure on one process of a run reach all of them."""


@dataclass(frozen=True)
class CorrectnessWeights:
    """What a right answer is worth, and the form alone."""

    right: float
    form: float


class CorrectnessReward:
    """Pays replies for the answers in them."""

    def __init__(self, grader: Grader, weights: CorrectnessWeights) -> None:
        self._grader = grader
        self._weights = weights

    def has_form(self, reply: Reply) -> bool:
        """Whether a reply is a thought with an answer that can be read as one."""
        return reply.answer is not None and self._grader.is_answer(reply.answer)

    def in_place(self) -> AbstractContextManager[None]:
        """Do nothing: a grader is no model."""
        return nullcontext()

    def measure(
        self,
        problems: Sequence[Problem],
        completions: Sequence[Completion],  # noqa: ARG002 - their replies are graded
        replies: Sequence[Reply],
        *,
        runs: Sequence[int] | None = None,  # noqa: ARG002 - a grader knows one reply at a time
        everywhere: Everywhere,
    ) -> list[Score]:
        """Return the verdict on each reply; a grader that fails on one process ends all of them."""
        return everywhere(partial(self.score, problems, replies))

    def judge(self, problems: Sequence[Problem], measured: Sequence[Score]) -> list[Score]:  # noqa: ARG002
        """Return the reward of each reply, which is its verdict's."""
        return list(measured)

    def score(self, problems: Sequence[Problem], replies: Sequence[Reply]) -> list[Score]:
        """Return the reward of each reply; its parts `correct` and `well_formed` are 1 or 0."""
        return [self._score(p.reference, reply) for p, reply in zip(problems, replies, strict=True)]

    def _score(self, reference: str, reply: Reply) -> Score:
        has_form = self.has_form(reply)
        is_right = has_form and reply.answer is not None and self._grader(reply.answer, reference)
        reward = self._weights.right if is_right else self._weights.form if has_form else 0.0
        parts = {"correct": is_right, "well_formed": has_form, "explanation_tokens": reply.thought_tokens}
        return Score(reward, {name: float(value) for name, value in parts.items()})
