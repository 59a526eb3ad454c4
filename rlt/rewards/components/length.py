"""Length shaping: explanations outside of a range of lengths cost, in proportion to how far they are.

With n tokens of explanation, as the teacher sampled them, and the range [low, high]:

    value = -(low - n) / low      if n < low
    value = -(n - high) / high    if n > high
    value = 0                     otherwise

so an empty explanation and one of twice the upper limit both have -1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlt.rewards.components.component import Explained


@dataclass(frozen=True)
class LengthPenalty:
    """Zero inside of [low, high], falling linearly outside; high None is no upper limit."""

    low: int
    high: int | None
    name: str = "length"

    def values(self, rows: Sequence[Explained]) -> list[float]:
        """Return the penalty of each row, at most 0."""
        return [self._value(len(row.explanation.token_ids)) for row in rows]

    def _value(self, num_tokens: int) -> float:
        if num_tokens < self.low:
            return -(self.low - num_tokens) / self.low
        if self.high is not None and num_tokens > self.high:
            return -(num_tokens - self.high) / self.high
        return 0.0
