"""What a further component of the reward is: a name, and a value for each explanation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rlt.records import Explanation, Problem


@dataclass(frozen=True)
class Explained:
    """An explanation as components read it."""

    problem: Problem
    explanation: Explanation
    text: str
    """The explanation's text, without outer white space."""
    solution_logprobs: tuple[float, ...] = ()
    """log p_S of the solution's tokens after it (nats), as student_model reads them."""


class Component(Protocol):
    """Judges explanations by something else than the student's likelihood."""

    @property
    def name(self) -> str:
        """What the value is called in metrics and samples, as `component/NAME`."""
        ...

    def values(self, rows: Sequence[Explained]) -> list[float]:
        """Return one value per row; NaN where there is none, which makes the row unscorable.

        Every process of a run calls it, each with its own rows, which may be none.
        """
        ...
