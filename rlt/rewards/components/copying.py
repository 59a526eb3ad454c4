"""Solution-copy penalty: how much of the solution an explanation repeats word by word.

    value = -(distinct n-word sequences of the solution that are in the explanation) / (all of them)

A solution of fewer than n words has the value 0: a good explanation ends in a short answer, so finding it
there is no sign of copying.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlt.formats.leakage import copied_share
from rlt.rewards.components.component import Explained


@dataclass(frozen=True)
class CopyPenalty:
    """Minus the share of the solution's n-word sequences that are in the explanation."""

    n: int
    name: str = "copy"

    def values(self, rows: Sequence[Explained]) -> list[float]:
        """Return the penalty of each row, from -1 to 0."""
        return [0.0 - (copied_share(row.problem.solution, row.text, self.n) or 0.0) for row in rows]
