"""The reward of student RL without a grader: how likely the solution is after the student's own thought.

    reward = weight · (r_SS - missing_tag_penalty where the turn is malformed)
             + what a grader pays, where there is one too (correctness.py)

r_SS is the method's (formula.py), of the policy itself, its reference, or a frozen copy (student_model). The
student's sequence is its prompt, the very ids that it has sampled up to the end of its thought, and then the
solution as its layout writes one. A turn that never ends its thought is read whole. The answer that the
student writes by itself is judged by a grader alone; it shares the advantage of its turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial

from rlt.formats.cut import Cut
from rlt.formats.reply import Reply
from rlt.records import Completion, Explanation, Problem, Score
from rlt.rewards.correctness import CorrectnessReward, Everywhere
from rlt.rewards.likelihood import LikelihoodReward, Measured


@dataclass(frozen=True)
class MeasuredReply:
    """What the reward of one reply is made from."""

    thought: Explanation
    """What was sampled up to the end of the thought; `has_end_tag` where the whole turn is well-formed."""
    students: Measured
    verdict: Score | None
    """A grader's, where there is one."""


class ThoughtReward:
    """Pays replies for their thoughts, and where `verdicts` are given for their answers, too.

    `cut` cuts a turn before the tag that ends its thought.
    """

    def __init__(
        self,
        likelihood: LikelihoodReward,
        cut: Cut,
        *,
        weight: float,
        verdicts: CorrectnessReward | None = None,
    ) -> None:
        self._likelihood = likelihood
        self._cut = cut
        self._weight = weight
        self._verdicts = verdicts

    def has_form(self, reply: Reply) -> bool:
        """Whether a reply is a thought with an answer."""
        return reply.answer is not None if self._verdicts is None else self._verdicts.has_form(reply)

    def in_place(self) -> AbstractContextManager[None]:
        """Keep a frozen copy that rests in host memory on its device."""
        return self._likelihood.in_place()

    def measure(
        self,
        problems: Sequence[Problem],
        completions: Sequence[Completion],
        replies: Sequence[Reply],
        *,
        runs: Sequence[int] | None = None,
        everywhere: Everywhere,
    ) -> list[MeasuredReply]:
        """Return what the student makes of the solution after each thought, and the grader of each answer.

        Collective where the student is sharded. A failure on one process ends all of them.
        """
        verdicts: Sequence[Score | None] = [None] * len(replies)
        if self._verdicts is not None:
            verdicts = everywhere(partial(self._verdicts.score, problems, replies))
        thoughts = [
            replace(self._cut(completion.token_ids), has_end_tag=reply.answer is not None)
            for completion, reply in zip(completions, replies, strict=True)
        ]
        nobody: list[None] = [None] * len(thoughts)
        measured = everywhere(lambda: self._likelihood.measure(problems, thoughts, nobody, runs=runs))
        return [
            MeasuredReply(thought, _counted(students, reply), verdict)
            for thought, students, reply, verdict in zip(thoughts, measured, replies, verdicts, strict=True)
        ]

    def judge(self, problems: Sequence[Problem], measured: Sequence[MeasuredReply]) -> list[Score]:
        """Return the reward of each reply with its parts; collective as the likelihood's is."""
        thoughts, students = [item.thought for item in measured], [item.students for item in measured]
        scores = self._likelihood.judge(problems, thoughts, students)
        return [self._total(score, item) for score, item in zip(scores, measured, strict=True)]

    def _total(self, score: Score, item: MeasuredReply) -> Score:
        parts = {name: value for name, value in score.parts.items() if name not in _OF_TEACHERS}
        parts["well_formed"] = float(item.thought.has_end_tag)
        reward = self._weight * score.reward
        if item.verdict is None:
            return Score(reward, parts)
        return Score(reward + item.verdict.reward, parts | item.verdict.parts)


_OF_TEACHERS = ("r_kl", "r_kl_mean", "r_kl_max", "missing_tag", "text_after_tag")
"""Parts of the likelihood reward that say nothing here."""


def _counted(students: Measured, reply: Reply) -> Measured:
    """Return the measures with the tokens of the thought alone, without what opens it."""
    return tuple(replace(item, explanation_tokens=reply.thought_tokens) for item in students)
