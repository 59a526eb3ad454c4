"""RL of the teacher: its explanations are paid by what a frozen student makes of them.

The reward reads the policy's log-probabilities of the sampled ids. Where TRL computes those anyway, for its
importance-sampling correction, they are reused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlt.formats.layout import TeacherLayout
from rlt.formats.leakage import copied_share, states_first
from rlt.models.logprobs import Request
from rlt.records import Completion, Explanation, Problem, Score
from rlt.rewards.likelihood import Reward
from rlt.trainers.monitor_limits import teacher_limits
from rlt.trainers.narrow import evaluation_mode
from rlt.trainers.rl import PromptedProblem, RLTrainer


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
        "the student's or the teacher's log-probabilities are NaN or infinite: check the weights of "
        "student_model and of the policy"
    )

    def __init__(self, *args: Any, reward: TeacherReward, **kwargs: Any) -> None:
        """The other arguments are those of `RLTrainer`."""
        super().__init__(*args, **kwargs)
        self._old_logprobs: Tensor | None = None
        self._logprobs_from = reward.teacher_logprobs
        self.reward = reward.make(self)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._old_logprobs = None
        return super()._generate_and_score_completions(inputs)

    def score(self, items: Sequence[PromptedProblem], completions: Sequence[Completion]) -> list[Score]:
        """Return the reward of each explanation."""
        explanations = [self.layout.split(c.token_ids) for c in completions]
        teacher = self._teacher_logprobs(items, completions, explanations)
        return self.reward.score([item.problem for item in items], explanations, teacher)

    def tell(self, problem: Problem, completion: Completion) -> dict[str, Any]:
        """Return the explanation as text, and what it gives away of the solution."""
        ids = self.layout.split(completion.token_ids).token_ids
        explanation = str(self.layout.tokenizer.decode(list(ids)))
        return {
            "explanation": explanation,
            "solution_copied": copied_share(problem.solution, explanation),
            "solution_first": states_first(problem.question, problem.solution, explanation),
        }

    def _teacher_logprobs(
        self,
        items: Sequence[PromptedProblem],
        completions: Sequence[Completion],
        explanations: Sequence[Explanation],
    ) -> list[Tensor | None]:
        """Return log p_T of each explanation's tokens at the sampling temperature."""
        if not self.reward.needs_teacher:
            return [None] * len(items)
        lengths = [len(e.token_ids) for e in explanations]
        if self._logprobs_from == "engine":
            return [torch.tensor(c.logprobs[:n]) for c, n in zip(completions, lengths, strict=True)]
        if self._old_logprobs is not None and items is self._batch:
            return [row[:n].float().cpu() for row, n in zip(self._old_logprobs, lengths, strict=True)]
        requests = [
            Request([*i.prompt_ids, *e.token_ids], range(len(i.prompt_ids), len(i.prompt_ids) + n))
            for i, e, n in zip(items, explanations, lengths, strict=True)
        ]
        with evaluation_mode(self.policy):
            return list(self.logprobs(self.policy, requests))

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        result = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        is_for_loss = torch.is_grad_enabled()
        if not is_for_loss and self.vllm_importance_sampling_correction and self._old_logprobs is None:
            # The first pass without gradients is the policy's, for the correction: the reward reuses it.
            self._old_logprobs = result[0]
        return result
