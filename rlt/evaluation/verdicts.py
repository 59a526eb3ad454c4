"""Verdicts of answers: what is taken out of a text, and what the graders of rlt/tasks say to it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from typing_extensions import Self

from rlt.tasks.graders import GRADERS

_BRACES = re.compile(r"\\boxed\s*\{|[{}]")
_LETTER = re.compile(r"(?<![A-Za-z0-9])[A-D](?![A-Za-z0-9])")


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, what was taken out of it, and by which rule."""

    correct: bool
    extracted: str | None
    rule: str


class GradingPool:
    """Grades answers; `seconds` is the CPU time that one may take."""

    def __init__(self, *, seconds: float = 5.0) -> None:
        self._graders: dict[str, Any] = {name: make(seconds) for name, make in GRADERS.items()}

    def grade(self, tasks: Sequence[tuple[str, str, str]]) -> list[Verdict]:
        """Return the verdict of each (text, reference, kind)."""
        return [self._grade(*task) for task in tasks]

    def _grade(self, text: str, reference: str, kind: str) -> Verdict:
        if kind == "choice":
            letters = _LETTER.findall(text)
            extracted = letters[-1] if letters else None
            return Verdict(extracted == reference, extracted, "last letter" if letters else "none")
        boxed = last_boxed(text)
        extracted, rule = (text.strip(), "whole text") if boxed is None else (boxed, "last boxed")
        if not extracted:
            return Verdict(False, None, "none")
        return Verdict(self._graders[kind](extracted, reference), extracted, rule)

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


def last_boxed(text: str) -> str | None:
    r"""Return what stands in the last `\boxed{…}` that is closed, or None; in one pass over the text."""
    opened: list[int | None] = []  # where the content of a box starts, None for any other brace
    best: tuple[int, int] | None = None
    for match in _BRACES.finditer(text):
        if match[0] != "}":
            opened.append(match.end() if len(match[0]) > 1 else None)
        elif opened and (start := opened.pop()) is not None:
            best = max(best or (0, 0), (start, match.start()))
    return best and text[slice(*best)].strip()
