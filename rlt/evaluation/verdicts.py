"""Verdicts of answers: what the rules of rlt/tasks take out of a text, and what its graders say to it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Self

from rlt.config.schema import MOST_OPTIONS
from rlt.tasks import skythought
from rlt.tasks.extraction import Orders, extract
from rlt.tasks.graders import GRADERS

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


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, what was graded of it, and by which rule that was found."""

    correct: bool
    extracted: str | None
    rule: str
    correct_skythought: bool | None = None
    """What SkyThought would say, which reads the whole turn; None for tasks that it has not."""
    undecided: bool = False
    """Whether our grader could not come to a verdict, so that the answer counts as wrong."""


class GradingPool:
    """Grades answers that are taken out of texts by `orders`; `seconds` is the CPU time that one may take."""

    def __init__(self, orders: Orders, *, seconds: float = 5.0) -> None:
        self._orders = orders
        self._graders: dict[str, Any] = {name: make(seconds) for name, make in GRADERS.items()}

    def grade(self, answers: Sequence[Ungraded]) -> list[Verdict]:
        """Return the verdict of each answer."""
        found = [self._find(answer) for answer in answers]
        ours = [
            None if text is None else (answer.kind, text, answer.reference)
            for answer, (text, _) in zip(answers, found, strict=True)
        ]
        theirs = [_as_skythought(answer) for answer in answers]
        right = self._right_of({pair for pair in (*ours, *theirs) if isinstance(pair, tuple)})
        return [
            Verdict(
                our in right,
                *read,
                their in right if isinstance(their, tuple) else their,
                our is not None and our not in right and self._is_undecided(our),
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _as_skythought(answer: Ungraded) -> bool | _Pair | None:
    """Return SkyThought's verdict, or the pair that computer algebra has to compare; None for other tasks."""
    if answer.kind not in skythought.KINDS:
        return None
    read = skythought.read(answer.turn, answer.kind)
    if read is None:
        return False
    if answer.kind == CHOICE:
        return read == answer.reference
    verdict = skythought.says_same(read, answer.reference)
    return (answer.kind, read, answer.reference) if verdict is None else verdict
