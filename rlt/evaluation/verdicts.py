"""Verdicts of answers: what the rules of rlt/tasks take out of a text, and what its graders say to it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Self

from rlt.config.schema import MOST_OPTIONS
from rlt.tasks.extraction import Orders, extract
from rlt.tasks.graders import GRADERS
from rlt.tasks.skythought import SkyThoughtGrader, Turn

CHOICE = "choice"
UNFINISHED = "unfinished thought"
"""The rule by which there is no answer in a thought that never ends."""
_Pair = tuple[str, str, str]
"""Kind, answer, reference."""


class Ungraded(NamedTuple):
    """An answer to grade: the text that may hold it, or None where nothing counts as one."""

    text: str | None
    reference: str
    kind: str
    turn: str
    """All that the student wrote, the thought as well."""
    task: str = ""
    """The benchmark, for a second grader that treats some in their own way."""


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, what was graded of it, and by which rule that was found."""

    correct: bool
    extracted: str | None
    rule: str
    correct_skythought: bool | None = None
    """What SkyThought's program says, which reads the whole turn; None without it, and for other kinds."""
    undecided: bool = False
    """Whether our grader could not come to a verdict, so that the answer counts as wrong."""


class GradingPool:
    """Grades answers that are taken out of texts by `orders`; `seconds` is the CPU time that one may take.

    `original` are the folders of SkyThought's program, for its verdict beside ours.
    """

    def __init__(
        self, orders: Orders, *, seconds: float = 5.0, original: Sequence[str] | None = None
    ) -> None:
        self._orders = orders
        self._original = SkyThoughtGrader(original, seconds) if original else None
        self._graders: dict[str, Any] = {name: make(seconds) for name, make in GRADERS.items()}

    def grade(self, answers: Sequence[Ungraded]) -> list[Verdict]:
        """Return the verdict of each answer."""
        found = [self._find(answer) for answer in answers]
        ours = [
            None if text is None else (answer.kind, text, answer.reference)
            for answer, (text, _) in zip(answers, found, strict=True)
        ]
        right = self._right_of({pair for pair in ours if pair})
        theirs: list[bool | None] = [None] * len(answers)
        if self._original:
            theirs = self._original.grade([Turn(a.task, a.kind, a.turn, a.reference) for a in answers])
        return [
            Verdict(
                our in right,
                *read,
                their,
                undecided=our is not None and our not in right and self._is_undecided(our),
            )
            for read, our, their in zip(found, ours, theirs, strict=True)
        ]

    def _find(self, answer: Ungraded) -> tuple[str | None, str]:
        if answer.text is None:
            return None, UNFINISHED
        return extract(answer.text, self._orders[answer.kind])

    def _right_of(self, pairs: Iterable[_Pair]) -> set[_Pair]:
        """Return those that are right."""
        by_kind: dict[str, list[_Pair]] = defaultdict(list)
        for pair in pairs:
            by_kind[pair[0]].append(pair)
        return {
            pair
            for kind, of_kind in by_kind.items()
            for pair, is_right in zip(of_kind, self._grade(kind, of_kind), strict=True)
            if is_right
        }

    def _grade(self, kind: str, pairs: Sequence[_Pair]) -> list[bool]:
        if kind in MOST_OPTIONS:  # letters need no grader
            return [answer == reference for _, answer, reference in pairs]
        return self._graders[kind].grade([(answer, reference) for _, answer, reference in pairs])

    def _is_undecided(self, pair: _Pair) -> bool:
        kind, answer, reference = pair
        return kind not in MOST_OPTIONS and self._graders[kind].is_undecided(answer, reference)

    def close(self) -> None:
        """End the graders' processes."""
        for grader in self._graders.values():
            grader.close()
        if self._original:
            self._original.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
