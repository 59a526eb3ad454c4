"""RL of the teacher: its explanations are paid by what a frozen student makes of them.

The reward reads the policy's log-probabilities of the sampled ids. Where the importance-sampling correction
is on, it reads the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rlt.formats.layout import TeacherLayout
from rlt.formats.leakage import copied_share, states_first
from rlt.generation.collective import on_every_process
from rlt.records import Completion, Explanation, Problem, Score
from rlt.rewards.likelihood import Measured, Reward
from rlt.rundir.samples import SampleRow
from rlt.trainers.monitor_limits import teacher_limits
from rlt.trainers.prompted import PromptedProblem
from rlt.trainers.rl import RLTrainer


@dataclass(frozen=True)
class TeacherReward:
    """How explanations are paid."""

    make: Callable[[TeacherRLTrainer], Reward]
    """The reward needs the trainer's accelerator to be made."""
    teacher_logprobs: str
    """`policy` or `engine` (configuration: reward.teacher_logprobs)."""


class TeacherRLTrainer(RLTrainer[TeacherLayout]):
    """Trains a teacher by RL against a frozen student."""

    limits = staticmethod(teacher_limits)
    without_reward = (
        "log-probabilities of student or teacher, or what one of reward.functions returned, are NaN or "
        "infinite: check the weights of student_model and of the policy, and the function"
    )

    def __init__(self, *args: Any, reward: TeacherReward, **kwargs: Any) -> None:
        """The other arguments are those of `RLTrainer`."""
        super().__init__(*args, **kwargs)
        self._logprobs_from = reward.teacher_logprobs
        self.reward = reward.make(self)
        self.reads_policy = self.reward.needs_teacher and self._logprobs_from == "policy"

    def while_reading(self) -> AbstractContextManager[None]:
        """Keep a student that rests in host memory on its device."""
        return self.reward.in_place()

    def measure(
        self,
        items: Sequence[PromptedProblem],
        completions: Sequence[Completion],
        policy_logprobs: Sequence[Tensor | None],
        *,
        runs: Sequence[int] | None,
    ) -> list[Measured]:
        """Return what the students make of each explanation; a server that fails one process ends all."""
        explanations = self._explanations(completions)
        teacher = [
            self._teacher_logprobs(explanation, completion, policy)
            for explanation, completion, policy in zip(
                explanations, completions, policy_logprobs, strict=True
            )
        ]
        problems = [item.problem for item in items]
        measure = partial(self.reward.measure, problems, explanations, teacher, runs=runs)
        return on_every_process(self.accelerator, measure)

    def judge(
        self,
        items: Sequence[PromptedProblem],
        completions: Sequence[Completion],
        measured: Sequence[Measured],
    ) -> list[Score]:
        """Return the reward of each explanation."""
        problems = [item.problem for item in items]
        return self.reward.judge(problems, self._explanations(completions), measured)

    def _explanations(self, completions: Sequence[Completion]) -> list[Explanation]:
        return [self.layout.split(completion.token_ids) for completion in completions]

    def _teacher_logprobs(
        self, explanation: Explanation, completion: Completion, policy: Tensor | None
    ) -> Tensor | None:
        """Return log p_T of an explanation's tokens at the sampling temperature; None where nobody asks."""
        if not self.reward.needs_teacher:
            return None
        values = policy if self._logprobs_from == "policy" else torch.tensor(completion.logprobs)
        assert values is not None, "asked for by reads_policy"
        return values[: len(explanation.token_ids)]

    def tell(self, problem: Problem, completion: Completion) -> SampleRow:
        """Return the explanation as text, and what it gives away of the solution."""
        ids = self.layout.split(completion.token_ids).token_ids
        explanation = str(self.layout.tokenizer.decode(list(ids)))
        return {
            "explanation": explanation,
            "solution_copied": copied_share(problem.solution, explanation),
            "solution_first": states_first(problem.question, problem.solution, explanation),
        }
