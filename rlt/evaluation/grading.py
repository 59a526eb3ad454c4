"""Grading beside the drawing: verdicts come in a thread of their own, for the running score."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rlt.evaluation.verdicts import Ungraded, Verdict
from rlt.formats.answer import read_answer
from rlt.formats.turns import TurnStyle

Key = tuple[str | int, ...]
Grade = Callable[[Sequence[Ungraded]], list[Verdict]]


class RunningScore:
    """Grades turns of a student as they come.

    `grades_unfinished` grades a thought that never ends as a whole; otherwise it is wrong. A failure of the
    grader is raised where the verdicts are asked for.
    """

    def __init__(self, grade: Grade, style: TurnStyle, grades_unfinished: bool) -> None:
        self._grade = grade
        self._style = style
        self._grades_unfinished = grades_unfinished
        self._waiting: queue.SimpleQueue[tuple[Key, Ungraded] | None] = queue.SimpleQueue()  # None is the end
        self._verdicts: dict[Key, Verdict] = {}
        self._num_right = 0
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True, name="rlt-grading")
        self._thread.start()

    def add(self, key: Key, turn: str, reference: str, kind: str, task: str = "") -> None:
        """Hand in a turn."""
        answer = read_answer(turn, self._style)
        text = None if answer.is_unfinished and not self._grades_unfinished else answer.text
        self._waiting.put((key, Ungraded(text, reference, kind, turn, task)))

    def note(self) -> str:
        """Return the score so far, as a progress line ends with it."""
        graded = len(self._verdicts)
        return f"  {self._num_right / graded:.1%} right of {graded:,}" if graded else ""

    def verdicts(self) -> dict[Key, Verdict]:
        """Return the verdict of every answer, once all are there."""
        self._waiting.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._verdicts

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waiting.put(None)

    def _work(self) -> None:
        try:
            while (batch := self._next_batch()) is not None:
                for (key, _), verdict in zip(batch, self._grade([one for _, one in batch]), strict=True):
                    self._verdicts[key] = verdict
                    self._num_right += verdict.correct
        except BaseException as error:  # raised by the call that asks for the verdicts
            self._error = error

    def _next_batch(self) -> list[tuple[Key, Ungraded]] | None:
        """Return what waits, at least one answer; None at the end."""
        batch: list[tuple[Key, Ungraded]] = []
        while not batch or not self._waiting.empty():
            one = self._waiting.get()
            if one is None:
                self._waiting.put(None)  # for the next call
                return batch or None
            batch.append(one)
        return batch
