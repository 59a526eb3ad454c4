"""How long a trace makes the student's training sequence, in the student's tokens: no models."""

from __future__ import annotations

from dataclasses import dataclass

from rlt.formats.layout import StudentLayout
from rlt.records import Problem, Trace


@dataclass(frozen=True)
class Length:
    """Tokens of one training row."""

    around: int
    """Everything but the explanation: prompt, question, tags, solution, end of turn."""
    explanation: int | None
    """None where there is none."""

    @property
    def total(self) -> int | None:
        """The whole row; None where there is no explanation."""
        return None if self.explanation is None else self.around + self.explanation


class TraceLengths:
    """Counts the tokens that `student_sft` trains on, by the same `StudentLayout.turn`."""

    def __init__(self, layout: StudentLayout) -> None:
        self._layout = layout
        self._around: dict[tuple[str, str | None], int] = {}

    def around(self, problem: Problem) -> int:
        """Return the tokens around an explanation; DataError where a problem cannot be laid out.

        A problem of several traces is encoded once.
        """
        key = (problem.id, problem.system)
        if key not in self._around:
            turn = self._layout.turn(problem, "")
            explanation = turn.explanation.stop - turn.explanation.start
            self._around[key] = len(turn.prompt_ids) + len(turn.completion_ids) - explanation
        return self._around[key]

    def __call__(self, trace: Trace) -> Length:
        """Return a trace's length."""
        text = trace.explanation
        return Length(
            self.around(trace.problem), None if text is None else len(self._layout.explanation_ids(text))
        )
