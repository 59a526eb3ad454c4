"""A reward token by token: what each one was worth to a student, and what the explanation changed.

The same forward pass as the reward's gives the tokens of solution and explanation; one more, with nothing
between the thought tags, shows what the student thought of the solution before.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlt.records import Explanation, Problem, Score
from rlt.rewards.formula import RewardInputs, RewardSpec, divergence
from rlt.rewards.likelihood import LikelihoodReward
from rlt.rewards.scorer import StudentScorer

NOTHING = Explanation((), has_end_tag=True, text_after_end_tag=False)


@dataclass(frozen=True)
class SolutionToken:
    """A token of the solution that counts; log-probabilities in nats."""

    text: str
    logprob: float
    """log p_S given question and explanation."""
    logprob_without: float
    """log p_S given the question and an empty thought."""

    @property
    def gain(self) -> float:
        """What the explanation did for the token."""
        return self.logprob - self.logprob_without


@dataclass(frozen=True)
class ExplanationToken:
    """A token of the explanation, or for a student with another tokenizer a chunk; in nats."""

    text: str
    divergence: float
    student: float
    teacher: float | None


@dataclass(frozen=True)
class TokenView:
    """One explanation as one student reads it."""

    problem: Problem
    student: str
    solution: tuple[SolutionToken, ...]
    explanation: tuple[ExplanationToken, ...]
    score: Score
    """From all students."""
    score_without: Score
    """The same for an empty thought."""


def look(
    reward: LikelihoodReward,
    problems: Sequence[Problem],
    explanations: Sequence[Explanation],
    teacher_logprobs: Sequence[Tensor | None],
) -> list[TokenView]:
    """Return a view of each explanation for each of the reward's students, students innermost."""
    nothing, empty = [NOTHING] * len(problems), [torch.empty(0)] * len(problems)
    measured = reward.measure(problems, explanations, teacher_logprobs)
    bare = reward.measure(problems, nothing, empty)
    scores = reward.judge(problems, explanations, measured)
    scores_without = reward.judge(problems, nothing, bare)
    views = []
    for row, (problem, explanation) in enumerate(zip(problems, explanations, strict=True)):
        for index, student in enumerate(reward.students):
            item = measured[row][index]
            views.append(
                TokenView(
                    problem,
                    student.name,
                    _solution_tokens(student.scorer, problem, item, bare[row][index]),
                    _explanation_tokens(reward.spec, student.scorer, explanation, item),
                    scores[row],
                    scores_without[row],
                )
            )
    return views


def _solution_tokens(
    scorer: StudentScorer, problem: Problem, item: RewardInputs, bare: RewardInputs
) -> tuple[SolutionToken, ...]:
    suffix = scorer.layout.suffix(problem)
    texts = _spelled([scorer.own_bytes(i) for i in suffix.ids[suffix.solution]])
    values = zip(texts, item.solution_logprobs_S.tolist(), bare.solution_logprobs_S.tolist(), strict=True)
    return tuple(SolutionToken(*value) for value in values)


def _explanation_tokens(
    spec: RewardSpec, scorer: StudentScorer, explanation: Explanation, item: RewardInputs
) -> tuple[ExplanationToken, ...]:
    teacher = item.teacher_logprobs_T
    texts = _spelled(scorer.pieces(explanation, by_chunk=teacher is not None))
    values = zip(
        texts,
        divergence(spec, item).tolist(),
        item.student_logprobs_T.tolist(),
        [None] * len(texts) if teacher is None else teacher.tolist(),
        strict=True,
    )
    return tuple(ExplanationToken(*value) for value in values)


def _spelled(pieces: Sequence[bytes]) -> list[str]:
    """Return the text of each token; a character of several tokens is with the one that completes it."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    texts = [decoder.decode(piece) for piece in pieces]
    if texts:
        texts[-1] += decoder.decode(b"", final=True)
    return texts
