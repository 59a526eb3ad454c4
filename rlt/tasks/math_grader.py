"""Whether an answer to a mathematical question is right.

What can be decided without computer algebra is decided at once (normal_form.py). Of the rest math-verify
compares the expressions, in child processes (grading_process.py), so that no answer can hang or crash this
one, whichever thread asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rlt.tasks.child_pool import MOST_CHILDREN, ChildPool
from rlt.tasks.extraction import ORDERS, extract
from rlt.tasks.grading_child import Asked, GradingChild
from rlt.tasks.normal_form import decide

Pair = tuple[str, str]
"""Answer and reference."""
_MARKED = ("last boxes", "final mark")


class MathGrader:
    """Grades answers; `seconds` is the CPU time that an answer may take.

    An answer that cannot be decided in that time, or that ends its child, is wrong; `undecided` counts them.
    There is a child for each core, up to `most_children`, none before it is needed. May be called from
    several threads, and after `close`.
    """

    def __init__(self, seconds: float = 5.0, most_children: int = MOST_CHILDREN) -> None:
        self._children = ChildPool(lambda: GradingChild(seconds), seconds, most_children)

    @property
    def undecided(self) -> int:
        """Answers that could not be graded, which count as wrong."""
        return self._children.undecided

    def __call__(self, answer: str, reference: str) -> bool:
        """Whether what `answer`, a whole text, answers says the same as `reference`.

        It is read by the order `lenient` of extraction.py, as `evaluate` reads it: answer tag, boxes, what
        follows `####`, answer phrase, a formula alone, the last formula, the last value, one line.
        """
        return self.grade([(extract(answer, ORDERS["lenient"]["math"])[0] or "", reference)])[0]

    def grade(self, pairs: Sequence[Pair]) -> list[bool]:
        """Return for each answer whether it says the same as its reference.

        Of both, what is boxed or after `####` counts, and else the whole: an answer has been read already.
        """
        bare = [(_bare(answer), _bare(reference)) for answer, reference in pairs]
        verdicts: dict[Asked, bool | None] = {pair: self._decide(pair) for pair in bare}
        verdicts |= self._children.grade([pair for pair, verdict in verdicts.items() if verdict is None])
        return [bool(verdicts[pair]) for pair in bare]

    def is_undecided(self, answer: str, reference: str) -> bool:
        """Whether this pair has been given up, so that it counts as wrong."""
        return (_bare(answer), _bare(reference)) in self._children.given_up

    def is_answer(self, text: str) -> bool:
        """Whether a text says anything."""
        return bool(text.strip())

    def close(self) -> None:
        """End the child processes, once they have answered what they were asked."""
        self._children.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _decide(self, pair: Asked) -> bool | None:
        known = self._children.known.get(pair)
        return decide(pair[0], pair[1]) if known is None else known


def _bare(text: str) -> str:
    return extract(text, _MARKED)[0] or text.strip()
