"""Whether an answer to a mathematical question is right.

What can be said without computer algebra is said at once (normal_form.py). Of the rest math-verify compares
the expressions, in child processes (grading_process.py), so that no answer can hang or crash this one,
whichever thread asks.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from rlt.tasks.extraction import extract
from rlt.tasks.grading_child import GradingChild, Pair
from rlt.tasks.normal_form import decide

logger = logging.getLogger(__name__)

MOST_CHILDREN = 4
_PAIRS_AT_ONCE, _CHARACTERS_AT_ONCE = 64, 5_000
"""Of one request to a child: as JSON they fit into a pipe, so that no side waits for the other to read."""
_REMEMBERED = 100_000
"""Pairs whose verdict is kept: the samples of a problem often agree."""
_MARKED = ("last boxes", "final mark")


class MathGrader:
    """Grades answers; `seconds` is the CPU time that an answer may take.

    An answer that cannot be decided in that time, or that ends its child, is wrong; `undecided` counts them.
    There is a child for each core, up to `most_children`, none before it is needed. May be called from
    several threads, and after `close`.
    """

    def __init__(self, seconds: float = 5.0, most_children: int = MOST_CHILDREN) -> None:
        self.undecided = 0
        self._given_up: set[Pair] = set()
        self._seconds = seconds
        self._lock = threading.Lock()
        self._known: dict[Pair, bool] = {}
        self._num_children = min(most_children, len(os.sched_getaffinity(0)))
        self._children: queue.LifoQueue[GradingChild] = queue.LifoQueue()  # first out: one that has started
        for _ in range(self._num_children):
            self._children.put(GradingChild(seconds))

    def __call__(self, answer: str, reference: str) -> bool:
        """Whether `answer` says the same as `reference`; of both, what is boxed or after `####`."""
        return self.grade([(answer, reference)])[0]

    def grade(self, pairs: Sequence[Pair]) -> list[bool]:
        """Return for each answer whether it says the same as its reference."""
        bare = [(_bare(answer), _bare(reference)) for answer, reference in pairs]
        verdicts = {pair: self._decide(pair) for pair in bare}
        batches = list(_batches([p for p, v in verdicts.items() if v is None], self._num_children))
        if len(batches) < 2:
            graded = map(self._ask, batches)
        else:
            with ThreadPoolExecutor(self._num_children) as threads:
                graded = list(threads.map(self._ask, batches))
        for batch, found in zip(batches, graded, strict=True):
            verdicts.update(zip(batch, found, strict=True))
        return [bool(verdicts[pair]) for pair in bare]

    def is_undecided(self, answer: str, reference: str) -> bool:
        """Whether this pair has been given up, so that it counts as wrong."""
        return (_bare(answer), _bare(reference)) in self._given_up

    def is_answer(self, text: str) -> bool:
        """Whether a text says anything."""
        return bool(text.strip())

    def close(self) -> None:
        """End the child processes, once they have answered what they were asked."""
        children = [self._children.get() for _ in range(self._num_children)]
        for child in children:
            child.end()
            self._children.put(child)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _decide(self, pair: Pair) -> bool | None:
        known = self._known.get(pair)
        return decide(*pair) if known is None else known

    def _ask(self, pairs: list[Pair]) -> list[bool]:
        """Return what a child says; a pair that ends it is wrong, and the next ones go to a new one."""
        child = self._children.get()
        try:
            verdicts: list[bool] = []
            while len(verdicts) < len(pairs):
                verdicts += child.ask(pairs[len(verdicts) :])
                if len(verdicts) < len(pairs):
                    self._give_up(pairs[len(verdicts)])
                    verdicts.append(False)
        finally:
            self._children.put(child)
        with self._lock:
            if len(self._known) > _REMEMBERED:
                self._known.clear()
            self._known.update(zip(pairs, verdicts, strict=True))
        return verdicts

    def _give_up(self, pair: Pair) -> None:
        with self._lock:
            self._given_up.add(pair)
            self.undecided += 1
            count = self.undecided
        if count.bit_count() == 1:  # the 1st, 2nd, 4th, 8th …
            logger.warning(
                "an answer could not be graded within %g CPU seconds and counts as wrong (%d so far): %.80r",
                self._seconds,
                count,
                pair[0],
            )


def _bare(text: str) -> str:
    return extract(text, _MARKED)[0] or text.strip()


def _batches(pairs: Sequence[Pair], num_children: int) -> Iterator[list[Pair]]:
    """Yield requests that keep all children busy; none is longer than a pipe holds, unless one pair is."""
    most = min(_PAIRS_AT_ONCE, math.ceil(len(pairs) / num_children))
    batch: list[Pair] = []
    size = 0
    for pair in pairs:
        length = len(pair[0]) + len(pair[1])
        if batch and (len(batch) == most or size + length > _CHARACTERS_AT_ONCE):
            yield batch
            batch, size = [], 0
        batch.append(pair)
        size += length
    if batch:
        yield batch
