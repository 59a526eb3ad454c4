"""The student-likelihood reward: one frozen student, or several that judge together.

`formula.py` is the arithmetic, `scorer.py` asks a student; here is what a trainer or a dataset scorer uses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from rlt.models.frozen import FrozenModel
from rlt.records import Explanation, Problem, Score
from rlt.rewards.formula import (
    RewardInputs,
    RewardSpec,
    Share,
    among_others,
    combine_students,
    rlt_reward,
)
from rlt.rewards.scorer import StudentScorer

Measured = tuple[RewardInputs, ...]
"""What the students made of one explanation, in their order."""


class Reward(Protocol):
    """Scores explanations that are given as the teacher's token ids.

    In two halves: what models make of a row, which may be asked as soon as the row is there, and what all
    rows of a step earn.
    """

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher's log-probabilities are read."""
        ...

    def in_place(self) -> AbstractContextManager[None]:
        """Keep models that rest in host memory on their device for several calls of `measure`."""
        ...

    def measure(
        self,
        problems: Sequence[Problem],
        explanations: Sequence[Explanation],
        teacher_logprobs: Sequence[Tensor | None],
        *,
        runs: Sequence[int] | None = None,
    ) -> list[Measured]:
        """Return what the reward of each explanation is made from.

        `teacher_logprobs[i]` holds log p_T of explanation i's tokens, one value per token id, or None where
        they are not read. `runs`: numbers of consecutive rows; no row depends on those of another run.
        Collective where a student is sharded: every process calls it.
        """
        ...

    def judge(
        self,
        problems: Sequence[Problem],
        explanations: Sequence[Explanation],
        measured: Sequence[Measured],
    ) -> list[Score]:
        """Return the reward of each explanation with its parts: r_ss, r_kl, missing_tag, lengths, …"""
        ...


@dataclass(frozen=True)
class WeightedStudent:
    """A student with its voice among several."""

    name: str
    scorer: StudentScorer
    weight: float = 1.0


class LikelihoodReward:
    """The `Reward` of the method, from one student or several.

    `combine` is `mean` (by weight) or `min` (the student with the lowest r_SS - r_KL decides). With several
    students the parts `NAME/r_ss` and `NAME/r_kl` are those of each. `share` brings together the rows of all
    processes, where explanations of a problem are compared with each other (RewardSpec.group).
    """

    def __init__(
        self,
        students: Sequence[WeightedStudent],
        spec: RewardSpec,
        *,
        combine: str = "mean",
        share: Share = lambda rows: (rows, 0),
    ) -> None:
        assert students, "a reward needs a student"
        self.students = list(students)
        self.spec = spec
        self._combine = combine
        self._share = share

    @property
    def needs_teacher(self) -> bool:
        """Whether the divergence reads the teacher's log-probabilities."""
        return self.spec.needs_teacher

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Keep students that rest in host memory on their device."""
        with ExitStack() as stack:
            for student in self.students:
                if isinstance(student.scorer.student, FrozenModel):
                    stack.enter_context(student.scorer.student.in_place())
            yield

    def measure(
        self,
        problems: Sequence[Problem],
        explanations: Sequence[Explanation],
        teacher_logprobs: Sequence[Tensor | None],
        *,
        runs: Sequence[int] | None = None,
    ) -> list[Measured]:
        """Return what the students make of each explanation."""
        by_student = [
            student.scorer.measure(
                problems, explanations, teacher_logprobs, runs=runs, baseline=self.spec.baseline
            )
            for student in self.students
        ]
        return list(zip(*by_student, strict=True))

    def judge(
        self,
        problems: Sequence[Problem],
        explanations: Sequence[Explanation],  # noqa: ARG002 - for components
        measured: Sequence[Measured],
    ) -> list[Score]:
        """Return the reward of each explanation with its parts; collective as `share` is."""
        compares = self.spec.group != "none"
        if not measured:
            for _ in self.students if compares else ():
                self._share([])  # the other processes have rows
            return []
        by_student = zip(*measured, strict=True)
        parts = {
            student.name: rlt_reward(self.spec, items)
            for student, items in zip(self.students, by_student, strict=True)
        }
        if compares:
            keys = [(p.question, p.solution, p.system) for p in problems]
            parts = {name: among_others(self.spec, of, keys, self._share) for name, of in parts.items()}
        weights = [student.weight for student in self.students]
        total = combine_students(parts, weights, self._combine)
        columns = {name: values.tolist() for name, values in total.items()}
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return [Score(row.pop("reward"), row) for row in rows]

    def score(
        self,
        problems: Sequence[Problem],
        explanations: Sequence[Explanation],
        teacher_logprobs: Sequence[Tensor | None],
    ) -> list[Score]:
        """Return the reward of each explanation with its parts, in one go."""
        return self.judge(problems, explanations, self.measure(problems, explanations, teacher_logprobs))


def is_scorable(score: Score) -> bool:
    """Whether the reward is a number; a model with NaN in its weights or activations gives none."""
    return math.isfinite(score.reward)
