"""The likelihood reward with further components: reward + sum of weight x value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rlt.formats.encode import TokenBytes
from rlt.records import Explanation, Problem, Score
from rlt.rewards.components.component import Component, Explained
from rlt.rewards.likelihood import Measured, Reward


@dataclass(frozen=True)
class WeightedComponent:
    """A component with what one unit of its value is worth."""

    component: Component
    weight: float


class CompositeReward:
    """A `Reward` that adds components to another.

    `teacher_bytes` spells the explanations' token ids. `everywhere` runs a call and lets its failure on one
    process of a run reach all of them.
    """

    def __init__(
        self,
        likelihood: Reward,
        components: Sequence[WeightedComponent],
        teacher_bytes: TokenBytes,
        *,
        everywhere: Callable[[Callable[[], Any]], Any] = lambda call: call(),
    ) -> None:
        self._likelihood = likelihood
        self._components = list(components)
        self._teacher_bytes = teacher_bytes
        self._everywhere = everywhere

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher's log-probabilities are read."""
        return self._likelihood.needs_teacher

    def in_place(self) -> AbstractContextManager[None]:
        """Keep students that rest in host memory on their device."""
        return self._likelihood.in_place()

    def measure(
        self,
        problems: Sequence[Problem],
        explanations: Sequence[Explanation],
        teacher_logprobs: Sequence[Tensor | None],
        *,
        runs: Sequence[int] | None = None,
    ) -> list[Measured]:
        """Return what the likelihood is made from; components read all rows of a step together."""
        return self._likelihood.measure(problems, explanations, teacher_logprobs, runs=runs)

    def judge(
        self,
        problems: Sequence[Problem],
        explanations: Sequence[Explanation],
        measured: Sequence[Measured],
    ) -> list[Score]:
        """Return the reward of each explanation with its parts, `component/NAME` unweighted among them."""
        scores = self._likelihood.judge(problems, explanations, measured)
        rows = [
            Explained(
                p, e, self._text(e), tuple(students[0].solution_logprobs_S.tolist()) if students else ()
            )
            for p, e, students in zip(problems, explanations, measured, strict=True)
        ]
        for item in self._components:
            values = self._everywhere(lambda component=item.component: component.values(rows))
            scores = [_added(score, item, value) for score, value in zip(scores, values, strict=True)]
        return scores

    def _text(self, explanation: Explanation) -> str:
        return b"".join(map(self._teacher_bytes, explanation.token_ids)).decode(errors="replace").strip()


def _solution_logprobs(students: Measured) -> tuple[float, ...]:
    return tuple(students[0].solution_logprobs_S.tolist()) if students else ()


def _added(score: Score, item: WeightedComponent, value: float) -> Score:
    parts = {**score.parts, f"component/{item.component.name}": value}
    return Score(score.reward + item.weight * value, parts)
