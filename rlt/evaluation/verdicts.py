"""Verdicts of answers: what the rules of rlt/tasks take out of a text, and what its graders say to it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from typing_extensions import Self

from rlt.tasks.extraction import Orders, extract
from rlt.tasks.graders import GRADERS

CHOICE = "choice"
"""The kind whose answers are letters, which need no grader."""


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
        found = [extract(text, self._orders[kind]) for text, _, kind in tasks]
        pairs: dict[str, dict[int, tuple[str, str]]] = defaultdict(dict)  # kind -> place -> pair
        for place, ((_, reference, kind), (answer, _)) in enumerate(zip(tasks, found, strict=True)):
            if answer is not None:
                pairs[kind][place] = answer, reference
        right: dict[int, bool] = {}
        for kind, of_kind in pairs.items():
            right.update(zip(of_kind, self._grade(kind, list(of_kind.values())), strict=True))
        return [Verdict(right.get(place, False), *one) for place, one in enumerate(found)]

    def _grade(self, kind: str, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        if kind == CHOICE:
            return [answer == reference for answer, reference in pairs]
        return self._graders[kind].grade(pairs)

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
