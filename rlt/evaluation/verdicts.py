"""Verdicts of answers: what the rules of rlt/tasks take out of a text, and what its graders say to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from typing_extensions import Self

from rlt.tasks.extraction import Orders, extract
from rlt.tasks.graders import GRADERS


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, what was taken out of it, and by which rule."""

    correct: bool
    extracted: str | None
    rule: str


class GradingPool:
    """Grades answers that are taken out of texts by `orders`; `seconds` is the CPU time that one may take."""

    def __init__(self, orders: Orders, *, seconds: float = 5.0) -> None:
        self._orders = orders
        self._graders: dict[str, Any] = {name: make(seconds) for name, make in GRADERS.items()}

    def grade(self, tasks: Sequence[tuple[str, str, str]]) -> list[Verdict]:
        """Return the verdict of each (text, reference, kind)."""
        return [self._grade(*task) for task in tasks]

    def _grade(self, text: str, reference: str, kind: str) -> Verdict:
        extracted, rule = extract(text, self._orders[kind])
        if extracted is None:
            return Verdict(False, None, rule)
        is_right = extracted == reference if kind == "choice" else self._graders[kind](extracted, reference)
        return Verdict(is_right, extracted, rule)

    def close(self) -> None:
        """End the graders' processes."""
        for grader in self._graders.values():
            grader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
