"""RL of a student: it is paid for right answers of its own (cold-started by fine-tuning on traces)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from rlt.formats.layout import StudentLayout
from rlt.formats.reply import ReplyReader
from rlt.generation.collective import on_every_process
from rlt.records import Completion, Problem, Score
from rlt.rewards.correctness import CorrectnessReward
from rlt.trainers.monitor_limits import student_limits
from rlt.trainers.rl import PromptedProblem, RLTrainer


class StudentRLTrainer(RLTrainer[StudentLayout]):
    """Trains a student by RL against a grader."""

    limits = staticmethod(student_limits)
    without_reward = "the grader's rewards are NaN or infinite: check the weights of `correctness`"

    def __init__(self, *args: Any, reward: CorrectnessReward, **kwargs: Any) -> None:
        """The other arguments are those of `RLTrainer`."""
        super().__init__(*args, **kwargs)
        self.read = ReplyReader(self.layout.tokenizer, self.layout.tags)
        self.reward = reward

    def score(self, items: Sequence[PromptedProblem], completions: Sequence[Completion]) -> list[Score]:
        """Return the reward of each completion; a grader that fails on one process ends all of them."""
        problems, replies = [item.problem for item in items], [self.read(c) for c in completions]
        return on_every_process(self.accelerator, partial(self.reward.score, problems, replies))

    def tell(self, problem: Problem, completion: Completion) -> dict[str, Any]:  # noqa: ARG002
        """Return thought and answer, under names by which the samples are traces to train a student on."""
        reply = self.read(completion)
        return {
            "explanation": reply.thought,
            "student_answer": reply.answer,
            "well_formed": self.reward.has_form(reply),
        }
