"""What the parts of a run do in one step of a training: spans of phases, on lanes.

A lane is a training process or a generation server. The phases of a lane may overlap: a process can score
while it waits for further completions. Times come from a clock that the processes of a machine share.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from rlt.surroundings.clock import since_boot

PHASES = {
    "read": "reading rows",
    "sync": "syncing weights",
    "generate": "generating",
    "reference": "reference log-probabilities",
    "reward": "scoring",
    "update": "updating",
    "wait": "waiting",
}
"""The phases of a step in their usual order, with their labels. `time/NAME` is a metric of each."""
WAIT = "wait"
"""The phase in which a lane computes nothing, unless another of its phases runs at the same time."""


class Span(NamedTuple):
    """One phase on one lane; seconds since the step's begin, or since boot while it is recorded.

    Example: `Span("process 0", "reward", 12.5, 17.25)`
    """

    lane: str
    phase: str
    begin: float
    end: float


@dataclass(frozen=True)
class Timeline:
    """All that was done in one step."""

    step: int
    seconds: float
    spans: tuple[Span, ...]

    def seconds_of(self, phase: str) -> float:
        """Return the seconds in which a phase was running, on one lane or on several."""
        return covered(span for span in self.spans if span.phase == phase)

    def seconds_waited(self) -> float:
        """Return the seconds in which lanes waited and computed nothing, summed over lanes."""
        waits = 0.0
        for lane in {span.lane for span in self.spans}:
            mine = [span for span in self.spans if span.lane == lane]
            waits += covered(mine) - covered(span for span in mine if span.phase != WAIT)
        return waits


def covered(spans: Iterable[Span]) -> float:
    """Return the length of time that spans cover, what several cover counted once."""
    total, reached = 0.0, float("-inf")
    for span in sorted(spans, key=lambda span: span.begin):
        total += max(span.end - max(span.begin, reached), 0.0)
        reached = max(reached, span.end)
    return total


def merged(spans: Iterable[Span], gap: float) -> tuple[Span, ...]:
    """Return spans of the same lane and phase as one where no more than `gap` seconds lie between them.

    So a thousand requests to a server become one span, or as many as a picture can show.
    """
    whole: dict[tuple[str, str], list[Span]] = {}
    for span in sorted(spans, key=lambda span: span.begin):
        row = whole.setdefault((span.lane, span.phase), [])
        if row and span.begin - row[-1].end <= gap:
            row[-1] = row[-1]._replace(end=max(row[-1].end, span.end))
        else:
            row.append(span)
    return tuple(span for row in whole.values() for span in row)


class Stopwatch:
    """Records spans between `begin` and `end`, from any thread; what happens outside is not recorded.

    A span that is still open at an end is recorded up to there, and from the next begin on.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began: float | None = None
        self._spans: list[Span] = []
        self._open: dict[object, Span] = {}

    def begin(self) -> None:
        """Begin a step."""
        with self._lock:
            self._began, self._spans = since_boot(), []

    def end(self) -> tuple[float, float, list[Span]] | None:
        """Return begin, end and spans of the step, in seconds since boot; None where none has begun."""
        with self._lock:
            if self._began is None:
                return None
            now = since_boot()
            ended = self._began, now, [*self._spans, *(self._cut(span, now) for span in self._open.values())]
            self._began, self._spans = None, []
            return ended

    @contextmanager
    def span(self, lane: str, phase: str) -> Iterator[None]:
        """Record what is done inside as a phase of a lane, also where it fails."""
        key, begin = object(), since_boot()
        with self._lock:
            self._open[key] = Span(lane, phase, begin, begin)
        try:
            yield
        finally:
            with self._lock:
                span = self._open.pop(key)
                if self._began is not None:
                    self._spans.append(self._cut(span, since_boot()))

    def _cut(self, span: Span, end: float) -> Span:
        """Return an open span up to a moment of the step, and no longer than the step."""
        assert self._began is not None, "a step has begun"
        return span._replace(begin=max(span.begin, self._began), end=end)
