"""Score explanations with a frozen student: the only code in `rewards` that runs a model.

The student's sequence is prefix ids + sampled explanation ids + suffix ids, so every span is known; one
forward pass per sequence gives both the solution's and the explanation's log-probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from rlt.formats.layout import StudentLayout, Suffix
from rlt.models.frozen import FrozenModel
from rlt.models.logprobs import Request
from rlt.records import Explanation, Problem, Score
from rlt.rewards.formula import RewardInputs, RewardSpec, rlt_reward


class StudentScorer:
    """The student-likelihood reward of explanations given as token ids.

    `agree` (the maximum of an integer over all ranks) matters for a ZeRO-3 sharded student only.
    """

    def __init__(
        self,
        student: FrozenModel,
        layout: StudentLayout,
        spec: RewardSpec,
        *,
        temperature: float,
        tokens_per_batch: int,
        agree: Callable[[int], int] = lambda count: count,
    ) -> None:
        self.student = student
        self.layout = layout
        self.spec = spec
        self._temperature = temperature
        self._tokens_per_batch = tokens_per_batch
        self._agree = agree

    def score(
        self,
        problems: Sequence[Problem],
        explanations: Sequence[Explanation],
        teacher_logprobs: Sequence[Tensor | None],
    ) -> list[Score]:
        """Return the reward of each explanation with its parts.

        `teacher_logprobs[i]` holds log p_T of explanation i's tokens, one value per token id.
        """
        requests = self._requests(problems, explanations)
        logprobs = self.student.logprobs(
            requests,
            temperature=self._temperature,
            tokens_per_batch=self._tokens_per_batch,
            agree=self._agree,
        )
        items = []
        for explanation, student, teacher in zip(explanations, logprobs, teacher_logprobs, strict=True):
            num_tokens = len(explanation.token_ids)
            assert teacher is None or len(teacher) == num_tokens, "one teacher value per explanation token"
            items.append(
                RewardInputs(
                    student[num_tokens:],
                    student[:num_tokens],
                    teacher,
                    explanation.has_end_tag,
                    explanation.text_after_end_tag,
                )
            )
        if not items:
            return []
        parts = {name: values.tolist() for name, values in rlt_reward(self.spec, items).items()}
        rows = [dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True)]
        return [Score(row.pop("reward"), row) for row in rows]

    def _requests(self, problems: Sequence[Problem], explanations: Sequence[Explanation]) -> list[Request]:
        """Return one scoring request per explanation; a problem of a group is encoded once."""
        frames: dict[tuple[str, str, str | None], tuple[list[int], Suffix]] = {}
        requests = []
        for problem, explanation in zip(problems, explanations, strict=True):
            key = (problem.question, problem.solution, problem.system)
            if key not in frames:
                frames[key] = self.layout.prefix_ids(problem), self.layout.suffix(problem)
            prefix, suffix = frames[key]
            requests.append(_request(prefix, explanation.token_ids, suffix))
        return requests


def is_scorable(score: Score) -> bool:
    """Whether the reward is a number; a model with NaN in its weights or activations gives none."""
    return math.isfinite(score.reward)


def _request(prefix: list[int], explanation: Sequence[int], suffix: Suffix) -> Request:
    """Return the student's sequence; wanted are first the explanation's tokens, then the solution's."""
    start = len(prefix)
    end = start + len(explanation)
    solution = range(end + suffix.solution.start, end + suffix.solution.stop)
    return Request([*prefix, *explanation, *suffix.ids], [*range(start, end), *solution])
