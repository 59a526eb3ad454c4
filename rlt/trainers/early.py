"""Rows that are read while others are still being written: which ones, and when.

A row's values must not depend on when it has come, so each is read in forward passes of its own; and where a
model is sharded, every process runs as many passes as the others. So the main process tells all of them what
has come, and each reads as many of its rows as every other one can, in the order of their arrival.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from rlt.records import Completion

Read = Callable[[Sequence[int], Sequence[Completion]], None]
"""Takes rows of this process, counted from 0, with their completions. Every process calls it, at the
same time and with as many rows as the others."""
MOST_AT_ONCE = 8
"""Rows of a process that are read before looking again for what has come."""


class Rounds:
    """The rows of all processes on their way from the engine to those who read them.

    Rows are counted over all processes; process i holds `rows_per_process[i]` consecutive ones.
    """

    def __init__(self, rows_per_process: Sequence[int]) -> None:
        assert len(set(rows_per_process)) == 1, "every process has as many rows"
        self._rows_each = rows_per_process[0]
        self._missing = set(range(sum(rows_per_process)))
        self._waiting: list[deque[int]] = [deque() for _ in rows_per_process]

    def add(self, rows: Sequence[int]) -> None:
        """Take note of rows that have come, in their order."""
        for row in rows:
            self._missing.remove(row)
            self._waiting[row // self._rows_each].append(row)

    @property
    def have_all_come(self) -> bool:
        """Whether nothing is missing."""
        return not self._missing

    @property
    def are_ready(self) -> bool:
        """Whether every process has a row to read."""
        return all(self._waiting)

    def next(self) -> list[list[int]]:
        """Return the rows that each process reads now, as many each, and no longer wait."""
        count = min(MOST_AT_ONCE, *map(len, self._waiting))
        return [[rows.popleft() for _ in range(count)] for rows in self._waiting]
