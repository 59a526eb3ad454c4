"""The graders by name: each says whether an answer is right, the same when it pays and when it evaluates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol, Self

from rlt.tasks.countdown import CountdownGrader
from rlt.tasks.math_grader import MathGrader


class Grader(Protocol):
    """Grades answers. As a context it ends what it has started."""

    @property
    def undecided(self) -> int:
        """Answers that could not be graded, which count as wrong."""
        ...

    def __call__(self, answer: str, reference: str) -> bool:
        """Whether an answer is right; DataError for a reference that it cannot read."""
        ...

    def grade(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Return for each (answer, reference) whether it is right."""
        ...

    def is_undecided(self, answer: str, reference: str) -> bool:
        """Whether this pair could not be graded, so that it counts as wrong."""
        ...

    def is_answer(self, text: str) -> bool:
        """Whether a text has the form of an answer, right or wrong."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


GRADERS: dict[str, Callable[[float], Grader]] = {
    "math": MathGrader,
    "countdown": lambda _: CountdownGrader(),  # takes no time that needs a limit
}
"""Name (`reward.answers.grader`, `correctness.grader`) -> the grader for an answer's CPU seconds."""
