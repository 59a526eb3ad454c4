"""Frozen records that cross module and stage boundaries. Pure data: no torch, no I/O."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any


def problem_id(question: str, solution: str) -> str:
    """Return the stable id of a problem: 16 hex digits of the hash of its question and solution."""
    return hashlib.sha256(f"{question}\x00{solution}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Problem:
    """A question with a known solution, as every stage reads it.

    Example: `Problem(id="9f…", question="2+2?", solution="4", reasoning_trace="Two and two make four.")`
    """

    id: str
    question: str
    solution: str
    reasoning_trace: str | None = None
    answer: str | None = None
    system: str | None = None
    """The student's system prompt that came with the row (Bespoke-Stratos carries it), or None."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Columns that the framework does not know, as they were; rewards read them from the problem."""

    @property
    def reference(self) -> str:
        """What an answer is graded against: the row's own answer, else its solution."""
        return self.answer or self.solution


@dataclass(frozen=True)
class Explanation:
    """What the teacher wrote, cut out of a sampled completion by token ids.

    `token_ids` are the sampled ids before the first token that touches the end tag, and before the
    first control token. They are `completion_ids[:len(token_ids)]`, so per-token values line up.
    """

    token_ids: tuple[int, ...]
    has_end_tag: bool
    text_after_end_tag: bool
    """There is something other than white space between the end tag and the end of the turn."""


@dataclass(frozen=True)
class Trace:
    """One of a problem's explanations, as text."""

    problem: Problem
    sample_index: int
    """Its place among the problem's explanations."""
    explanation: str | None
    """None where the source has a place without a text."""
    is_fallback: bool = False
    """Kept for problems of which no other explanation has a score."""


@dataclass(frozen=True)
class Completion:
    """One sampled continuation of a prompt, as the generation back end returns it."""

    token_ids: tuple[int, ...]
    """Sampled ids, the end-of-turn token included where the model wrote one."""
    logprobs: tuple[float, ...]
    """Log-probability (nats) of each id under the engine's sampling distribution; empty if not asked for."""
    finish_reason: str
    """`stop` (end of turn, or a stop id) or `length`."""


@dataclass(frozen=True)
class Score:
    """The reward of one explanation with its parts (method: reward = r_SS - r_KL + format)."""

    reward: float
    parts: dict[str, float]
    """Named components: r_ss, r_ss_mean, r_ss_min, r_kl, r_kl_mean, r_kl_max, format, lengths."""
