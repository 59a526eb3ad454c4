"""RL of a student: it is paid for right answers of its own (cold-started by fine-tuning on traces)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from rlt.formats.layout import StudentLayout
from rlt.formats.reply import ReplyReader
from rlt.generation.collective import on_every_process
from rlt.records import Completion, Problem, Score
from rlt.rewards.correctness import CorrectnessReward
from rlt.trainers.monitor_limits import student_limits
from rlt.trainers.prompted import PromptedProblem
from rlt.trainers.rl import RLTrainer


class StudentRLTrainer(RLTrainer[StudentLayout]):
    """Trains a student by RL against a grader."""

    limits = staticmethod(student_limits)
    reads_policy = False
    without_reward = "the grader's rewards are NaN or infinite: check the weights of `correctness`"

    def __init__(self, *args: Any, reward: CorrectnessReward, **kwargs: Any) -> None:
        """The other arguments are those of `RLTrainer`."""
        super().__init__(*args, **kwargs)
        self.read_reply = ReplyReader(self.layout.tokenizer, self.layout.style)
        self.reward = reward

    def measure(
        self,
        items: Sequence[PromptedProblem],
        completions: Sequence[Completion],
        policy_logprobs: Sequence[Tensor | None],  # noqa: ARG002 - right answers are paid
        *,
        runs: Sequence[int] | None,  # noqa: ARG002 - a grader knows one reply at a time
    ) -> list[Score]:
        """Return the verdict on each completion; a grader that fails on one process ends all of them."""
        problems, replies = [item.problem for item in items], [self.read_reply(c) for c in completions]
        return on_every_process(self.accelerator, partial(self.reward.score, problems, replies))

    def judge(
        self,
        items: Sequence[PromptedProblem],  # noqa: ARG002
        completions: Sequence[Completion],  # noqa: ARG002
        measured: Sequence[Score],
    ) -> list[Score]:
        """Return the reward of each completion, which is its verdict's."""
        return list(measured)

    def tell(self, problem: Problem, completion: Completion) -> dict[str, Any]:  # noqa: ARG002
        """Return thought and answer, under names by which the samples are traces to train a student on."""
        reply = self.read_reply(completion)
        return {
            "explanation": reply.thought,
            "student_answer": reply.answer,
            "well_formed": self.reward.has_form(reply),
        }
