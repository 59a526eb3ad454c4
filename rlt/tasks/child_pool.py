"""Several grading processes, asked from any thread: one that does not come to a verdict is started again."""

from __future__ import annotations

import logging
import math
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from rlt.tasks.grading_child import Asked, GradingChild

logger = logging.getLogger(__name__)

MOST_CHILDREN = 4
_AT_ONCE, _CHARACTERS_AT_ONCE = 64, 5_000
"""Of one request to a child: as JSON they fit into a pipe, so that no side waits for the other to read."""
_REMEMBERED = 100_000
"""Verdicts that are kept: the samples of a problem often agree."""


class ChildPool:
    """Grades with a child for each core, up to `most_children`, none before it is needed.

    What ends its child, or cannot be decided in `seconds` of CPU time, is wrong; `undecided` counts it, `given_up` holds it.
    """

    def __init__(
        self, make: Callable[[], GradingChild], seconds: float, most_children: int = MOST_CHILDREN
    ) -> None:
        self.undecided = 0
        self.given_up: set[Asked] = set()
        self.known: dict[Asked, bool] = {}
        self._seconds = seconds
        self._lock = threading.Lock()
        self._num_children = min(most_children, len(os.sched_getaffinity(0)))
        self._children: queue.LifoQueue[GradingChild] = queue.LifoQueue()  # first out: one that has started
        for _ in range(self._num_children):
            self._children.put(make())

    def grade(self, asked: Sequence[Asked]) -> dict[Asked, bool]:
        """Return all verdicts."""
        new = [texts for texts in dict.fromkeys(asked) if texts not in self.known]
        verdicts = {texts: self.known[texts] for texts in asked if texts in self.known}
        batches = list(_batches(new, self._num_children))
        if len(batches) < 2:
            graded = map(self._ask, batches)
        else:
            with ThreadPoolExecutor(self._num_children) as threads:
                graded = list(threads.map(self._ask, batches))
        for batch, found in zip(batches, graded, strict=True):
            verdicts.update(zip(batch, found, strict=True))
        return verdicts

    def close(self) -> None:
        """End the child processes, once they have answered what they were asked."""
        children = [self._children.get() for _ in range(self._num_children)]
        for child in children:
            child.end()
            self._children.put(child)

    def _ask(self, asked: list[Asked]) -> list[bool]:
        """Return what a child says; what ends it is wrong, and the rest goes to a new one."""
        child = self._children.get()
        try:
            verdicts: list[bool] = []
            while len(verdicts) < len(asked):
                verdicts += child.ask(asked[len(verdicts) :])
                if len(verdicts) < len(asked):
                    self._give_up(asked[len(verdicts)])
                    verdicts.append(False)
        finally:
            self._children.put(child)
        with self._lock:
            if len(self.known) > _REMEMBERED:
                self.known.clear()
            self.known.update(zip(asked, verdicts, strict=True))
        return verdicts

    def _give_up(self, asked: Asked) -> None:
        with self._lock:
            self.given_up.add(asked)
            self.undecided += 1
            count = self.undecided
        if count.bit_count() == 1:  # the 1st, 2nd, 4th, 8th …
            logger.warning(
                "an answer could not be graded within %g CPU seconds and counts as wrong (%d so far): %.80r",
                self._seconds,
                count,
                asked[0],
            )


def _batches(asked: Sequence[Asked], num_children: int) -> Iterator[list[Asked]]:
    """Yield requests that keep all children busy; none is longer than a pipe holds, unless one text is."""
    most = min(_AT_ONCE, math.ceil(len(asked) / num_children))
    batch: list[Asked] = []
    size = 0
    for texts in asked:
        length = sum(map(len, texts))
        if batch and (len(batch) == most or size + length > _CHARACTERS_AT_ONCE):
            yield batch
            batch, size = [], 0
        batch.append(texts)
        size += length
    if batch:
        yield batch
