"""The second verdict: what SkyThought's own program says of a student's turn.

It differs from the graders of this folder in both directions: it takes a hundredth or a hundred times the
reference, does not look at brackets and units, and sorts whole numbers, so that 1,000 is not 1000. The
program is not part of this project; it runs in processes of its own (skythought_process.py), since it needs
libraries of other versions than ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rlt.tasks.child_pool import MOST_CHILDREN, ChildPool
from rlt.tasks.grading_child import GradingChild

_MODULE = "rlt.tasks.skythought_process"
_KINDS = ("math", "choice")
_OWN_HANDLER = "gsm8k"
"""The task that it does not compare like MATH, but as text."""


class Turn(NamedTuple):
    """A student's whole turn, the thought as well, with the task's name, its kind and the reference."""

    task: str
    kind: str
    text: str
    reference: str


class SkyThoughtGrader:
    """Asks the program found in `paths` (`grader_paths`); a verdict may take `seconds` of CPU time."""

    def __init__(self, paths: Sequence[str], seconds: float, most_children: int = MOST_CHILDREN) -> None:
        self._children = ChildPool(
            lambda: GradingChild(seconds, _MODULE, paths=paths), seconds, most_children
        )

    @property
    def undecided(self) -> int:
        """Turns that it has not come to a verdict on in time, which count as wrong."""
        return self._children.undecided

    def grade(self, turns: Sequence[Turn]) -> list[bool | None]:
        """Return its verdict of each turn; None for kinds of answers that it does not grade."""
        asked = [
            (turn.text, turn.reference, _OWN_HANDLER if turn.task == _OWN_HANDLER else turn.kind)
            if turn.kind in _KINDS
            else None
            for turn in turns
        ]
        verdicts = self._children.grade([texts for texts in asked if texts])
        return [verdicts[texts] if texts else None for texts in asked]

    def close(self) -> None:
        """End the processes."""
        self._children.close()
