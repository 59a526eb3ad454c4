"""RL of a student: it is paid for right answers of its own, or for thoughts that make the solution likely."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

from torch import Tensor

from rlt.formats.layout import StudentLayout
from rlt.formats.reply import Reply, ReplyReader
from rlt.generation.collective import on_every_process
from rlt.records import Completion, Problem, Score
from rlt.rewards.correctness import Everywhere
from rlt.rundir.samples import SampleRow
from rlt.trainers.monitor_limits import student_limits
from rlt.trainers.prompted import PromptedProblem
from rlt.trainers.rl import RLTrainer


class StudentReward(Protocol):
    """Pays replies: `CorrectnessReward` by a grader, `ThoughtReward` by the solution's likelihood."""

    def has_form(self, reply: Reply) -> bool:
        """Whether a reply is a thought with an answer that can be read as one."""
        ...

    def in_place(self) -> AbstractContextManager[None]:
        """Keep models that rest in host memory on their device for several calls of `measure`."""
        ...

    def measure(
        self,
        problems: Sequence[Problem],
        completions: Sequence[Completion],
        replies: Sequence[Reply],
        *,
        runs: Sequence[int] | None,
        everywhere: Everywhere,
    ) -> list[Any]:
        """Return what each reply's reward is made from; every process calls it.

        `everywhere` runs a call and lets its failure on one process of a run reach all of them.
        """
        ...

    def judge(self, problems: Sequence[Problem], measured: Sequence[Any]) -> list[Score]:
        """Return the reward of each reply; every process calls it with all of its rows of a step."""
        ...


class StudentRLTrainer(RLTrainer[StudentLayout]):
    """Trains a student by RL against a grader, or against the likelihood of the solution."""

    limits = staticmethod(student_limits)
    reads_policy = False
    without_reward = (
        "the grader's rewards or student_model's log-probabilities are NaN or infinite: check the weights of "
        "`correctness`, and those of the models"
    )

    def __init__(
        self, *args: Any, reward: Callable[[StudentRLTrainer], StudentReward], **kwargs: Any
    ) -> None:
        """The other arguments are those of `RLTrainer`; the policy may be needed to make the reward."""
        super().__init__(*args, **kwargs)
        self.read_reply = ReplyReader(self.layout.tokenizer, self.layout.style)
        self.reward = reward(self)

    def while_reading(self) -> AbstractContextManager[None]:
        """Keep a frozen copy that rests in host memory on its device."""
        return self.reward.in_place()

    def measure(
        self,
        items: Sequence[PromptedProblem],
        completions: Sequence[Completion],
        policy_logprobs: Sequence[Tensor | None],  # noqa: ARG002 - those of its own samples pay nothing
        *,
        runs: Sequence[int] | None,
    ) -> list[Any]:
        """Return what each reply's reward is made from; a failure on one process ends all of them."""
        problems, replies = [item.problem for item in items], [self.read_reply(c) for c in completions]
        everywhere = partial(on_every_process, self.accelerator)
        return self.reward.measure(problems, completions, replies, runs=runs, everywhere=everywhere)

    def judge(
        self,
        items: Sequence[PromptedProblem],
        completions: Sequence[Completion],  # noqa: ARG002 - `measure` has read them
        measured: Sequence[Any],
    ) -> list[Score]:
        """Return the reward of each reply."""
        return self.reward.judge([item.problem for item in items], measured)

    def tell(self, problem: Problem, completion: Completion) -> SampleRow:  # noqa: ARG002
        """Return thought and answer, under names by which the samples are traces to train a student on."""
        reply = self.read_reply(completion)
        return {
            "explanation": reply.thought,
            "student_answer": reply.answer,
            "well_formed": self.reward.has_form(reply),
        }
