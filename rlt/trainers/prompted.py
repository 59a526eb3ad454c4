"""A problem on its way through RL."""

from __future__ import annotations

from dataclasses import dataclass

from rlt.records import Problem


@dataclass(frozen=True)
class PromptedProblem:
    """A problem with the token ids of the policy's prompt."""

    problem: Problem
    prompt_ids: list[int]
