"""The student-likelihood reward: one frozen student, or several that judge together.

`formula.py` is the arithmetic, `scorer.py` asks a student; here is what a trainer or a dataset scorer uses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from rlt.records import Explanation, Problem, Score
from rlt.rewards.formula import RewardInputs, RewardSpec, combine_students, rlt_reward
from rlt.rewards.scorer import StudentScorer


class Reward(Protocol):
    """Scores explanations that are given as the teacher's token ids."""

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher's log-probabilities are read."""
        ...

    def score(
        self,
        problems: Sequence[Problem],
        explanations: Sequence[Explanation],
        teacher_logprobs: Sequence[Tensor | None],
    ) -> list[Score]:
        """Return the reward of each explanation with its parts: r_ss, r_kl, missing_tag, lengths, …

        `teacher_logprobs[i]` holds log p_T of explanation i's tokens, one value per token id, or None where
        they are not read. Collective where a student is sharded: every process calls it.
        """
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
    students the parts `NAME/r_ss` and `NAME/r_kl` tell them apart.
    """

    def __init__(
        self, students: Sequence[WeightedStudent], spec: RewardSpec, *, combine: str = "mean"
    ) -> None:
        assert students, "a reward needs a student"
        self.students = list(students)
        self.spec = spec
        self._combine = combine

    @property
    def needs_teacher(self) -> bool:
        """Whether the divergence reads the teacher's log-probabilities."""
        return self.spec.needs_teacher

    def score(
        self,
        problems: Sequence[Problem],
        explanations: Sequence[Explanation],
        teacher_logprobs: Sequence[Tensor | None],
    ) -> list[Score]:
        """Return the reward of each explanation with its parts."""
        return self.judge([s.scorer.measure(problems, explanations, teacher_logprobs) for s in self.students])

    def judge(self, measured: Sequence[Sequence[RewardInputs]]) -> list[Score]:
        """Return the reward of each explanation from what every student measured, in the students' order."""
        if not measured[0]:
            return []
        parts = {
            student.name: rlt_reward(self.spec, items)
            for student, items in zip(self.students, measured, strict=True)
        }
        weights = [student.weight for student in self.students]
        total = combine_students(parts, weights, self._combine)
        columns = {name: values.tolist() for name, values in total.items()}
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return [Score(row.pop("reward"), row) for row in rows]


def is_scorable(score: Score) -> bool:
    """Whether the reward is a number; a model with NaN in its weights or activations gives none."""
    return math.isfinite(score.reward)
