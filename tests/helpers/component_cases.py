"""Explanations as components read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlt.records import Explanation, Problem
from rlt.rewards.components.component import Explained


def explained(text: str = "", num_tokens: int = 0, *, solution: str = "72", **fields: Any) -> Explained:
    """Return one explanation; `fields` are those of its problem."""
    problem = Problem(**{"id": "p", "question": "36*2", "solution": solution, **fields})
    return Explained(problem, explanation(range(num_tokens)), text)


def explanation(ids: Sequence[int]) -> Explanation:
    return Explanation(tuple(ids), has_end_tag=True, text_after_end_tag=False)
